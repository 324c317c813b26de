"""A rule that needs the server's own gradient gets one for any algorithm: of a batch apart, counted, and every time the
same. Without such a rule nothing is sampled, and nothing else of a round is touched.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedpg_common.choices import Choice
from fedpg_common.environments import EnvironmentBatch
from fedpg_common.environments.rollouts import sample
from fedpg_common.errors import UsageError
from fedpg_common.federation import Federation
from fedpg_common.learning.aggregators import Aggregate, Memory, Mixed, RoundPlan, Votes, build_aggregator
from fedpg_common.learning.aggregators.mean import Mean
from fedpg_common.learning.aggregators.median import Median
from fedpg_common.learning.gradient import advantages, estimate
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.policies import Policy
from fedpg_common.learning.streams import Purpose, Role, episode_seeds, stream
from fedpg_common.learning.trajectories import Trajectories
from fedpg_common.shipped import ALGORITHMS
from fedpg_common.tasks import CARTPOLE
from fedpg_lab.runs.folders import load_run
from fedpg_server.learning.algorithms.base import InnerReport, Reference, Sampled, Tools
from fedpg_server.learning.learner import Learner
from fedpg_server.learning.make_record import make_record
from fedpg_server.learning.state import State, digest_of
from numpy.typing import NDArray
from support.lab import Command, digests, run_federation, small_federation

HERE = __name__
SEED, AGENTS, ROUND = 7, 5, 3
TASK = dataclasses.replace(
    CARTPOLE, hidden=(8,), horizon=30, evaluation_horizon=9, batch_size=10, batch_size_min=8, batch_size_max=12
)


class TrustingMean(Mean):
    """The mean, which looks at the server's gradient and does not use it."""

    needs_reference = True
    seen: list[Vector | None] = []  # noqa: RUF012

    def aggregate(self, votes: Votes, memory: Memory) -> Aggregate:
        TrustingMean.seen.append(votes.server_gradient)
        return super().aggregate(votes, memory)


class TrustingMix:
    """A pre-aggregator that needs it, of a batch of its own size."""

    needs_reference = True
    reference_batch = 6

    def mix(self, votes: Votes) -> Mixed:
        assert votes.server_gradient is not None
        return Mixed(votes.matrix, np.eye(len(votes.agents)))


class Own:
    """An algorithm that estimates a gradient itself, in even rounds."""

    default_aggregator = "mean"

    def __init__(self, tools: Tools) -> None:
        """Nothing to set."""

    def plan(self, round_number: int) -> RoundPlan:
        return RoundPlan(round_number, 10, 0)

    def improve(self, state: State, plan: RoundPlan, mu: Vector | None) -> tuple[State, InnerReport]:
        return state, InnerReport()

    def reference_gradient(self, state: State, plan: RoundPlan) -> Vector | None:
        return np.full_like(state.theta, 3.0) if plan.round_number % 2 == 0 else None


@dataclasses.dataclass
class Bench:
    environments: EnvironmentBatch
    policy: Policy

    def learner(self, aggregator: Choice | None, algorithm: str = "fedpg-br", agents: int = AGENTS) -> Learner:
        federation = Federation(TASK, agents, Choice(algorithm), aggregator, seed=SEED)
        return Learner(federation, self.environments, self.policy)

    def updates(self, agents: int = AGENTS) -> dict[int, Vector]:
        rng = np.random.default_rng(1)
        common = 0.02 * rng.standard_normal(self.policy.spec.size)
        noise = 0.002 * rng.standard_normal((agents, self.policy.spec.size))
        return {agent: (common + noise[agent - 1]).astype(np.float32) for agent in range(1, agents + 1)}

    def expected(
        self, theta: Vector, round_number: int, count: int, algorithm: str = "fedpg-br"
    ) -> tuple[Vector, Trajectories]:
        """The gradient that the server should make, by hand, and its batch."""
        task = Federation(TASK, AGENTS, Choice(algorithm), seed=SEED).task  # an algorithm may have its own baseline
        streams = {
            purpose: stream(SEED, Role.SERVER, purpose, round_number=round_number, step=-1)
            for purpose in (Purpose.ENVIRONMENT, Purpose.ACTION)
        }
        actor, seeds = self.policy.actor(theta), episode_seeds(streams[Purpose.ENVIRONMENT], count)
        batch = sample(self.environments, lambda seen: actor.sample(seen, streams[Purpose.ACTION]), TASK.horizon, seeds)
        return estimate(self.policy, theta, batch, advantages(batch, task.gamma, task.baseline)).gradient, batch


