"""The simulator is not a formality: a system that breaks a promise is found out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import support.simulated_federation as simulated_federation
from fedpg_common.federation import Federation
from fedpg_common.learning.aggregators import RoundPlan
from fedpg_common.learning.parameters import Vector
from fedpg_server import run as server_run
from fedpg_server.learning.learner import RoundResult
from fedpg_server.learning.records import Evaluation
from fedpg_server.learning.state import State
from fedpg_server.protocol.journal import Journal
from fedpg_server.storage.rows import Row, VoteRow
from fedpg_server.storage.store import Store
from support.simulated_faults import KillPoint, Schedule, Trouble
from support.simulated_federation import simulate
from support.simulated_work import SimulatedLearner
from support.simulation_history import check


def failures(schedule: Schedule, folder: Path, **options: object) -> str:
    """What was found, in one text."""
    folder.mkdir(exist_ok=True)
    return "\n".join(check(simulate(schedule, folder, **options)))


def test_a_store_that_loses_a_vote(tmp_path: Path) -> None:
    class Forgetful(Store):
        def commit(self, rows: Sequence[Row]) -> None:
            super().commit([row for row in rows if not (isinstance(row, VoteRow) and row.agent == 2)])

    found = failures(Schedule(seed=1), tmp_path, open_store=Forgetful.open)
    assert "the confirmed vote of agent 2 in round 1 is forgotten" in found


def test_a_server_that_answers_before_it_has_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer_first(self: Journal) -> None:
        while True:
            await self._is_due.wait()
            self._is_due.clear()
            self._timer = None
            effects, self._effects = self._effects, []
            rows = list(self._rows(effects))
            for effect in effects:
                self._after_commit(effect)
            await asyncio.sleep(0.05)
            await self._commit(rows)

    monkeypatch.setattr(Journal, "write", answer_first)
    kills = [KillPoint(point, is_before=True) for point in range(1, 20)]
    found = [failures(Schedule(seed=1, kill_points=(kill,)), tmp_path / str(kill.point)) for kill in kills]
    assert any("is forgotten" in text for text in found)


def test_a_round_that_closes_below_the_quorum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Federation, "quorum", property(lambda _self: 1))
    cut_off = Trouble("partition", ("agent-1", "agent-2"), at_s=0.0, for_s=40.0)
    simulation = simulate(Schedule(seed=1, round_timeout_s=3.0, troubles=(cut_off,)), tmp_path)
    monkeypatch.undo()
    assert any("closed below the quorum, with 1 votes" in text for text in check(simulation))


def test_a_restarted_server_that_has_forgotten_who_voted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ours had, once the run had ended: an agent that asked again about its vote was told that it came too late."""
    monkeypatch.setattr(Store, "vote_digests", lambda _self, _round_number: {})
    tried = ((seed, point) for seed in range(40) for point in range(8, 12))  # about where the last record is written

    def try_one(seed: int, point: int) -> str:
        """Everybody's first answer is lost, and the server is killed before it is asked again."""
        heard: set[str] = set()

        def lose_the_first_answer(caller: str, path: str) -> bool:
            is_lost = path.endswith("SubmitUpdate") and caller not in heard
            heard.update([caller] if is_lost else [])
            return is_lost

        kill = KillPoint(point, is_before=False, for_s=0.0)
        schedule = Schedule(seed, agents=4, rounds=1, kill_points=(kill,))
        return failures(schedule, tmp_path / f"{seed}-{point}", drop_response=lose_the_first_answer)

    found = (try_one(*one) for one in tried)
    assert any("which is honest, was told: run ended" in text for text in found)


def test_a_learner_whose_step_follows_from_more_than_the_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Drifting(SimulatedLearner):
        steps = 0

        def improve(self, state: State, plan: RoundPlan, updates: Mapping[int, Vector]) -> RoundResult:
            Drifting.steps += 1
            doubled = {agent: vector * Drifting.steps for agent, vector in updates.items()}
            return super().improve(state, plan, doubled)

    monkeypatch.setattr(simulated_federation, "SimulatedLearner", Drifting)
    assert "are not those of its votes" in failures(Schedule(seed=1), tmp_path)


def test_an_evaluation_that_follows_from_more_than_the_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Drifting(SimulatedLearner):
        count = 0

        def evaluate(self, theta: Vector, round_number: int) -> Evaluation:
            Drifting.count += 1
            return super().evaluate(theta * np.float32(Drifting.count), round_number)

    monkeypatch.setattr(simulated_federation, "SimulatedLearner", Drifting)
    assert "the evaluation of round 3 is not that of its parameters" in failures(Schedule(seed=1), tmp_path)


def test_a_restarted_server_that_does_not_know_what_it_has_not_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "unevaluated", lambda _self: None)
    kills = [KillPoint(point, is_before=False) for point in range(1, 16)]
    found = [failures(Schedule(seed=1, kill_points=(kill,)), tmp_path / str(kill.point)) for kill in kills]
    assert any("the rounds are [2" in text for text in found)


def test_a_run_that_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_self: server_run.Run) -> None:
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(server_run.Run, "_all_rounds", never)
    assert "has not ended" in failures(Schedule(seed=1), tmp_path)
