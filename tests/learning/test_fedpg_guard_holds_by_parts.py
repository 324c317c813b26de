"""FedPG-Guard: its parts follow their equations, can be left out one by one, and survive a restart to the bit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from fedpg_common.choices import Choice
from fedpg_common.environments import EnvironmentBatch
from fedpg_common.errors import UsageError
from fedpg_common.federation import Federation
from fedpg_common.learning.aggregators import RoundPlan, Votes
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.policies import Policy
from fedpg_common.tasks import CARTPOLE
from fedpg_server.learning.algorithms.base import Tools
from fedpg_server.learning.algorithms.defence.anchor import Anchor, Measured
from fedpg_server.learning.algorithms.defence.ascent import is_confirmed, learn_ascent
from fedpg_server.learning.algorithms.defence.gate import learn_signal, rate_factor
from fedpg_server.learning.algorithms.defence.memory import from_count, to_count, to_vector
from fedpg_server.learning.algorithms.defence.returns import Returns
from fedpg_server.learning.algorithms.defence.server_scale import known_scale, learn_scale
from fedpg_server.learning.algorithms.fedpg_guard import FedPGGuard
from fedpg_server.learning.learner import Learner, RoundResult
from fedpg_server.learning.make_record import make_record
from fedpg_server.learning.state import ADAM_M, ADAM_V, ALGORITHM, THETA, State, digest_of, from_bytes, to_bytes
from fedpg_server.observers.scalar_help import describe_scalar
from fedpg_server.observers.telemetry import scalars
from hypothesis import given
from hypothesis import strategies as st

TASK = dataclasses.replace(
    CARTPOLE,
    hidden=(8,),
    horizon=30,
    evaluation_horizon=60,
    batch_size=10,
    batch_size_min=8,
    batch_size_max=12,
    baseline="none",
)
AGENTS = 6
PARTS = ("scale", "anchor", "gate", "guard", "bound", "reset")
ROUND = RoundPlan(round_number=4, batch_size=10, inner_steps=3)


@dataclasses.dataclass
class Bench:
    """Makes learners and votes."""

    environments: EnvironmentBatch
    policy: Policy

    def learner(self, algorithm: str = "fedpg-guard", aggregator: str | None = None, **settings: Any) -> Learner:
        """A learner of the small task."""
        chosen = Choice(aggregator) if aggregator else None
        return Learner(
            Federation(TASK, AGENTS, Choice(algorithm, settings), chosen, seed=7), self.environments, self.policy
        )

    def updates(self, number: int, agents: int = AGENTS) -> dict[int, Vector]:
        """Gradients about a common one, as honest agents send."""
        rng = np.random.default_rng(number)
        size = self.policy.spec.size
        common = 0.02 * rng.standard_normal(size)
        return {
            agent: (common + 0.002 * rng.standard_normal(size)).astype(np.float32) for agent in range(1, agents + 1)
        }


@pytest.fixture
def bench(environments: EnvironmentBatch, policy: Policy) -> Bench:
    """A bench."""
    return Bench(environments, policy)


def with_memory(state: State, **memory: Any) -> State:
    """The state with these vectors in the algorithm's memory."""
    named = {name.replace("__", "/"): to_vector(values) for name, values in memory.items()}
    return state.with_memory(ALGORITHM, {**state.memory(ALGORITHM), **named})


# The whole ------------------------------------------------------------------------------------------------------------


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


# Scale, bound and gate ------------------------------------------------------------------------------------------------


def test_the_scale_is_that_of_the_scatter_of_the_servers_batches() -> None:
    rng = np.random.default_rng(0)
    memory: Mapping[str, Vector] = {}
    for number in range(200):
        batches = 0.06 / math.sqrt(4) * rng.standard_normal((4, 300)).astype(np.float32) / math.sqrt(300)
        memory = learn_scale(memory, list(batches))
        known = known_scale(memory, mini_batch=4, batch=16)
        if number < 2:
            assert known is None, "three degrees of freedom a round, of which six are needed"
        elif number > 20:
            assert known == pytest.approx(0.06 / math.sqrt(16), rel=0.1)
    assert learn_scale(memory, [])["scale"].tolist() == pytest.approx((0.9 * memory["scale"]).tolist())


