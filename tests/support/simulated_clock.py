"""One process with a clock of its own: an event loop whose time jumps, and plain code that blocks on it.

Nothing here waits. When nothing is left to do at one moment, the clock moves on to the next one for which something is
planned. The server's code runs on the loop as it always does; the agents' blocking code runs in greenlets, which hand
control back to the loop where a thread would sleep.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextvars import Context
from functools import partial
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

RunInExecutor = Callable[[Executor | None, Callable[[], Any], "asyncio.Future[Any]"], None]


class StuckError(Exception):
    """Nothing is planned any more, and the simulation is not over."""


class _JumpingSelector(selectors.BaseSelector):
    """Looks at no file: it lets the time pass that the loop would have waited."""

    def __init__(self, advance: Callable[[float], None]) -> None:
        self._advance = advance

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise StuckError("nothing is planned any more")
        if timeout > 0:
            self._advance(timeout)
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, 0, None)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return {}


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual seconds. What would go to a thread is handed to `in_executor`."""

    def __init__(self, in_executor: RunInExecutor) -> None:
        """Time begins at 0."""
        self._now_s = 0.0
        self._in_executor = in_executor
        self.owner: Callable[[], Process | None] = lambda: None
        """Whose code runs at the moment; None is the world outside, which nobody pauses."""
        super().__init__(_JumpingSelector(self._advance))

    def _advance(self, seconds: float) -> None:
        self._now_s += seconds

    def time(self) -> float:
        """Virtual seconds."""
        return self._now_s

    def call_at(  # type: ignore[override]  # its argument types need Python 3.11's notation
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """A timer of the process that sets it: while that stands still, it does not fire, but as soon as it goes on."""
        owner = self.owner()
        if owner is None or callback == owner.do:
            return super().call_at(when, callback, *args, context=context)

        def fire() -> None:
            if not handle.cancelled():
                callback(*args)

        handle = super().call_at(when, owner.do, fire, context=context)
        return handle

    def plan(self, delay_s: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """Call it then, whoever stands still: what is on its way in the network arrives."""
        return super().call_at(self._now_s + delay_s, callback, *args)

    def run_in_executor(  # type: ignore[override]  # what it returns can be awaited all the same
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """A future of the function's result, as `in_executor` has it."""
        future: asyncio.Future[Any] = self.create_future()
        self._in_executor(executor, partial(func, *args), future)
        return future


class Process:
    """Something that can be paused and killed. What reaches it goes through `do`."""

    def __init__(self, name: str, loop: VirtualLoop) -> None:
        """A running process."""
        self.name = name
        self.loop = loop
        self.is_alive = True
        self.is_paused = False
        self._held: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    def do(self, callback: Callable[..., object], *args: object) -> None:
        """Call it: now, when it is no longer paused, or never if it is dead."""
        if not self.is_alive:
            return
        if self.is_paused:
            self._held.append((callback, args))
        else:
            callback(*args)

    def pause(self) -> None:
        """Let it stand still."""
        self.is_paused = True

    def unpause(self) -> None:
        """Let it go on with what has reached it meanwhile."""
        self.is_paused = False
        held, self._held = self._held, []
        for callback, args in held:
            self.loop.call_soon(self.do, callback, *args)

    def kill(self) -> None:
        """Nothing reaches it any more."""
        self.is_alive = False
        self._held.clear()


class BlockingProcess(Process):
    """A process of plain, blocking code."""

    def __init__(self, name: str, loop: VirtualLoop, main: Callable[[], None]) -> None:
        """Starts with `main` at once, in the loop."""
        super().__init__(name, loop)
        self._hub = getcurrent()
        self._greenlet = greenlet(main)
        loop.call_soon(self.do, self._greenlet.switch)

    def wait(self, plan: Callable[[Callable[[Any], None]], None]) -> Any:
        """Block until somebody calls what `plan` is given; gives what it was called with. Later calls are ignored."""
        is_awake = False

        def wake(value: Any) -> None:
            nonlocal is_awake
            if not is_awake:
                is_awake = True
                self.do(self._greenlet.switch, value)

        plan(wake)
        return self._hub.switch()

    def sleep(self, seconds: float) -> None:
        """Block that long."""
        self.wait(partial(self._wake_after, seconds))

    def _wake_after(self, seconds: float, wake: Callable[[Any], None]) -> None:
        self.loop.call_later(seconds, wake, None)

    def kill(self) -> None:
        """End it where it stands."""
        super().kill()
        if not self._greenlet.dead:
            self._greenlet.throw(GreenletExit)