def bits(vector: NDArray[Any] | None) -> bytes | None:
    """What two vectors are compared by; a rule that trusts nobody has none."""
    return None if vector is None else vector.tobytes()


@pytest.fixture
def bench(environments: EnvironmentBatch, policy: Policy) -> Bench:
    TrustingMean.seen.clear()
    return Bench(environments, policy)


TRUSTING = Choice(f"{HERE}:TrustingMean")


@pytest.mark.parametrize("name", ["monna", "fltrust"])
@pytest.mark.parametrize(("settings", "count"), [({}, None), ({"batch": 3}, 3)])
@pytest.mark.parametrize("algorithm", list(ALGORITHMS.shipped))
def test_every_algorithm_gives_it_one(
    bench: Bench, name: str, settings: dict[str, Any], count: int | None, algorithm: str
) -> None:
    learner, updates = bench.learner(Choice(name, settings), algorithm), bench.updates()
    state, plan = learner.initial_state(), learner.plan(ROUND)
    result = learner.improve(state, plan, updates)
    gradient, batch = bench.expected(state.theta, ROUND, plan.batch_size if count is None else count, algorithm)
    assert result.votes.server_gradient is not None
    assert result.votes.server_gradient.tobytes() == gradient.tobytes()
    assert (result.reference.trajectories, result.reference.steps) == (batch.count, batch.steps)
    by_hand = build_aggregator(Choice(name)).aggregate(dataclasses.replace(result.votes, server_gradient=gradient), {})
    assert bits(result.aggregate.vector) == bits(by_hand.vector)
    again = bench.learner(Choice(name, settings), algorithm)
    assert digest_of(again.improve(state, plan, updates).state) == digest_of(result.state)
    assert bits(again.dry_run(state, plan, updates).vector) == bits(result.aggregate.vector)


@pytest.mark.parametrize("algorithm", ["fedpg-br", "fedpg-guard", "svrpg", "gpomdp"])
def test_nothing_else_of_a_round_is_touched(bench: Bench, algorithm: str) -> None:
    plain, trusting = bench.learner(Choice("mean"), algorithm), bench.learner(TRUSTING, algorithm)
    state, plan, updates = plain.initial_state(), plain.plan(ROUND), bench.updates()
    without, with_it = plain.improve(state, plan, updates), trusting.improve(state, plan, updates)
    assert digest_of(without.state) == digest_of(with_it.state)
    assert without.evaluation == with_it.evaluation
    assert without.inner == with_it.inner
    assert (without.votes.server_gradient, without.reference) == (None, Sampled())
    assert TrustingMean.seen[0] is not None


@pytest.mark.parametrize(("agents", "share"), [(5, 6), (1, 1)])
def test_its_cost_is_counted(bench: Bench, agents: int, share: int) -> None:
    federation = Federation(TASK, agents, Choice("gpomdp"), Choice("fltrust", {"batch": 12}), seed=SEED)
    learner = Learner(federation, bench.environments, bench.policy)
    state, plan, updates = learner.initial_state(), learner.plan(ROUND), bench.updates(agents)
    result = learner.improve(state, plan, updates)
    record = make_record(result, plan, federation, dict.fromkeys(updates, b""), 100, seconds=1.0)
    _, batch = bench.expected(state.theta, ROUND, 12)
    assert record.sampled_trajectories["reference"] == 12
    assert record.environment_steps["reference"] == batch.steps
    assert record.trajectories_total == 100 + round((agents * TASK.batch_size + 12) / share)
    plain = bench.learner(Choice("mean"), "gpomdp", agents).improve(state, plan, updates)
    without = make_record(plain, plan, federation, dict.fromkeys(updates, b""), 100, seconds=1.0)
    assert "reference" not in without.sampled_trajectories
    assert "reference" not in without.environment_steps


