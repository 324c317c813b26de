"""A round's evaluation decides nothing: the next round is announced as soon as the parameters are known. Whoever looks
on sees a round once it has been evaluated, and an algorithm that decides by the evaluation still waits for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from fedpg_common.choices import Choice
from fedpg_common.environments import make_environments
from fedpg_common.errors import EnvironmentFailedError
from fedpg_common.federation import Federation
from fedpg_common.learning.aggregators import RoundPlan
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.policies import make_policy
from fedpg_common.tasks import CARTPOLE
from fedpg_server.learning import learner as learner_module
from fedpg_server.learning.algorithms.base import InnerReport
from fedpg_server.learning.algorithms.gpomdp import GPOMDP
from fedpg_server.learning.learner import Learner, RoundResult
from fedpg_server.learning.records import Evaluation
from fedpg_server.learning.state import EVALUATION, State
from fedpg_server.protocol.coordinator import Phase
from fedpg_server.run import Run
from fedpg_server.storage.store import STORE_NAME, Store
from support.protocol import CALL_TIMEOUT_S, IdleLearner, idle_federation, serving, wait_until

ROUNDS = 3


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Holds every evaluation until it is set."""
    released = threading.Event()

    def evaluate(_self: IdleLearner, theta: Vector, round_number: int) -> Evaluation:
        assert released.wait(CALL_TIMEOUT_S)
        return Evaluation(returns=(float(theta[0]), float(round_number)), lengths=(3, 4))

    monkeypatch.setattr(IdleLearner, "evaluate", evaluate)
    yield released
    released.set()


def stored(folder: Path) -> tuple[int, int | None, int]:
    """The latest state's round, the unevaluated round, and the number of records."""
    with Store.read(folder / STORE_NAME) as store:
        unevaluated = store.unevaluated()
        number = None if unevaluated is None else unevaluated.round_number
        return store.latest_state()[0], number, len(store.records())


def test_the_next_round_is_open_while_a_round_is_evaluated(tmp_path: Path, held: threading.Event) -> None:
    async def play() -> None:
        async with serving(tmp_path, idle_federation(1, ROUNDS)) as door:
            await door.vote(1, await door.open_round(1, 0))
            second = await door.open_round(1, 1)
            assert second.number == 2
            assert stored(tmp_path) == (1, 1, 0), "it is on disk before the next round is open"
            status = await door.status()
            assert (status.round, status.HasField("latest"), status.trajectories) == (2, False, 0)
            assert status.agents[0].rounds_accepted == 1, "that does not need the evaluation"
            await door.vote(1, second)
            while door.run.coordinator.phase is not Phase.IMPROVING:
                await asyncio.sleep(0.005)
            assert stored(tmp_path) == (1, 1, 0), "a round is stored when the one before is complete"
            held.set()
            third = await door.open_round(1, 2)
            await door.vote(1, third)
            records = await door.finish()
            assert [record.round_number for record in records] == [1, 2, 3]
            assert [record.evaluation_returns for record in records] == [(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)]
            assert [record.environment_steps["evaluation"] for record in records] == [7, 7, 7]
        assert stored(tmp_path) == (3, None, 3)

    asyncio.run(play())


def test_the_end_is_announced_when_the_last_round_has_been_evaluated(tmp_path: Path, held: threading.Event) -> None:
    async def play() -> None:
        async with serving(tmp_path, idle_federation(1, 1)) as door:
            await door.vote(1, await door.open_round(1, 0))
            while stored(tmp_path)[0] == 0:
                await asyncio.sleep(0.005)
            assert door.run.coordinator.phase is Phase.IMPROVING
            held.set()
            assert len(await door.finish()) == 1

    asyncio.run(play())


