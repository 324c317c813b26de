"""Whoever waits long for an environment says for which method, since when, and where it is; and when it is over."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from fedpg_client.fates import Ended, Waits
from fedpg_client.process import AgentProcess
from fedpg_common import waits
from fedpg_common.descriptions import describe
from fedpg_common.environments import make_environments
from fedpg_common.environments.generic import GymnasiumBatch
from fedpg_common.environments.guard import Guard
from fedpg_common.errors import ExitCode
from fedpg_common.waits import TELL_AFTER_S, TELL_EVERY_S, Waiting
from fedpg_lab.local.roll import Roll

HERE = Path(__file__).name
PATIENCE_S = 30.0


class Gated(gymnasium.Env[Any, Any]):
    """Returns from a method once its gate is opened."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, shut: str, reached: threading.Event, gate: threading.Event) -> None:
        self._shut, self._reached, self._gate = shut, reached, gate

    def _pass(self, method: str) -> None:
        if method == self._shut:
            self._reached.set()
            assert self._gate.wait(PATIENCE_S)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._pass("reset")
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._pass("step")
        return np.zeros(2, np.float32), 1.0, True, False, {}

    def close(self) -> None:
        self._pass("close")


@contextmanager
def playing(shut: str) -> Iterator[tuple[threading.Thread, Callable[[], None]]]:
    """A thread that is in that method of an environment, and what lets it go on to its end."""
    reached, gate = threading.Event(), threading.Event()

    def play() -> None:
        batch = GymnasiumBatch(lambda: Gated(shut, reached, gate), Guard("gated", "Gated-v0"))
        batch.reset(np.zeros(1, np.int64))
        batch.step(np.zeros(1, np.int64))
        batch.close()

    thread = threading.Thread(target=play)
    thread.start()

    def let_go() -> None:
        gate.set()
        thread.join(PATIENCE_S)

    try:
        assert reached.wait(PATIENCE_S)
        yield thread, let_go
    finally:
        let_go()


class Clock:
    """A clock that a test sets."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize("method", ["reset", "step", "close"])
def test_it_is_told_after_a_while_and_every_minute_and_when_it_is_over(method: str) -> None:
    clock = Clock()
    watch = waits.Waits(clock)
    with playing(method) as (thread, let_go):

        def look(now_s: float) -> tuple[list[str], list[int]]:
            clock.now_s = now_s
            news, over = watch.look()
            return [str(one) for one in news if one.thread == thread.ident], over

        assert look(0.0) == ([], [])
        assert look(TELL_AFTER_S - 0.1) == ([], [])
        (told,), _ = look(TELL_AFTER_S)
        assert told.startswith(f"waiting for 10 s for {method} of task gated: environment Gated-v0 ({HERE}, line ")
        assert look(TELL_AFTER_S + 1) == ([], [])
        (again,), _ = look(TELL_AFTER_S + TELL_EVERY_S)
        assert again.startswith("waiting for 70 s ")
        let_go()
        assert look(TELL_AFTER_S + TELL_EVERY_S + 1) == ([], [thread.ident])
        assert look(TELL_AFTER_S + TELL_EVERY_S + 2) == ([], [])


def test_many_short_calls_are_not_a_long_one() -> None:
    """The frame of one call is never taken for that of another, though both are at the same line."""
    batch = GymnasiumBatch(lambda: Gated("", threading.Event(), threading.Event()), Guard("gated", "Gated-v0"))
    seen = []
    here = threading.get_ident()
    clock = Clock()
    watch = waits.Waits(clock, lambda: {here: sys._current_frames()[here]})
    gate = Gated.step

    def look_from_inside(self: Gated, action: Any) -> Any:
        seen.append(watch.look())
        clock.now_s += 2 * TELL_AFTER_S
        return gate(self, action)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Gated, "step", look_from_inside)
        fresh = GymnasiumBatch(lambda: Gated("", threading.Event(), threading.Event()), Guard("gated", "Gated-v0"))
        for _ in range(3):
            fresh.reset(np.zeros(1, np.int64))
            fresh.step(np.zeros(1, np.int64))
    batch.close()
    assert seen == [([], [])] * 3


def test_environments_that_return_are_not_spoken_of() -> None:
    watch = waits.Waits(Clock())
    environments = make_environments(describe("CartPole-v1").task)
    environments.close()
    assert watch.look() == ([], [])


def test_a_process_of_agents_tells_whose_environment_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[Any] = []
    process = AgentProcess([], on_fate=told.append)
    process._threads[7] = 3
    with caplog.at_level("INFO"):
        process._tell_of_wait(7, Waiting(7, "step of task t: environment E-v0 (e.py, line 5)", 12.0))
        process._tell_of_wait(7, None)
        process._tell_of_wait(99, None)
    assert told == [Waits(3, "waiting for 12 s for step of task t: environment E-v0 (e.py, line 5)"), Waits(3, "")]
    assert caplog.messages == [
        "agent 3: waiting for 12 s for step of task t: environment E-v0 (e.py, line 5)",
        "agent 3: that has returned",
    ]


def test_telling_goes_on_beside_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(waits, "TELL_AFTER_S", 0.05)
    told: list[tuple[int, bool]] = []
    is_waiting, is_over = threading.Event(), threading.Event()

    def tell(thread: int, waiting: Waiting | None) -> None:
        told.append((thread, waiting is not None))
        (is_over if waiting is None else is_waiting).set()

    with waits.telling_of_waits(tell), playing("step") as (thread, let_go):
        assert is_waiting.wait(PATIENCE_S)
        let_go()
        assert is_over.wait(PATIENCE_S)
    assert told == [(thread.ident, True), (thread.ident, False)]


def test_the_screen_says_who_waits_and_who_is_gone() -> None:
    federation = describe("CartPole-v1", agents=5, round_timeout_s=90.0)
    roll, log = Roll(federation), Path("agent.log")
    for agent in (2, 4):
        roll.note(Waits(agent, "waiting for 10 s for step of E-v0"), log)
    assert roll.notes() == ["agents 2, 4: waiting for 10 s for step of E-v0"]
    roll.note(Waits(4, ""), log)
    roll.note(Ended(1, ExitCode.ENVIRONMENT, "cold"), log)
    assert roll.notes() == [
        "agent 1 is gone: each round waits 90 s for the missing vote; see agent.log",
        "agent 2: waiting for 10 s for step of E-v0",
    ]
    for agent in (2, 3):
        roll.note(Ended(agent, ExitCode.ENVIRONMENT, "cold"), log)
    assert roll.notes() == [
        f"agents 1, 2, 3 are gone: too few are left for the quorum of {federation.quorum}; see agent.log"
    ], "no round waits for anything, and the dead wait for nothing"
