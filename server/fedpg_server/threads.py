"""Work for a thread of its own, awaited from the event loop."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class LoneThread(Executor):
    """One thread, that of a name, which does what it is given, in order.

    Unlike one of a ThreadPoolExecutor, it does not keep a process from ending that is in the middle of a call: what it
    calls is somebody's own code, and may never return.
    """

    def __init__(self, name: str) -> None:
        """Start it."""
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._do_all, name=name, daemon=True)
        self._thread.start()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See `Executor`."""
        future: Future[T] = Future()
        self._work.put(partial(_do, future, partial(fn, *args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let it end when it has done what it was given. `wait` for that; nothing is cancelled."""
        self._work.put(None)
        if wait:
            self._thread.join()

    def _do_all(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work  # and what it was given


def _do(future: Future[T], work: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


async def run_in(thread: Executor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What the function gives, called in `thread` once it has done what it was given before. Raises what it raises."""
    call: Callable[[], Any] = partial(function, *args, **kwargs)
    result: T = await asyncio.get_running_loop().run_in_executor(thread, call)
    return result
