"""What an aggregator or an algorithm of somebody's own does wrong is told in one sentence, and never becomes part of a
run's state.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedpg_common.choices import Choice
from fedpg_common.descriptions import describe
from fedpg_common.environments import EnvironmentBatch, make_environments
from fedpg_common.errors import UsageError
from fedpg_common.federation import Federation
from fedpg_common.learning.aggregators import Aggregate, Memory, RoundPlan, Votes
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.policies import Policy, make_policy
from fedpg_common.learning.recursion import Kind, Recursion
from fedpg_common.modules import check_fingerprints, fingerprint, with_fingerprints
from fedpg_common.tasks import CARTPOLE
from fedpg_server.learning.algorithms.base import InnerReport, Tools
from fedpg_server.learning.learner import Learner
from fedpg_server.learning.state import ADAM_M, State, check_memory
from fedpg_server.observers.base import Observed, build_observers
from numpy.typing import NDArray
from support.protocol import SPEC

TASK = dataclasses.replace(
    CARTPOLE, hidden=(4,), horizon=20, evaluation_horizon=9, batch_size=10, batch_size_min=8, batch_size_max=12
)
HERE = __name__


class Scripted:
    """An aggregator and an algorithm that do what a test says."""

    default_aggregator = "mean"
    answer: Callable[[Votes], object] = lambda votes: Aggregate(votes.matrix[0].copy(), "first")
    improved: Callable[[State], object] = lambda state: (state, InnerReport())
    reference: Vector | None = None

    def __init__(self, tools: Tools | None = None) -> None:
        """As either."""

    def aggregate(self, votes: Votes, memory: Memory) -> Any:
        return Scripted.answer(votes)

    def plan(self, round_number: int) -> RoundPlan:
        return RoundPlan(round_number, 10, 1)

    def improve(self, state: State, plan: RoundPlan, mu: Vector | None) -> Any:
        return Scripted.improved(state)

    def reference_gradient(self, state: State, plan: RoundPlan) -> Vector | None:
        return Scripted.reference


@pytest.fixture(scope="module")
def environments() -> Iterator[EnvironmentBatch]:
    batch = make_environments(TASK)
    yield batch
    batch.close()


@pytest.fixture
def policy(environments: EnvironmentBatch) -> Policy:
    return make_policy(TASK, environments.observation_size, environments.action_space)


@pytest.fixture
def learner(environments: EnvironmentBatch, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> Learner:
    """One whose aggregator and algorithm are scripted."""
    for name in ("answer", "improved", "reference"):
        monkeypatch.setattr(Scripted, name, vars(Scripted)[name])
    part = Choice(f"{HERE}:Scripted")
    return Learner(Federation(TASK, 3, part, part), environments, policy)


def updates(policy: Policy) -> dict[int, Vector]:
    rng = np.random.default_rng(0)
    return {agent: rng.standard_normal(policy.spec.size).astype(np.float32) for agent in (1, 2, 3)}


def raises_an_error(votes: Votes) -> object:
    raise KeyError("lost\nin two lines")


def ends_the_process(votes: Votes) -> object:
    raise SystemExit(3)


def fails_in_numpy(votes: Votes) -> object:
    return np.linalg.inv(np.zeros((2, 3)))


BAD_ANSWERS: list[tuple[Callable[[Votes], object], str]] = [
    (raises_an_error, "failed: KeyError: 'lost\\nin two lines'"),
    (ends_the_process, "failed: it ended the process (SystemExit: 3) (test_parts_of_others_"),
    (fails_in_numpy, "square (test_parts_of_others_cannot_spoil_a_run.py, line "),
    (lambda votes: None, "answered with NoneType, not with an Aggregate"),
    (lambda votes: votes.matrix[0], "answered with ndarray, not with an Aggregate"),
    (lambda votes: Aggregate(votes.matrix[0][:2], "x"), "its vector must be numbers of shape"),
    (lambda votes: Aggregate("abc", "x"), "its vector must be numbers"),  # type: ignore[arg-type]
    (lambda votes: Aggregate(None, ""), "its rule must be a word or two, not ''"),
    (lambda votes: Aggregate(None, "two\nlines"), "its rule must be a word or two"),
    (lambda votes: Aggregate(None, 3), "its rule must be a word or two, not 3"),  # type: ignore[arg-type]
    (lambda votes: Aggregate(None, "x", {9: 1.0}), "a mapping of agents that voted"),
    (lambda votes: Aggregate(None, "x", {1: 1.5}), "a weight must be from 0 to 1, not 1.5"),
    (lambda votes: Aggregate(None, "x", {1: float("nan")}), "a weight must be from 0 to 1, not nan"),
    (lambda votes: Aggregate(None, "x", None, {3: 1.0}), "figures must be a mapping of names"),  # type: ignore[dict-item]
    (lambda votes: Aggregate(None, "x", None, {"a b": "text"}),  # type: ignore[dict-item]
     "its figure 'a b' must be a number, not 'text'"),
    (lambda votes: Aggregate(None, "x", median_agent=7), "its median agent must be one that voted, not 7"),
    (lambda votes: Aggregate(None, "x", memory={"a b": votes.matrix[0]}), "'a b' is not a name"),
    (lambda votes: Aggregate(None, "x", memory={"a": votes.matrix}), "a must be a vector of numbers"),
    (lambda votes: Aggregate(None, "x", memory={"a": np.array(["b"])}), "a must be a vector of numbers"),
    (lambda votes: votes.matrix.__setitem__((0, 0), 1.0), "read-only"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "sentence"), BAD_ANSWERS)
def test_a_bad_answer_of_an_aggregator_ends_the_round_with_one_sentence(
    learner: Learner, policy: Policy, answer: Callable[[Votes], object], sentence: str
) -> None:
    Scripted.answer = answer
    with pytest.raises(UsageError) as caught:
        learner.improve(learner.initial_state(), learner.plan(4), updates(policy))
    assert f"round 4: the aggregator {HERE}:Scripted failed: " in str(caught.value)
    assert sentence.removeprefix("failed: ") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_nearly_right_is_made_right(learner: Learner, policy: Policy) -> None:
    Scripted.answer = lambda votes: Aggregate(
        votes.matrix.astype(np.float64).mean(axis=0), "soft", {np.int64(2): np.float32(0.5)},  # type: ignore[dict-item]
        {"large": float("inf"), "small": np.float32(0.5)},  # type: ignore[dict-item]
        memory={"count": np.array([7], np.int64), "third": np.array([1 / 3])},
    )  # fmt: skip
    result = learner.improve(learner.initial_state(), learner.plan(1), updates(policy))
    assert result.aggregate.vector is not None
    assert result.aggregate.vector.dtype == np.float32
    assert result.aggregate.weights == {1: 0.0, 2: 0.5, 3: 0.0}
    assert result.aggregate.figures == {"small": 0.5}
    assert {name: vector.dtype for name, vector in result.state.memory("aggregator").items()} == {
        "count": np.float32, "third": np.float32,
    }  # fmt: skip


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_a_vector_that_is_not_finite_counts_as_none(
    learner: Learner, policy: Policy, bad: float, caplog: pytest.LogCaptureFixture
) -> None:
    Scripted.answer = lambda votes: Aggregate(np.full(policy.spec.size, bad), "wild")
    with caplog.at_level(logging.WARNING):
        result = learner.improve(learner.initial_state(), learner.plan(1), updates(policy))
    assert (result.aggregate.vector, result.gradient_norm) == (None, 0.0)
    assert "is not finite" in caplog.text


@pytest.mark.parametrize(
    ("improved", "sentence"),
    [
        (lambda state: state, "must answer with a State and an InnerReport"),
        (lambda state: (State({}), InnerReport()), "its state needs theta"),
        (lambda state: (state.with_vectors({ADAM_M: np.full_like(state.theta, np.nan)}), InnerReport()), "not finite"),
        (lambda state: (state.with_vectors({"mine": state.theta}), InnerReport()), "belongs below algorithm/"),
        (lambda state: 1 / 0, r"ZeroDivisionError: division by zero \(test_parts\w+\.py, line \d+\)$"),
        (
            lambda state: sys.exit("enough"),
            r"it ended the process \(SystemExit: enough\) \(test_parts\w+\.py, line \d+\)$",
        ),
    ],
)
def test_a_bad_answer_of_an_algorithm_is_one_sentence(
    learner: Learner, policy: Policy, improved: Callable[[State], object], sentence: str
) -> None:
    Scripted.improved = improved
    with pytest.raises(UsageError, match=f"the algorithm {HERE}:Scripted failed: .*{sentence}"):
        learner.improve(learner.initial_state(), learner.plan(1), updates(policy))


@pytest.mark.parametrize(
    ("planned", "sentence"),
    [
        (lambda number: sys.exit(3), r"it ended the process \(SystemExit: 3\) \(test_parts\w+\.py, line \d+\)$"),
        (lambda number: None, "its plan must be a RoundPlan, not NoneType"),
        (lambda number: RoundPlan(7, 10, 1), "its plan of round 1 says that it is of round 7"),
    ],
)
def test_a_bad_plan_of_an_algorithm_is_one_sentence(
    learner: Learner, monkeypatch: pytest.MonkeyPatch, planned: Callable[[int], object], sentence: str
) -> None:
    monkeypatch.setattr(Scripted, "plan", lambda _self, number: planned(number))
    with pytest.raises(UsageError, match=f"the algorithm {HERE}:Scripted failed: .*{sentence}"):
        learner.plan(1)


class Screening(Scripted):
    """An algorithm whose further methods end the process."""

    def server_scale(self, state: State, plan: RoundPlan) -> float | None:
        return sys.exit(3) if Scripted.reference is None else None

    def screen(self, state: State, votes: Votes) -> Votes:
        raise KeyError("nobody")


def test_whatever_an_algorithm_does_with_the_votes_is_one_sentence(
    environments: EnvironmentBatch, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = Learner(Federation(TASK, 3, Choice(f"{HERE}:Screening"), Choice("mean")), environments, policy)
    for reference, sentence in ((None, "it ended the process"), (updates(policy)[1], "KeyError: 'nobody'")):
        monkeypatch.setattr(Scripted, "reference", reference)
        with pytest.raises(UsageError, match=f"the algorithm {HERE}:Screening failed: {sentence}"):
            learner.improve(learner.initial_state(), learner.plan(1), updates(policy))


def test_an_algorithm_keeps_its_memory_and_cannot_touch_the_aggregators(learner: Learner, policy: Policy) -> None:
    Scripted.answer = lambda votes: Aggregate(None, "x", memory={"centre": votes.matrix[0] * 2})
    Scripted.improved = lambda state: (state.with_vectors({"algorithm/m": state.theta[:3]}), InnerReport())
    state = learner.improve(learner.initial_state(), learner.plan(1), updates(policy)).state
    again = learner.improve(state, learner.plan(2), updates(policy)).state
    assert again.memory("algorithm")["m"].tolist() == state.theta[:3].tolist()
    assert again.memory("aggregator")["centre"].tolist() == (updates(policy)[1] * 2).tolist()
    Scripted.improved = lambda state: (state.with_vectors({"aggregator/centre": state.theta}), InnerReport())
    with pytest.raises(UsageError, match=r"belongs below algorithm/, not in aggregator/centre"):
        learner.improve(state, learner.plan(2), updates(policy))


def test_an_aggregator_finds_the_servers_own_gradient(learner: Learner, policy: Policy) -> None:
    seen: list[Vector | None] = []

    def look(votes: Votes) -> Aggregate:
        seen.append(votes.server_gradient)
        return Aggregate(None, "x")

    Scripted.answer = look
    learner.improve(learner.initial_state(), learner.plan(1), updates(policy))
    Scripted.reference = updates(policy)[2]
    learner.improve(learner.initial_state(), learner.plan(1), updates(policy))
    none, own = seen
    assert none is None
    assert own is not None
    assert own.tolist() == updates(policy)[2].tolist()


class Recalling(Scripted):
    """An algorithm that hands something out, and completes votes, as a test says."""

    handed_out: Callable[[State], object] = lambda state: None
    completed: Callable[[NDArray[np.float32]], object] = lambda matrix: matrix

    def recursion(self, state: State, plan: RoundPlan) -> Any:
        return Recalling.handed_out(state)

    def complete(self, state: State, plan: RoundPlan, agents: Sequence[int], matrix: NDArray[np.float32]) -> Any:
        return Recalling.completed(matrix)


@pytest.fixture
def recalling(environments: EnvironmentBatch, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> Learner:
    for owner, name in ((Recalling, "handed_out"), (Recalling, "completed"), (Scripted, "improved")):
        monkeypatch.setattr(owner, name, vars(owner)[name])
    return Learner(Federation(TASK, 3, Choice(f"{HERE}:Recalling"), Choice("mean")), environments, policy)


@pytest.mark.parametrize(
    ("handed_out", "sentence"),
    [
        (lambda state: 1 / 0, "ZeroDivisionError"),
        (lambda state: state.theta, "must be a Recursion or None"),
        (lambda state: Recursion(Kind.MOMENTUM, state.theta), "a weight above 0"),
        (lambda state: Recursion(Kind.MOMENTUM, state.theta[:2], weight=0.5), "finite float32 of shape"),
        (lambda state: Recursion(Kind.DIFFERENCE, state.theta, state.theta * np.float32("nan")), "finite float32"),
        (lambda state: Recursion(Kind.DIFFERENCE, state.theta.astype(float), state.theta), "finite float32"),
    ],
)
def test_what_an_algorithm_hands_out_is_checked(
    recalling: Learner, handed_out: Callable[[State], object], sentence: str
) -> None:
    state = recalling.initial_state()
    assert recalling.recursion(state, recalling.plan(1)) is None
    Recalling.handed_out = handed_out
    with pytest.raises(UsageError, match=f"the algorithm {HERE}:Recalling failed: .*{sentence}"):
        recalling.recursion(state, recalling.plan(1))


@pytest.mark.parametrize(
    ("completed", "sentence"),
    [
        (lambda matrix: 1 / 0, "ZeroDivisionError"),
        (lambda matrix: matrix[:1], "finite float32 of shape"),
        (lambda matrix: matrix.astype(float), "finite float32 of shape"),
        (lambda matrix: matrix * np.float32("inf"), "finite float32 of shape"),
    ],
)
def test_what_an_algorithm_completes_is_checked(
    recalling: Learner, policy: Policy, completed: Callable[[NDArray[np.float32]], object], sentence: str
) -> None:
    Recalling.completed = completed
    with pytest.raises(UsageError, match=f"the algorithm {HERE}:Recalling failed: .*{sentence}"):
        recalling.improve(recalling.initial_state(), recalling.plan(1), updates(policy))


def test_a_memory_is_copied() -> None:
    vector = np.zeros(3, np.float32)
    kept = check_memory({"a": vector}, "it")
    vector[0] = 5
    assert kept["a"].tolist() == [0, 0, 0]
    assert not kept["a"].flags.writeable


class Unmade(Scripted):
    """A part whose constructor fails."""

    def __init__(self, *_told: object) -> None:
        raise KeyError("missing")


def test_a_constructor_that_raises_anything_is_one_sentence(
    tmp_path: Path, environments: EnvironmentBatch, policy: Policy
) -> None:
    part, sound = Choice(f"{HERE}:Unmade"), Choice(f"{HERE}:Scripted")
    sentence = r"Unmade failed in __init__: KeyError: 'missing' \(test_parts\w+\.py, line \d+\)"
    for algorithm, aggregator in ((part, sound), (sound, part)):
        with pytest.raises(UsageError, match=sentence):
            Learner(Federation(TASK, 3, algorithm, aggregator), environments, policy)
    with pytest.raises(UsageError, match=sentence):
        build_observers([part], Observed(tmp_path, describe("CartPole-v1"), SPEC, []))


# Modules --------------------------------------------------------------------------------------------------------------


def test_fingerprints_tell_versions_of_a_module_and_of_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "lone_part.py").write_text("x = 1\n")
    (tmp_path / "whole_part" / "deep").mkdir(parents=True)
    for file in ("__init__.py", "a.py", "deep/b.py"):
        (tmp_path / "whole_part" / file).write_text("")
    federation = describe("CartPole-v1", aggregator={"name": "lone_part:A", "after": ["whole_part.a:B"]},
                          byzantine={"1": "elsewhere:C"})  # fmt: skip
    assert federation.own_modules == ("elsewhere", "lone_part", "whole_part.a")
    begun = with_fingerprints(federation)
    assert set(begun.modules) == {"lone_part", "whole_part.a"}, "an attack's module lies with the agents"
    assert begun == federation
    check_fingerprints(begun)
    (tmp_path / "whole_part" / "deep" / "b.py").write_text("y = 2\n")
    with pytest.raises(UsageError, match=r"the module whole_part\.a has changed since the run began"):
        check_fingerprints(begun)
    assert fingerprint("whole_part") == fingerprint("whole_part.deep.b")
    assert "whole_part" not in sys.modules, "it is not imported for that"