def test_mu_is_at_most_two_and_a_half_scales_long(bench: Bench) -> None:
    """With a captured majority. Where the server's scale is not known there is no bound."""
    start = bench.learner().initial_state()
    known = with_memory(start, scale=[8 * 0.01**2, 8.0])
    longest = 2.5 * 0.01 * math.sqrt(TASK.mini_batch_size / ROUND.batch_size)
    far = {agent: row + np.float32(0.5) for agent, row in bench.updates(1).items()}
    for state, setting, is_bounded in ((known, True, 1.0), (start, True, None), (known, False, None)):
        result = bench.learner(bound=setting).improve(state, ROUND, far)
        assert result.inner.figures.get("bounded") == is_bounded
    bounded = bench.learner().improve(known, dataclasses.replace(ROUND, inner_steps=1), far)
    # The only inner step is made at θ_0, where v = μ.
    np.testing.assert_allclose(bounded.inner.gradient_norms[0], longest, rtol=1e-4)


@given(st.lists(st.tuples(st.floats(0, 1e70), st.floats(0, 1e70)), min_size=1, max_size=8))
def test_the_gate_is_between_shut_and_open(rounds: list[tuple[float, float]]) -> None:
    memory: Mapping[str, Vector] = {}
    for square, noise in rounds:
        kappa, memory = learn_signal(memory, square, noise)
        assert 0 <= kappa <= 1
        assert 0 <= rate_factor(kappa) <= 1
        assert np.isfinite(memory["gate"]).all()


def test_the_gate_knows_signal_from_noise() -> None:
    assert learn_signal({}, 1.0, 0.25)[0] == 0.75
    assert learn_signal({}, 1.0, 2.0)[0] == 0.0
    assert learn_signal({"gate": to_vector([10.0, 5.0])}, 2.0, 1.0)[0] == pytest.approx(0.5)
    assert [rate_factor(kappa) for kappa in (0.0, 0.1, 0.5)] == pytest.approx([0.0, 0.3, 1.0])


def test_the_gate_lowers_the_learning_rate_only_where_returns_are_steady(bench: Bench) -> None:
    state = bench.learner().initial_state()
    steady = with_memory(state, gate=[1.0, 1.0], **marks(greedy=[50.0] * 12))
    restless = with_memory(state, gate=[1.0, 1.0], **marks(greedy=[50.0, 10.0] * 6))
    weak = {agent: np.float32(1e-3) * row for agent, row in bench.updates(1).items()}
    assert bench.learner(gate=True).improve(steady, ROUND, weak).learning_rate < 0.1 * TASK.learning_rate
    assert bench.learner(gate=True).improve(restless, ROUND, weak).learning_rate == TASK.learning_rate


def test_on_a_plateau_the_learning_rate_remains_the_tasks(bench: Bench) -> None:
    """Steady returns and votes that are nearly all noise: what is learnt until then need not be all there is."""
    plateau = with_memory(bench.learner().initial_state(), gate=[1.0, 1.0], **marks(greedy=[50.0] * 12))
    weak = {agent: np.float32(1e-3) * row for agent, row in bench.updates(1).items()}
    result = bench.learner().improve(plateau, ROUND, weak)
    assert result.inner.figures["gate"] < 0.1
    assert result.learning_rate == TASK.learning_rate


# The guard ------------------------------------------------------------------------------------------------------------


def marks(greedy: list[float], best: float = 50.0, armed: bool = True, rejections: int = 0) -> dict[str, list[float]]:
    """A memory of returns."""
    return {
        "returns__greedy": greedy, "returns__sampled": greedy,
        "returns__marks": [9.0, 9.0, best, best, float(armed), float(rejections)],
    }  # fmt: skip


