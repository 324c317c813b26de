"""FedPG-Guard's parts can be left out one by one, show what they think, and survive a restart to the bit."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from fedpg_common.choices import Choice
from fedpg_common.errors import UsageError
from fedpg_common.federation import Federation
from fedpg_server.learning.make_record import make_record
from fedpg_server.learning.state import ADAM_M, ADAM_V, THETA, State, digest_of, from_bytes, to_bytes
from fedpg_server.observers.scalar_help import describe_scalar
from fedpg_server.observers.telemetry import scalars
from support.guarded import AGENTS, GUARDED_TASK, PARTS, Bench

TASK = GUARDED_TASK


def test_without_its_parts_it_is_fedpg_br_to_the_bit(bench: Bench) -> None:
    parts: dict[str, Any] = dict.fromkeys(PARTS, False)
    bare = bench.learner(aggregator="fedpg", **parts)
    published = bench.learner("fedpg-br")
    one, other = bare.initial_state(), published.initial_state()
    for number in range(1, 5):
        assert bare.plan(number) == published.plan(number)
        one = bare.improve(one, bare.plan(number), bench.updates(number)).state
        other = published.improve(other, published.plan(number), bench.updates(number)).state
        for name in (THETA, ADAM_M, ADAM_V):
            assert one.vectors[name].tobytes() == other.vectors[name].tobytes()


@pytest.mark.parametrize("aggregator", ["history", "median", "fedpg"])
@pytest.mark.parametrize("left_out", [None, *PARTS])
def test_each_part_can_be_left_out_and_works_with_any_aggregator(
    bench: Bench, left_out: str | None, aggregator: str
) -> None:
    settings: dict[str, Any] = {part: part != left_out for part in PARTS}
    learner = bench.learner(aggregator=aggregator, **settings)
    state = learner.initial_state()
    for number in range(1, 4):
        updates = bench.updates(number) if number != 2 else {}
        result = learner.improve(state, learner.plan(number), updates)
        state = result.state
        assert all(np.isfinite(vector).all() for vector in state.vectors.values())
    assert ("anchor-deviation" in result.inner.figures) == (left_out != "anchor")


def test_a_restart_in_any_round_changes_no_bit(bench: Bench) -> None:
    lasting = bench.learner()
    state = lasting.initial_state()
    for number in range(1, 7):
        updates = {agent: row for agent, row in bench.updates(number).items() if agent != number}
        restored = State({name: from_bytes(to_bytes(row)) for name, row in state.vectors.items()}, state.steps)
        stayed = lasting.improve(state, lasting.plan(number), updates)
        restarted = bench.learner().improve(restored, lasting.plan(number), updates)
        assert digest_of(stayed.state) == digest_of(restarted.state)
        assert stayed.inner.figures == restarted.inner.figures
        state = stayed.state


@pytest.mark.parametrize("size", [0.0, 1e10, 1e30, 3e38])
def test_no_vote_makes_the_state_infinite(bench: Bench, size: float) -> None:
    learner = bench.learner()
    state = learner.initial_state()
    for number in range(1, 5):
        updates = {**bench.updates(number)}
        for agent in range(1, 1 + (AGENTS if number == 2 else 3)):
            updates[agent] = np.full_like(updates[agent], size)
        state = learner.improve(state, learner.plan(number), updates).state
        assert all(np.isfinite(vector).all() for vector in state.vectors.values())


def test_what_it_thinks_is_in_the_records_and_the_telemetry(bench: Bench) -> None:
    learner = bench.learner()
    plan = learner.plan(1)
    result = learner.improve(learner.initial_state(), plan, bench.updates(1))
    federation = Federation(TASK, AGENTS, Choice("fedpg-guard"), seed=7)
    unevaluated = make_record(result, plan, federation, {}, trajectories_before=0, seconds=1.0)
    record = unevaluated.evaluated(learner.evaluate(result.state.theta, 1))
    wanted = {"scale", "gate", "anchor-cosine", "anchor-deviation", "alarm", "armed", "rejected", "rolled-back"}
    assert wanted <= set(record.figures)
    assert {f"filter/{name}" for name in wanted} <= {name for name, _ in scalars(record)}
    assert record.weights is not None
    assert set(record.weights) == set(range(1, AGENTS + 1))
    assert record.sampled_trajectories["evaluation"] == 20, "ten of the evaluation and ten of the guard"
    shown = dict(scalars(dataclasses.replace(record, weights={1: 0.25, 2: 1.0})))
    assert (shown["weights/agent-1"], shown["weights/agent-2"]) == (0.25, 1.0)
    assert "Weight of agent 1 " in describe_scalar("weights/agent-1")
    chosen = dataclasses.replace(record, weights={1: 0.0, 2: 1.0})
    assert not any(name.startswith("weights/") for name, _ in scalars(chosen)), "it is who was accepted"


def test_the_baseline_is_the_algorithms_own_unless_the_task_names_one() -> None:
    """FedPG-Guard's own is "time"; the others' is the published estimate."""
    plain = dataclasses.replace(TASK, baseline="")
    assert Federation(plain, AGENTS, Choice("fedpg-guard")).task.baseline == "time"
    assert Federation(TASK, AGENTS, Choice("fedpg-guard")).task.baseline == "none"
    assert Federation(plain, AGENTS, Choice("fedpg-br")).task == plain


@pytest.mark.parametrize("part", PARTS)
def test_a_setting_is_true_or_false(bench: Bench, part: str) -> None:
    settings: dict[str, Any] = {part: 3}
    with pytest.raises(UsageError, match=f"algorithm fedpg-guard: {part} must be true or false, not 3"):
        bench.learner(**settings)
