"""How a command ends: signals, broken pipes, and errors as one sentence with an exit code."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from fedpg_common.cli.entry import SIGNALS
from fedpg_common.errors import ExitCode, FedPGError
from fedpg_common.words import PATH_SHOWN_MAX, on_one_line, shorten_middle

DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
UNUSABLE = DISK | {errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}
"""What the system says of a path, or of a disk, that its owner has to see to."""


def run(command: str, app: Callable[[], object]) -> None:
    """Run a typer application. Raises SystemExit with the exit code that the README documents for how it ended.

    A FedPGError is printed as one sentence. A reader of the output that has gone away (`fedpg ... | head -1`) ends the
    command, and is not an error that anybody needs to be told.
    """
    try:
        app()
        code: object = ExitCode.OK
    except SystemExit as ended:
        code = ExitCode.BROKEN_PIPE if isinstance(ended.__context__, BrokenPipeError) else ended.code
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:
        code = ExitCode.BROKEN_PIPE
    except FedPGError as error:
        _print_error(f"{command}: {on_one_line(str(error))}")
        code = error.exit_code
    except OSError as error:
        found = _code_of(error)
        if found is None:
            raise
        _print_error(on_one_line(f"{command}: {_path_of(error)}: {error.strerror}"))
        code = found
    code = ExitCode.OK if code is None else code
    if not _flush() and code == ExitCode.OK:
        code = ExitCode.BROKEN_PIPE
    raise SystemExit(int(code) if isinstance(code, int) else code)


@contextmanager
def unwinding(hurry: Callable[[], None] = lambda: None) -> Iterator[list[int]]:
    """Let the first signal end what is under way in order; gives the list of the signals that came.

    The first SIGINT raises KeyboardInterrupt, the first SIGTERM SystemExit(143), in the main thread. The second one
    calls `hurry`, which makes the clean-up quick, and raises nothing, so that the clean-up is complete; later ones
    raise again, should the first have been lost in a callback. SIGINT stays ignored where it was.
    """
    signals: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        signals.append(number)
        if len(signals) > 1:
            hurry()
        if len(signals) != 2:
            raise SystemExit(int(ExitCode.TERMINATED)) if number == signal.SIGTERM else KeyboardInterrupt

    try:
        before = {number: signal.getsignal(number) for number in SIGNALS}
        heard = [number for number in SIGNALS if before[number] is not signal.SIG_IGN]
        for number in heard:
            signal.signal(number, note)
    except ValueError:  # not the main thread: it hears the signals
        heard = []
    try:
        yield signals
    finally:
        for number in heard:
            signal.signal(number, before[number])


def code_of(signals: list[int]) -> ExitCode:
    """The exit code of a command that these signals ended."""
    return ExitCode.TERMINATED if signal.SIGTERM in signals else ExitCode.INTERRUPTED


def _code_of(error: OSError) -> ExitCode | None:
    """The exit code of a path that cannot be used; None for an error that somebody should have seen to."""
    return ExitCode.STORAGE if error.errno in UNUSABLE else None


def _path_of(error: OSError) -> str:
    if error.filename is None:
        return "the output cannot be written"
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes | os.PathLike) else "a file"
    return shorten_middle(name, PATH_SHOWN_MAX)


def _print_error(sentence: str) -> None:
    try:
        print(sentence, file=sys.stderr, flush=True)
    except OSError:
        return  # nobody reads it any more; the exit code tells


def _flush() -> bool:
    """Write out what is buffered. False if the reader has gone away; then nothing more is tried at the exit."""
    whole = True
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            whole = False
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())
    return whole
