"""One process that helps to play batches, as its parent sees it: `helper_process` is what runs inside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from multiprocessing.connection import Pipe, wait
from typing import Any

from fedpg_common.environments.flights import Part
from fedpg_common.environments.helper_process import Failed, Share
from fedpg_common.environments.lockstep import LiveCounts

PROGRAM = """\
import sys
sys.path[:] = {path!r}
from fedpg_common.environments.flights import Part
from fedpg_common.environments.helper_process import main
main({pipe}, {memory}, {processes})
"""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
SIGNALS = ("SIGINT", "SIGQUIT", "SIGTERM", "SIGHUP")
"""Meant for the parent, which decides when its helpers end."""
END_PATIENCE_S = 5.0
"""How long a process may take to be gone once its end of the pipe is."""


class HelperFailedError(Exception):
    """A helper is of no more use. The message goes on after "a process that plays a part of the episodes"."""


def can_help() -> bool:
    """Whether this system hands descriptors and signal masks on to processes, and Python knows its own program."""
    return os.name == "posix" and bool(sys.executable)


class Helper:
    """One process. It starts in the background: until it is ready, its work is to be done by others."""

    def __init__(self, counts: LiveCounts) -> None:
        """Start it, with the memory that it shares with others. Raises OSError."""
        self.pipe, theirs = Pipe()
        self._is_ready = False
        self._answer: Part | None = None
        pipe, memory = theirs.fileno(), counts.descriptor
        program = PROGRAM.format(path=sys.path, pipe=pipe, memory=memory, processes=counts.processes)
        try:
            self._process = _start([sys.executable, "-I", "-c", program], (pipe, memory))
        except BaseException:
            self.pipe.close()
            raise
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def is_ready(self) -> bool:
        """Whether it can be given a share. Raises HelperFailedError."""
        if not self._is_ready and self.pipe.poll():
            self._receive()
            self._is_ready = True
        return self._is_ready

    def give(self, share: Share) -> None:
        """Have it play a share from now on. Raises HelperFailedError."""
        self._answer = None
        try:
            self.pipe.send(share)
        except OSError as error:
            raise self._lost() from error

    def look(self) -> Part | None:
        """What it has played, if it is done. Raises HelperFailedError."""
        if self._answer is None and self.pipe.poll():
            received = self._receive()
            if isinstance(received, Failed):
                raise HelperFailedError(f"failed: {received.why}")
            self._answer = received
        return self._answer

    def close(self) -> None:
        """End it at once: it has nothing to lose."""
        self.pipe.close()
        self._process.kill()
        self._process.wait()

    def _receive(self) -> Any:
        try:
            return self.pipe.recv()
        except (EOFError, OSError) as error:
            raise self._lost() from error

    def _lost(self) -> HelperFailedError:
        try:
            code = self._process.wait(END_PATIENCE_S)
        except subprocess.TimeoutExpired:
            return HelperFailedError("closed its pipe")
        if code >= 0:
            return HelperFailedError(f"ended with exit code {code}")
        killed = signal.Signals(-code).name
        hint = ", as a machine does that is short of memory" if killed == "SIGKILL" else ""
        return HelperFailedError(f"was killed by {killed}{hint}")


def answers(helpers: list[Helper]) -> list[Part]:
    """What they have played, once all are done. Raises HelperFailedError as soon as one fails."""
    while True:
        # All are looked at: one that has failed may be waited for by another.
        found = [helper.look() for helper in helpers]
        played = [answer for answer in found if answer is not None]
        if len(played) == len(helpers):
            return played
        wait([helper.pipe for helper, answer in zip(helpers, found, strict=True) if answer is None])


def _start(command: list[str], descriptors: tuple[int, ...]) -> subprocess.Popen[bytes]:
    """A process that shares nothing but the descriptors and standard error, and that no signal of a terminal ends."""
    numbers = {getattr(signal, name) for name in SIGNALS}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)  # which the process inherits
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=descriptors,
            start_new_session=True,
            env={**os.environ, **ONE_THREAD},
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
