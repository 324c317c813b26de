"""Child processes from a fork server: what runs inside them, and how they start and end.

The fork server imports everything once, so that ten agents start in seconds; a child shares nothing else with this
process, least of all a random generator. A child has a session of its own, so that Ctrl-C reaches it only through its
parent, and ends when its parent does, however that dies.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from fedpg_client.cli import run_until_signalled
from fedpg_client.fates import Fate
from fedpg_client.process import AgentOptions, AgentProcess
from fedpg_common.bootstrap import log_to_stderr, look_for_garbage_rarely, take_short_turns, use_one_thread
from fedpg_common.cli.ending import code_of
from fedpg_common.cli.hung import hung_calls_are_cut_off
from fedpg_common.errors import ExitCode, FedPGError, StorageError
from fedpg_server.server import ServerOptions, serve

from fedpg_lab.local.fork_server import KEYBOARD_SIGNALS

ORPHAN_PATIENCE_S = 60.0
"""How long a child may take to end after its parent has: a server finishes the improvement that it is in."""
YOUNG_OBJECTS = 10_000
"""After how many new objects a child looks for garbage, instead of Python's 700: most of its objects are soon freed."""
_starting = threading.Lock()
"""The main module is one for all threads."""


def kill_children() -> None:
    """End every child at once: what the server has answered is stored, so there is nothing to lose but the round."""
    for child in multiprocessing.active_children():
        child.kill()


def spawn(
    context: ForkServerContext, name: str, log_path: Path, main: Callable[..., ExitCode], *args: Any
) -> ForkServerProcess:
    """Start `main(*args)` in a child whose output goes to `log_path`. Raises StorageError."""
    try:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        log_path.open("a").close()
    except OSError as error:
        raise StorageError(f"cannot write {log_path}: {error.strerror}") from error
    process = context.Process(target=_child, name=name, args=(name, str(log_path), main, args))
    with _without_main_module(), _postponed_signals() as postponed:
        process.start()
    try:
        for heed in postponed:
            heed()
    except BaseException:
        process.kill()  # nobody knows of it yet
        process.join()
        raise
    return process


@contextmanager
def _postponed_signals() -> Iterator[list[Callable[[], object]]]:
    """Let Ctrl-C and SIGTERM wait, and give what is to be called for each that came meanwhile.

    A child that is cut off before it is told what to run ends with a traceback of its own on the terminal.
    """
    came: list[Callable[[], object]] = []
    if threading.current_thread() is not threading.main_thread():
        yield came  # signals are handled elsewhere
        return
    handlers = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    ours = {number: handler for number, handler in handlers.items() if callable(handler)}

    def note(number: int, frame: FrameType | None) -> None:
        came.append(partial(ours[number], number, frame))

    for number in ours:
        signal.signal(number, note)
    try:
        yield came
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)


@contextmanager
def _without_main_module() -> Iterator[None]:
    """Keep a child that starts meanwhile from importing the program that starts it.

    Multiprocessing would have it run the caller's script again, for classes that may be defined there. Ours never are,
    and a script that trains without `if __name__ == "__main__"` would train again in each child.
    """
    with _starting:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


def end(process: ForkServerProcess, patience_s: float) -> None:
    """Ask a child to end, and after `patience_s` make it."""
    if process.is_alive():
        process.terminate()
        process.join(patience_s)
    if process.is_alive():
        process.kill()
    process.join()


def _child(name: str, log_path: str, main: Callable[..., ExitCode], args: Sequence[Any]) -> None:
    os.setsid()
    gc.freeze()  # what is imported stays: looking through it again and again would copy all its pages, too
    gc.set_threshold(YOUNG_OBJECTS)
    # They were blocked in the fork server. A Ctrl-C that came before this session was made is the parent's to heed.
    for number in KEYBOARD_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, KEYBOARD_SIGNALS)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    try:
        output = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    except OSError:  # the start was interrupted, and its folder is gone already
        raise SystemExit(ExitCode.STORAGE) from None
    os.dup2(output, sys.stdout.fileno())
    os.dup2(output, sys.stderr.fileno())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    log_to_stderr(name, "info")
    logging.getLogger("fedpg_common.environments").setLevel(logging.DEBUG)  # with tracebacks: this is a file
    use_one_thread()
    raise SystemExit(main(*args))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_PATIENCE_S)  # it is in a call of an environment that does not return
    os.kill(os.getpid(), signal.SIGKILL)


def server_main(options: ServerOptions, starting: Connection) -> ExitCode:
    """A server. Sends ("bound", address) or ("failed", sentence) through `starting`, and ("ended", "") in the end.

    Between them, ("waits", what) for what others' code keeps it waiting for, and ("waits", "") when that is over.
    """
    is_bound = False
    signals: list[int] = []
    lock = threading.Lock()

    def tell(kind: str, text: str) -> None:
        with lock:
            starting.send((kind, text))

    def on_wait(what: str) -> None:
        with suppress(OSError):  # whoever started this process is gone, and so will this process be
            tell("waits", what)

    def on_bound(address: str) -> None:
        nonlocal is_bound
        is_bound = True
        tell("bound", address)

    take_short_turns()
    look_for_garbage_rarely()
    try:
        with hung_calls_are_cut_off(signals, lambda: code_of(signals)):
            code = asyncio.run(serve(options, on_bound, on_wait, signals))
        if code == ExitCode.OK:  # a process that something else ends with status 0 does not come here
            tell("ended", "")
        return code
    except FedPGError as error:
        with suppress(OSError):  # a disk that is full holds no more of the log either
            print(f"fedpg-server: {error}", file=sys.stderr, flush=True)
        if not is_bound:
            tell("failed", str(error))
        return error.exit_code


def agents_main(agents: Sequence[AgentOptions], telling: Connection) -> ExitCode:
    """One agent or several. Sends the Fate of each through `telling`, as soon as it is known."""
    lock = threading.Lock()

    def tell(fate: Fate) -> None:
        with lock, suppress(OSError):  # whoever started this process is gone, and so will this process be
            telling.send(fate)

    return run_until_signalled(AgentProcess(agents, on_fate=tell))