def test_a_pre_aggregator_may_need_it(bench: Bench) -> None:
    before = {"name": f"{HERE}:TrustingMix"}
    for choice, count in (
        (Choice("median", {"after": [before]}), 6),
        (Choice("monna", {"after": [before]}), 6),
        (Choice("monna", {"after": [before], "batch": 8}), 8),
        (Choice("fltrust", {"after": ["nnm"], "batch": 4}), 4),
    ):
        learner = bench.learner(choice)
        result = learner.improve(learner.initial_state(), learner.plan(ROUND), bench.updates())
        assert result.reference.trajectories == count
        assert result.aggregate.vector is not None


def test_an_algorithms_own_gradient_comes_first(bench: Bench) -> None:
    learner = bench.learner(TRUSTING, f"{HERE}:Own")
    state = learner.initial_state()
    even, odd = (learner.improve(state, learner.plan(number), bench.updates()) for number in (2, 3))
    assert (even.reference.trajectories, odd.reference.trajectories) == (0, 10)
    own, sampled = TrustingMean.seen
    assert own is not None
    assert sampled is not None
    assert set(own.tolist()) == {3.0}
    assert sampled.tobytes() == bench.expected(state.theta, 3, 10)[0].tobytes()


@pytest.mark.parametrize("name", ["monna", "fltrust"])
def test_without_a_finite_gradient_there_is_no_mu(
    bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Tools, "reference", lambda *_: Reference(None, Sampled(10, 99)))
    learner = bench.learner(Choice(name), "gpomdp")
    state = learner.initial_state()
    with caplog.at_level(logging.WARNING):
        result = learner.improve(state, learner.plan(ROUND), bench.updates())
    assert (result.aggregate.vector, result.aggregate.rule, result.reference) == (None, "none", Sampled(10, 99))
    assert digest_of(result.state) == digest_of(state)
    assert "round 3: the server's own gradient is not finite" in caplog.text


def test_an_estimate_that_float32_cannot_hold_is_none(bench: Bench) -> None:
    tools = Tools(TASK, AGENTS, bench.policy, SEED, bench.environments)
    theta = np.full(bench.policy.spec.size, np.finfo(np.float32).max, np.float32)
    assert tools.reference(theta, ROUND, 2).gradient is None
    assert tools.reference(theta, ROUND, 2).sampled.trajectories == 2


@pytest.mark.parametrize("batch", [0, -1, 1.5, "x", 10_001])
@pytest.mark.parametrize("name", ["monna", "fltrust"])
def test_a_wrong_batch_is_one_sentence(name: str, batch: object) -> None:
    with pytest.raises(UsageError, match=f"aggregator {name}: batch must be a whole number from 1 to 10000, not "):
        build_aggregator(Choice(name, {"batch": batch}))


def test_the_others_need_none() -> None:
    for choice in (Choice("fedpg"), Choice("krum", {"after": ["nnm"]}), Choice("history")):
        assert not getattr(build_aggregator(choice), "needs_reference", False)
    assert not hasattr(Median(), "needs_reference")


# End to end -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "algorithm"), [("fltrust", "fedpg-br"), ("monna", "gpomdp")])
def test_a_federation_trains_with_it_the_same_however_it_runs(tmp_path: Path, name: str, algorithm: str) -> None:
    federation = dataclasses.replace(small_federation(), aggregator=Choice(name), algorithm=Choice(algorithm))
    run = run_federation(federation, tmp_path / "apart")
    assert digests(run_federation(federation, tmp_path / "together", agents_per_process=4)) == digests(run)
    assert {record.rule for record in run.records} == {name}
    assert all(record.sampled_trajectories["reference"] == record.batch_size for record in run.records)


def test_a_resumed_run_is_the_run_that_was_never_interrupted(tmp_path: Path, fedpg: Command) -> None:
    arguments = ["train", "--aggregator", "fltrust", "--agents", 3, "--no-tensorboard", "--out", tmp_path]
    assert fedpg(*arguments, "--trajectories", 80, "--name", "whole")[0] == 0
    assert fedpg(*arguments, "--trajectories", 40, "--name", "resumed")[0] == 0
    assert fedpg("train", "--resume", tmp_path / "resumed", "--trajectories", 80, "--no-tensorboard")[0] == 0
    assert digests(load_run(tmp_path / "resumed")) == digests(load_run(tmp_path / "whole"))
