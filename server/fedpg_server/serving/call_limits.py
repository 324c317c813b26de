"""Bounds on calls that are under way: places for each caller, and a time in which a request has to arrive."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable
from typing import TypeVar

Result = TypeVar("Result")


class Places:
    """A few places for each caller. A caller that has none left waits, and nobody else does."""

    def __init__(self, each: int) -> None:
        """Nobody has one."""
        self._each = each
        self._taken: Counter[str] = Counter()
        self._waiting: defaultdict[str, deque[asyncio.Future[None]]] = defaultdict(deque)

    async def take(self, caller: str) -> None:
        """Have a place, once there is one. It is to be given back."""
        if self._taken[caller] < self._each:
            self._taken[caller] += 1
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
        waiting = self._waiting.get(caller)
        while waiting:
            turn = waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._waiting.pop(caller, None)
        self._taken[caller] -= 1
        if not self._taken[caller]:
            del self._taken[caller]


class SharedLimit:
    """The same time for each of many to be done: one timer for all of them, that of whoever began first.

    A timer for each would cost a call as much as all else that the gate does for it.
    """

    def __init__(self, limit_s: float) -> None:
        """Nobody has begun."""
        self._limit_s = limit_s
        self._due_s: dict[asyncio.Timeout, float] = {}
        """Of those who are not done, by who began first."""
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False

    async def __call__(self, work: Awaitable[Result]) -> Result:
        """What comes of the work. Raises TimeoutError if it takes longer than it may."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(0 if self._is_over else None) as limit:
            self._due_s[limit] = due_s = loop.time() + self._limit_s
            if self._timer is None:
                self._timer = loop.call_at(due_s, self._look)
            try:
                return await work
            finally:
                self._due_s.pop(limit, None)

    def _look(self) -> None:
        """End what is due, and look again when the next one is."""
        loop = asyncio.get_running_loop()
        self._timer = None
        for limit, due_s in list(self._due_s.items()):
            if due_s > loop.time():
                self._timer = loop.call_at(due_s, self._look)
                break
            del self._due_s[limit]
            limit.reschedule(loop.time())

    def end_all(self) -> None:
        """Nobody has any time left, now or later."""
        self._is_over = True
        now_s = asyncio.get_running_loop().time()
        for limit in self._due_s:
            if not limit.expired():
                limit.reschedule(now_s)