def judged(bench: Bench, level: float, rejections: int = 0, **settings: Any) -> tuple[State, RoundResult]:
    """A round at whose end a policy of about 9 is measured against returns of `level`, and the state before it."""
    learner = bench.learner(**settings)
    state = with_memory(learner.initial_state(), **marks([level] * 12, best=level, rejections=rejections))
    best = {
        "returns/best/theta": 0.5 * state.theta,
        "returns/best/adam/m": np.ones_like(state.theta),
        "returns/best/adam/v": np.ones_like(state.theta),
        "returns/best-steps": to_vector(from_count(77)),
    }
    state = state.with_memory(ALGORITHM, {**state.memory(ALGORITHM), **best})
    return state, learner.improve(state, ROUND, bench.updates(4))


def test_a_much_worse_policy_is_rejected(bench: Bench) -> None:
    state, result = judged(bench, level=55.0)
    assert (result.inner.figures["rejected"], result.inner.figures["rolled-back"]) == (1.0, 0.0)
    assert result.state.steps == state.steps
    for name in (THETA, ADAM_M, ADAM_V):
        assert result.state.vectors[name].tobytes() == state.vectors[name].tobytes()
    assert result.aggregate.memory, "what the round taught about the agents stays"
    _, let_pass = judged(bench, level=55.0, guard=False)
    assert let_pass.state.theta.tobytes() != state.theta.tobytes()


def test_a_usual_policy_passes(bench: Bench) -> None:
    state, result = judged(bench, level=9.5)
    assert result.inner.figures["rejected"] == 0.0
    assert result.state.theta.tobytes() != state.theta.tobytes()


def test_after_three_rejections_the_server_goes_on_alone_from_the_best_state(bench: Bench) -> None:
    state, result = judged(bench, level=55.0, rejections=2)
    assert (result.inner.figures["rejected"], result.inner.figures["rolled-back"]) == (1.0, 1.0)
    # Its four steps do not help so much, either: the best state itself is left.
    assert result.state.theta.tobytes() == (0.5 * state.theta).tobytes()
    assert result.state.steps == 77
    assert result.inner.judged.trajectories == 20
    assert Returns.from_memory(result.state.memory(ALGORITHM)).marks.rejections == 0


def test_a_policy_is_not_held_to_greedy_returns_while_the_server_confirms_the_ascent(bench: Bench) -> None:
    learner = bench.learner()
    state = with_memory(learner.initial_state(), **marks([55.0] * 12, best=55.0))
    plan = dataclasses.replace(ROUND, inner_steps=8)
    own = with_memory(state, ascent=[40.0, 40.0, 5.0, 2.8])
    against = with_memory(state, ascent=[-40.0, 40.0, 5.0, 2.8])
    updates = bench.updates(4)
    confirmed = learner.improve(own, plan, updates)
    assert confirmed.inner.figures["ascent"] > 1.64
    assert confirmed.inner.figures["rejected"] == 0.0
    assert learner.improve(against, plan, updates).inner.figures["rejected"] == 1.0


def accepted(values: list[float], sampled: list[float] | None = None) -> Returns:
    """Returns after these rounds."""
    returns = Returns()
    for place, value in enumerate(values):
        state = State({name: np.full(3, place, np.float32) for name in (THETA, ADAM_M, ADAM_V)}, place)
        returns = returns.accept(value, value if sampled is None else sampled[place], state)
    return returns


def test_the_guard_is_armed_when_returns_first_become_steady() -> None:
    climbing = accepted([10.0 * place for place in range(15)])
    assert not climbing.marks.is_armed
    assert climbing.approves(np.zeros(10)), "while it learns, nothing is rejected"
    assert not accepted([10.0] * 20).marks.is_armed, "what does not learn is steady, too"
    steady = accepted([9.0, *[490.0] * 10])
    assert steady.marks.is_armed
    assert not steady.approves(np.full(10, 400.0))
    assert steady.approves(np.full(10, 470.0)), "within 5 % of the progress"


