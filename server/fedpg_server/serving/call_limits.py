"""Bounds on calls that are under way: places for each caller, and a time in which a request has to arrive."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable
from types import TracebackType
from typing import TypeVar

Result = TypeVar("Result")


class Places:
    """A few places for each caller. A caller that has none left waits, and nobody else does."""

    def __init__(self, each: int) -> None:
        """Nobody has one."""
        self._each = each
        self._taken: dict[str, int] = {}
        self._waiting: defaultdict[str, deque[asyncio.Future[None]]] = defaultdict(deque)

    def take_at_once(self, caller: str) -> bool:
        """Have a place, which is to be given back, if one is free. Returns whether one was."""
        taken = self._taken.get(caller, 0)
        if taken == self._each:
            return False
        self._taken[caller] = taken + 1
        return True

    async def take(self, caller: str) -> None:
        """Have a place, once there is one. It is to be given back."""
        if self.take_at_once(caller):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[caller].append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was given a place at the same moment
                self.give_back(caller)
            raise

    def give_back(self, caller: str) -> None:
        """Leave a place to who has waited for one the longest."""
        if self._waiting and self._pass_on(caller):
            return
        taken = self._taken[caller] - 1
        if taken:
            self._taken[caller] = taken
        else:
            del self._taken[caller]

    def _pass_on(self, caller: str) -> bool:
        """Give a place to who has waited for it. Returns whether anybody has."""
        waiting = self._waiting.get(caller)
        while waiting:
            turn = waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return True
        self._waiting.pop(caller, None)
        return False


class _Turn:
    """One task's time, as `asyncio.timeout` has it, but without a timer of its own."""

    __slots__ = ("_cancelling", "_is_over", "_limit", "_task", "due_s")

    def __init__(self, limit: SharedLimit, due_s: float) -> None:
        """The running task's, among those of the limit."""
        task = asyncio.current_task()
        assert task is not None
        self._limit, self._task, self.due_s = limit, task, due_s
        self._cancelling = task.cancelling()
        self._is_over = False

    def end(self) -> None:
        """There is no time left: stop the task where it is."""
        if not self._is_over:
            self._is_over = True
            self._task.cancel()

    def __enter__(self) -> None:
        """The time runs since the limit began it."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Raise TimeoutError if the task was stopped for this and nothing else."""
        self._limit.forget(self)
        if self._is_over and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error


class SharedLimit:
    """The same time for each of many to be done: one timer for all of them, that of whoever began first.

    A timer for each would cost a call as much as all else that the gate does for it.
    """

    def __init__(self, limit_s: float) -> None:
        """Nobody has begun."""
        self._limit_s = limit_s
        self._turns: dict[_Turn, None] = {}
        """Of those who are not done, by who began first."""
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False

    async def __call__(self, work: Awaitable[Result]) -> Result:
        """What comes of the work. Raises TimeoutError if it takes longer than it may."""
        loop = asyncio.get_running_loop()
        turn = _Turn(self, loop.time() + self._limit_s)
        self._turns[turn] = None
        if self._timer is None:
            self._timer = loop.call_at(turn.due_s, self._look)
        if self._is_over:
            loop.call_soon(turn.end)
        with turn:
            return await work

    def forget(self, turn: _Turn) -> None:
        """A turn is done."""
        self._turns.pop(turn, None)

    def _look(self) -> None:
        """End what is due, and look again when the next one is."""
        loop = asyncio.get_running_loop()
        self._timer = None
        for turn in list(self._turns):
            if turn.due_s > loop.time():
                self._timer = loop.call_at(turn.due_s, self._look)
                break
            del self._turns[turn]
            turn.end()

    def end_all(self) -> None:
        """Nobody has any time left, now or later."""
        self._is_over = True
        for turn in self._turns:
            turn.end()
