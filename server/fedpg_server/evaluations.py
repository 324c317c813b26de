"""Improved rounds on their way to a complete record: evaluated one after the other, beside the agents' next round."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from fedpg_common.learning.parameters import Vector

from fedpg_server.learning.records import Evaluation, RoundRecord

Evaluate = Callable[[Vector, int], Awaitable[Evaluation]]
Finish = Callable[[RoundRecord, Vector], Awaitable[None]]
"""Called for each round in turn; the rounds are stored in the order of the calls, the result is there when they are."""


class Evaluations:
    """A queue of rounds that are in the store without their evaluation. For the event loop alone."""

    def __init__(self, evaluate: Evaluate, finish: Finish) -> None:
        """`evaluate` plays a round's episodes with θ (d,); `finish` records the round, now complete."""
        self._evaluate = evaluate
        self._finish = finish
        self._waiting: asyncio.Queue[tuple[RoundRecord, Vector]] = asyncio.Queue()
        self._unevaluated = 0
        self._all_evaluated = asyncio.Event()
        self._all_evaluated.set()

    def add(self, record: RoundRecord, theta: Vector) -> None:
        """Have a round evaluated, whose policy is θ (d,)."""
        self._waiting.put_nowait((record, theta))
        self._unevaluated += 1
        self._all_evaluated.clear()

    async def work(self) -> None:
        """Evaluate what is added, over and over. Raises what `evaluate` and `finish` raise."""
        while True:
            record, theta = await self._waiting.get()
            evaluation = await self._evaluate(theta, record.round_number)
            recorded = self._finish(record.evaluated(evaluation), theta)
            self._unevaluated -= 1
            if self._unevaluated == 0:
                self._all_evaluated.set()
            await recorded
            self._waiting.task_done()

    async def all_evaluated(self) -> None:
        """Wait until `finish` has been called for all that has been added. For ever, if `work` has failed."""
        await self._all_evaluated.wait()

    async def done(self) -> None:
        """Wait until all that has been added is recorded. For ever, if `work` has failed."""
        await self._waiting.join()