def test_a_slow_fall_is_taken_back_to_the_best_state() -> None:
    steady = accepted([9.0, *[490.0] * 12])
    assert not steady.is_sagging
    sagging = accepted([9.0, *[490.0] * 12, *[460.0] * 3])
    assert sagging.is_sagging
    assert sagging.best is not None
    assert sagging.best.steps == 12, "the median of ten is still 490, but these three did not earn it"
    again = sagging.taken_back(3)
    assert again.greedy[-2:] == (490.0, 490.0)
    assert not again.is_sagging


def test_a_run_that_lost_half_of_its_progress_is_taken_back() -> None:
    down = [490.0 - 20 * place for place in range(25)]
    assert accepted([9.0, *[490.0] * 12, *down]).is_fallen
    assert not accepted([9.0, *[490.0] * 12, *down], sampled=[9.0, *[300.0] * 37]).is_fallen


def test_where_the_ascent_is_confirmed_the_best_state_follows_it() -> None:
    steady = accepted([9.0, *[490.0] * 12])
    climbing = dataclasses.replace(steady, is_climbing=True)
    state = State({name: np.zeros(3, np.float32) for name in (THETA, ADAM_M, ADAM_V)}, 99)
    assert not steady.approves(np.full(10, 300.0))
    assert climbing.approves(np.full(10, 300.0))
    for _ in range(8):
        climbing = climbing.accept(430.0, 430.0, state)
    assert not climbing.is_sagging
    assert climbing.marks.best == climbing.level == 430.0
    assert climbing.best is state
    # What comes after is measured by that.
    later = dataclasses.replace(climbing, is_climbing=False)
    assert later.approves(np.full(10, 430.0))
    assert not later.approves(np.full(10, 300.0))


def confirmations(slopes: list[float]) -> list[bool]:
    """Of each round, whether it and those before confirm the ascent."""
    memory: dict[str, Vector] = {}
    answers = []
    for slope in slopes:
        errors, memory = learn_ascent(memory, slope)
        answers.append(is_confirmed(errors))
    return answers


def test_an_ascent_is_confirmed_by_several_rounds() -> None:
    assert confirmations([0.5] * 5) == [False, False, True, True, True]
    assert not any(confirmations([-0.5] * 50))
    noise = np.random.default_rng(1).standard_normal(20_000)
    assert 0.02 < np.mean(confirmations(noise.tolist())) < 0.08, "one in twenty, of noise"
    assert np.mean(confirmations((noise + 0.8).tolist())) > 0.6
    turned = confirmations([0.5] * 20 + [-0.5] * 6)
    assert not any(turned[21:]), "two rounds against the gradient are enough to take the confirmation away"
    faded = confirmations([0.5] * 20 + [0.0] * 10)
    assert faded[20:26] == [True] * 5 + [False]
    assert not any(confirmations([0.0] * 5))


@given(st.lists(st.floats(-1e4, 1e4, width=32), max_size=40))
def test_what_is_known_of_returns_survives_as_vectors(values: list[float]) -> None:
    returns = accepted(values)
    again = Returns.from_memory(returns.to_memory()) if values else returns
    assert (again.greedy, again.sampled) == (returns.greedy, returns.sampled)
    assert (again.best is None) == (returns.best is None)
    assert again.to_memory().keys() == returns.to_memory().keys()
    for name, vector in again.to_memory().items():
        np.testing.assert_array_equal(vector, returns.to_memory()[name])


@given(st.integers(0, 2**44 - 1))
def test_counts_survive_as_float32(count: int) -> None:
    assert to_count(*to_vector(from_count(count)).tolist()) == count


# The anchor -----------------------------------------------------------------------------------------------------------

SIZE = 200