def test_a_server_that_is_stopped_meanwhile_evaluates_when_it_is_resumed(tmp_path: Path, held: threading.Event) -> None:
    async def stop_early() -> None:
        async with serving(tmp_path, idle_federation(1, ROUNDS)) as door:
            await door.vote(1, await door.open_round(1, 0))
            await door.vote(1, await door.open_round(1, 1))
            threading.Thread(target=release_once_it_stops, args=(door.run,)).start()
            await door.stop_rounds()
        assert stored(tmp_path) == (1, 1, 0)

    def release_once_it_stops(run: Run) -> None:
        """By then nobody takes the evaluation, and the stopping server waits for the thread that is at it."""
        wait_until(lambda: run._board._is_closed)
        held.set()

    async def resume() -> None:
        async with serving(tmp_path, idle_federation(1, ROUNDS)) as door:
            third = await door.open_round(1, 2)
            await door.vote(1, third)
            records = await door.finish()
            assert [record.evaluation_returns for record in records] == [(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)]
            assert door.run.coordinator.members[1].rounds_accepted == ROUNDS

    asyncio.run(stop_early())
    asyncio.run(resume())


def test_an_evaluation_that_fails_ends_the_run_though_the_agents_are_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_self: IdleLearner, _theta: Vector, _round_number: int) -> Evaluation:
        raise EnvironmentFailedError("the arm is stuck")

    async def play() -> None:
        async with serving(tmp_path, idle_federation(1, ROUNDS)) as door:
            await door.vote(1, await door.open_round(1, 0))
            assert door.rounds is not None
            with pytest.raises(EnvironmentFailedError, match="the arm is stuck"):
                await asyncio.wait_for(asyncio.shield(door.rounds), CALL_TIMEOUT_S)
        assert stored(tmp_path) == (1, 1, 0), "resumed, it is evaluated again"

    monkeypatch.setattr(IdleLearner, "evaluate", fail)
    asyncio.run(play())


# Algorithms that decide by the evaluation -----------------------------------------------------------------------------


def test_a_round_that_is_evaluated_by_then_is_complete_when_the_next_one_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    improve = IdleLearner.improve

    def improve_and_evaluate(
        self: IdleLearner, state: State, plan: RoundPlan, updates: Mapping[int, Vector]
    ) -> RoundResult:
        return replace(improve(self, state, plan, updates), evaluation=Evaluation((5.0,), (6,)))

    async def play() -> None:
        async with serving(tmp_path, idle_federation(1, 2)) as door:
            await door.vote(1, await door.open_round(1, 0))
            second = await door.open_round(1, 1)
            assert stored(tmp_path) == (1, None, 1)
            await door.vote(1, second)
            records = await door.finish()
            assert [record.evaluation_returns for record in records] == [(5.0,), (5.0,)]

    monkeypatch.setattr(IdleLearner, "improve", improve_and_evaluate)
    asyncio.run(play())


class Cautious(GPOMDP):
    """Notes what it is told of the round before."""

    needs_evaluation: ClassVar[bool] = True
    told: ClassVar[list[tuple[float, ...]]] = []

    def improve(self, state: State, plan: RoundPlan, mu: Vector | None) -> tuple[State, InnerReport]:
        """A step, or none."""
        Cautious.told.append(tuple(state.memory(EVALUATION).get("returns", ())))
        return super().improve(state, plan, mu)


def test_an_algorithm_that_needs_the_evaluation_finds_it_in_the_next_rounds_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = replace(CARTPOLE, evaluation_horizon=20)
    environments = make_environments(task)
    policy = make_policy(task, environments.observation_size, environments.action_space)
    monkeypatch.setattr(learner_module, "build_algorithm", lambda _choice, tools: Cautious(tools))
    Cautious.told.clear()
    learner = Learner(Federation(task, agents=1, algorithm=Choice("gpomdp")), environments, policy)
    state = learner.initial_state()
    gradient = {1: state.theta + 1}
    first = learner.improve(state, learner.plan(1), gradient)
    second = learner.improve(first.state, learner.plan(2), gradient)
    assert first.evaluation == learner.evaluate(first.state.theta, 1)
    assert Cautious.told == [(), first.evaluation.returns]
    assert second.evaluation is not None
    assert tuple(second.state.memory(EVALUATION)["returns"]) == second.evaluation.returns
