"""However many requests are on their way, one timer watches over them, and each has the whole time to arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest
from fedpg_server.serving.call_limits import SharedLimit
from support.simulated_clock import VirtualLoop

LIMIT_S = 20.0


def play(story: Awaitable[None]) -> None:
    """In virtual time."""

    async def main() -> None:
        await story

    loop = VirtualLoop(lambda *_: None)
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


async def end_of(limit: SharedLimit, begins_s: float, takes_s: float) -> tuple[str, float]:
    """How work that begins and takes so long ends, and when."""
    await asyncio.sleep(begins_s)
    try:
        await limit(asyncio.sleep(takes_s))
    except TimeoutError:
        return "too late", asyncio.get_running_loop().time()
    return "done", asyncio.get_running_loop().time()


def test_each_has_the_whole_time_whenever_it_began() -> None:
    async def story() -> None:
        limit = SharedLimit(LIMIT_S)
        began_s = asyncio.get_running_loop().time()
        plans = [(0.0, 1.0), (0.0, LIMIT_S + 1), (7.0, LIMIT_S - 1), (7.0, LIMIT_S + 1), (50.0, 90.0), (80.0, 5.0)]
        ends = await asyncio.gather(*(end_of(limit, *plan) for plan in plans))
        for (begins_s, takes_s), (how, ended_s) in zip(plans, ends, strict=True):
            assert how == ("done" if takes_s < LIMIT_S else "too late")
            assert ended_s - began_s == pytest.approx(begins_s + min(takes_s, LIMIT_S), abs=0.01)

    play(story())


def test_many_that_are_under_way_have_one_timer() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        planned: list[float] = []
        call_at = loop.call_at

        def counted(when: float, *more: object, **named: object) -> asyncio.TimerHandle:
            planned.append(when)
            return call_at(when, *more, **named)  # type: ignore[arg-type]

        limit, arrived = SharedLimit(LIMIT_S), asyncio.Event()
        loop.call_at = counted  # type: ignore[method-assign]
        waiting = [asyncio.create_task(limit(arrived.wait())) for _ in range(1000)]
        await asyncio.sleep(0)
        assert len(planned) == 1
        arrived.set()
        assert all(await asyncio.gather(*waiting))

    play(story())


def test_whoever_is_cancelled_is_not_told_that_it_was_late() -> None:
    async def story() -> None:
        waiting = asyncio.create_task(SharedLimit(LIMIT_S)(asyncio.Event().wait()))
        await asyncio.sleep(1.0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    play(story())


def test_all_can_be_ended_at_once_and_nobody_begins_after_that() -> None:
    async def story() -> None:
        limit = SharedLimit(LIMIT_S)
        waiting = [asyncio.create_task(limit(asyncio.Event().wait())) for _ in range(3)]
        await asyncio.sleep(1.0)
        limit.end_all()
        ended = await asyncio.gather(*waiting, limit(asyncio.Event().wait()), return_exceptions=True)
        assert [type(end) for end in ended] == [TimeoutError] * 4
        assert asyncio.get_running_loop().time() < LIMIT_S

    play(story())