def anchored(rounds: int, captured: int, absent: int = 0) -> tuple[Anchor, dict[str, Vector], list[float]]:
    """An anchor after rounds in which so many of ten agents stand two scales away, and μ's deviation in each round."""
    rng = np.random.default_rng(0)
    anchor, memory, course = Anchor(10, SIZE, [1, 2]), dict[str, Vector](), list[float]()
    for number in range(1, rounds + 1):
        rows = rng.standard_normal((10, SIZE)) / math.sqrt(SIZE)
        rows[:captured, 0] += 2.0
        own = rng.standard_normal(SIZE) / math.sqrt(SIZE)
        agents = tuple(agent for agent in range(1, 11) if agent != absent or number <= 3)
        matrix = rows[[agent - 1 for agent in agents]].astype(np.float32)
        votes = Votes(agents, matrix, 10, RoundPlan(number, 16, 3), TASK)
        now = Measured(votes, matrix.mean(axis=0), 1 / len(agents), own, own_trajectories=16, scale=1.0)
        memory = {**memory, **anchor.learn(memory, now)}
        course.append(float(anchor.deviations(memory)[-1]))
    return anchor, memory, course


def test_an_honest_federation_raises_no_alarm() -> None:
    anchor, memory, course = anchored(120, captured=0)
    assert max(course) < 2.5
    assert max(anchor.deviations(memory)) < 3.5
    assert not anchor.is_alarm(memory)
    assert anchor.trusted(memory, tuple(range(1, 11))) == tuple(range(1, 11))


def test_a_captured_majority_raises_one_and_is_told_apart() -> None:
    anchor, memory, _ = anchored(120, captured=7)
    assert anchor.is_alarm(memory)
    assert anchor.trusted(memory, tuple(range(1, 11))) == (8, 9, 10)
    assert anchor.trusted(memory, (1, 2, 3, 9, 10)) == (), "two are too few"


def test_the_anchor_keeps_the_history_of_an_absent_agent() -> None:
    anchor, early, _ = anchored(3, captured=2, absent=1)
    _, late, _ = anchored(60, captured=2, absent=1)
    assert anchor.deviations(late)[0] == anchor.deviations(early)[0]


def test_during_an_alarm_only_agents_that_agree_with_the_server_are_heard(bench: Bench) -> None:
    learner = bench.learner()
    memory = {"anchor__alarm": [1.0, 1.0], "anchor__deviation": [9.0, 9.0, 1.0, 1.0, 1.0, 4.0, 8.0]}
    state = with_memory(learner.initial_state(), **memory)
    state = state.with_vectors({ADAM_V: np.ones_like(state.theta)}, steps=500)
    result = learner.improve(state, ROUND, bench.updates(4))
    assert result.aggregate.weights is not None
    assert set(result.aggregate.weights) == {3, 4, 5}
    assert result.votes.agents == tuple(range(1, AGENTS + 1)), "the records have all votes"
    assert result.state.steps < 100, "Adam starts afresh at the onset"
    assert result.state.vectors[ADAM_V].max() < 0.1
    too_few = with_memory(state, anchor__deviation=[9.0, 9.0, 9.0, 9.0, 1.0, 4.0, 8.0])
    assert learner.improve(too_few, ROUND, bench.updates(4)).aggregate.vector is None
    kept = bench.learner(reset=False).improve(state, ROUND, bench.updates(4))
    assert kept.state.steps >= 500
    everyone = bench.learner(anchor=False).improve(state, ROUND, bench.updates(4))
    assert set(everyone.aggregate.weights or {}) == set(range(1, AGENTS + 1))


def test_without_votes_to_look_at_it_improves_on_mu_alone(bench: Bench, policy: Policy) -> None:
    tools = Tools(TASK, AGENTS, policy, 7, bench.environments)
    mu = bench.updates(1)[1]
    state, report = FedPGGuard(tools).improve(bench.learner().initial_state(), ROUND, mu)
    assert report.steps_taken > 0
    assert "anchor-deviation" not in report.figures
    assert state.memory(ALGORITHM)
