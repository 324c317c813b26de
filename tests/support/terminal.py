"""Commands in a real pseudo-terminal: what a person sees on its screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyte

ROOT = Path(__file__).parents[2]
PATIENCE_S = 300.0
LINES = 60
REDRAWING = r"\r\x1b\[2K"
"""With which rich begins to draw over what it has drawn: back to the line's start, and clear it."""
PLAIN_ENVIRONMENT = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TERM", "GITHUB_ACTIONS", "TTY_COMPATIBLE")
"""Variables that change what is shown; a test sets those that it means."""
MODULES = {"fedpg": "fedpg_lab", "fedpg-server": "fedpg_server", "fedpg-agent": "fedpg_client"}


def command_line(command: str, *arguments: object) -> list[str]:
    """A command as the installed script starts it."""
    program = f"import sys; sys.argv[0] = {command!r}; from {MODULES[command]}.__main__ import main; sys.exit(main())"
    return [sys.executable, "-c", program, *map(str, arguments)]


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without what changes the output, and with these changes."""
    return {name: value for name, value in os.environ.items() if name not in PLAIN_ENVIRONMENT} | changes


@dataclass(frozen=True)
class Shown:
    """What a command showed on a terminal."""

    code: int
    """Exit code; negative for the signal that ended it."""
    output: str
    """Everything that was written, escape sequences included."""
    columns: int

    @property
    def screen(self) -> list[str]:
        """The lines on the screen at the end, without those that are empty."""
        return self._replayed(self.output)

    @property
    def screens(self) -> list[list[str]]:
        """The screens that were to be seen one after the other: before each redrawing, and at the end."""
        ends = [found.start() for found in re.finditer(REDRAWING, self.output)]
        return [self._replayed(self.output[:end]) for end in [*ends, len(self.output)]]

    def _replayed(self, output: str) -> list[str]:
        screen = pyte.Screen(self.columns, LINES)
        pyte.Stream(screen).feed(output)
        return [line.rstrip() for line in screen.display if line.strip()]


class Terminal:
    """A command that runs in a pseudo-terminal of its own, as its controlling terminal."""

    def __init__(
        self, command: Sequence[str], *, columns: int = 80, cwd: Path = ROOT, env: Mapping[str, str] | None = None
    ) -> None:
        """Start it. `env` replaces the environment (see `environment`)."""
        self._columns = columns
        self._chunks: list[bytes] = []
        self._screen_end, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))
        self.process = subprocess.Popen(
            command, stdin=inner, stdout=inner, stderr=inner, cwd=cwd, start_new_session=True,
            preexec_fn=_take_terminal,
            env=dict(env if env is not None else environment(TERM="xterm-256color")),
        )  # fmt: skip
        os.close(inner)

    @property
    def output(self) -> str:
        """What was written so far."""
        return b"".join(self._chunks).decode("utf-8", "replace")

    def press_ctrl_c(self) -> None:
        """What the key does: the terminal sends SIGINT to the whole foreground group."""
        os.write(self._screen_end, b"\x03")

    def read(self, timeout_s: float) -> bool:
        """Read for so long or until something is written. False once the terminal is closed."""
        if select.select([self._screen_end], [], [], timeout_s)[0]:
            try:
                chunk = os.read(self._screen_end, 65536)
            except OSError:  # EIO: nobody has the terminal open any more
                return False
            self._chunks.append(chunk)
            return bool(chunk)
        return True

    def read_until(self, text: str, after: str | None = None) -> None:
        """Read until this was written, behind the last `after` where one is given."""
        deadline_s = time.monotonic() + PATIENCE_S
        while text not in (self.output if after is None else self.output.rpartition(after)[2]):
            assert self.read(0.2), f"it ended without {text!r}: {self.output}"
            assert time.monotonic() < deadline_s, f"no {text!r} within {PATIENCE_S:.0f} s: {self.output}"

    def end(self) -> Shown:
        """Wait for its end."""
        deadline_s = time.monotonic() + PATIENCE_S
        try:
            while self.read(0.2) or self.process.poll() is None:
                if self.process.poll() is not None and not select.select([self._screen_end], [], [], 0)[0]:
                    break  # a grandchild may have the terminal open still
                assert time.monotonic() < deadline_s, f"it does not end: {self.output}"
        finally:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGKILL)
            code = self.process.wait()
            os.close(self._screen_end)
        return Shown(code, self.output, self._columns)


def shown(
    command: Sequence[str], *, columns: int = 80, cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> Shown:
    """Run a command in a terminal to its end."""
    return Terminal(command, columns=columns, cwd=cwd, env=env).end()


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
