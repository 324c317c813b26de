"""How a command starts: it heeds signals before it imports anything that takes a millisecond."""

from __future__ import annotations

import os
import signal

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def start(command: str, module: str) -> None:
    """Import the typer application `module.app` and run it as `command`. Ends the process.

    Until the application says otherwise (see `fedpg_common.cli.ending.unwinding`), SIGINT and SIGTERM end the process
    at once: what has been imported, parsed or printed by then needs no cleaning up.
    """
    _heed_signals_at_once()
    import atexit
    from importlib import import_module

    from fedpg_common.cli.ending import run

    _open_closed_streams()
    atexit.register(_ignore_signals)  # the first one registered is the last to be called
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read once, when grpc is imported; its errors reach us as codes
    try:
        run(command, import_module(module).app)
    finally:
        _heed_signals_at_once()  # what is left is the interpreter's own end


def _heed_signals_at_once() -> None:
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # a shell's background job ignores Ctrl-C
            signal.signal(number, _end_at_once)


def _open_closed_streams() -> None:
    """Where a shell has closed a standard stream (`2>&-`), the next file opened would become it: open nothing there."""
    import sys

    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, number)  # inheritable, for child processes
            if nothing != number:
                os.close(nothing)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, mode))


def _end_at_once(number: int, _frame: object) -> None:
    try:
        os.write(2, b"Interrupted.\n" if number == signal.SIGINT else b"Terminated.\n")
    finally:  # whether anybody reads that or not
        os._exit(128 + number)


def _ignore_signals() -> None:
    """The exit code is settled, and the interpreter is about to give the signals back to the system."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
