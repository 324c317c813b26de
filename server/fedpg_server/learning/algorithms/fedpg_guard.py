"""FedPG-Guard: FedPG-BR's inner loop under a defence that looks back over rounds. docs/defence.md has the equations."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from fedpg_common.checks import show
from fedpg_common.learning.aggregators import Aggregate, RoundPlan, Votes
from fedpg_common.learning.aggregators.scale import scale_of
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.streams import Purpose
from fedpg_common.learning.trajectories import Trajectories
from numpy.typing import NDArray

from fedpg_server.learning.algorithms.adam import fresh
from fedpg_server.learning.algorithms.base import InnerReport, Tools
from fedpg_server.learning.algorithms.defence.anchor import Anchor, Measured
from fedpg_server.learning.algorithms.defence.ascent import is_confirmed, learn_ascent
from fedpg_server.learning.algorithms.defence.gate import learn_signal, rate_factor
from fedpg_server.learning.algorithms.defence.returns import CORE, LATE, WINDOW, Returns
from fedpg_server.learning.algorithms.defence.server_scale import known_scale, learn_scale
from fedpg_server.learning.algorithms.fedpg_br import FedPGBR
from fedpg_server.learning.algorithms.inner_loop import norm, variance_reduced_steps
from fedpg_server.learning.state import ALGORITHM, State

MU_MAX = 2.5
"""|μ| is at most so many scales; an honest one has at most 1.4 on the published tasks."""
JUDGING_EPISODES = 10
JUDGING, RESCUE_JUDGING, SKETCH_STEP, RESCUE_STEPS = 1, 2, 0, 10**6
"""Numbers of random streams, apart from those of the evaluation and the inner steps."""
REJECTIONS_MAX = 3
"""After so many in a row the server goes on alone, from the best state that it knows."""
ALONE_STEPS_MIN = 4


@dataclass
class _Seen:
    """What the server's own batches of a round have shown."""

    gradients: list[Vector] = field(default_factory=list)
    """∇L_ω(θ_0), (d,), of the batches where it is finite."""
    returns: list[float] = field(default_factory=list)
    """Mean sampled return of each batch."""

    def __call__(self, batch: Trajectories, gradient: Vector) -> None:
        self.returns.append(float(batch.returns().mean()))
        if np.isfinite(gradient).all():
            self.gradients.append(gradient)


class FedPGGuard(FedPGBR):
    """FedPG-BR with a trusted scale, an anchor, bounds, a guard on its result; on request a gate on the rate.

    Every part can be left out, and works with any aggregator. The evaluation of the round decides nothing: the guard
    plays episodes of its own.
    """

    default_aggregator: ClassVar[str] = "history"

    def __init__(
        self,
        tools: Tools,
        scale: bool = True,
        anchor: bool = True,
        gate: bool = False,
        guard: bool = True,
        bound: bool = True,
        reset: bool = True,
    ) -> None:
        """`scale`: aggregators are told the server's scale. `anchor`: during an alarm only agents that agree with the
        server's own gradients are heard. `gate`: while returns are steady, noise has a smaller learning rate; off,
        since a plateau is steady, too, and is not left then. `guard`: worse policies are rejected.
        `bound`: |μ| ≤ 2.5 scales. `reset`: Adam starts afresh at an alarm.
        """
        super().__init__(tools)
        parts = {"scale": scale, "anchor": anchor, "gate": gate, "guard": guard, "bound": bound, "reset": reset}
        for name, value in parts.items():
            if not isinstance(value, bool):
                raise ValueError(f"{name} must be true or false, not {show(value)}")
        self._parts = parts
        words = tools.stream(Purpose.INNER_STEPS, 0, SKETCH_STEP).integers(0, 2**32, 4).tolist()
        self._anchor = Anchor(tools.agents, tools.policy.spec.size, words)

    def server_scale(self, state: State, plan: RoundPlan) -> float | None:
        """By the scatter of the inner batches of the rounds before; None in the first two or three."""
        return self._known_scale(state, plan) if self._parts["scale"] else None

    def screen(self, state: State, votes: Votes) -> Votes:
        """All votes; during an alarm those that agree with the server, if there are three."""
        memory = state.memory(ALGORITHM)
        if not (self._parts["anchor"] and self._anchor.is_alarm(memory)):
            return votes
        trusted = self._anchor.trusted(memory, votes.agents)
        matrix = votes.matrix[[votes.agents.index(agent) for agent in trusted]]
        matrix.flags.writeable = False
        return replace(votes, agents=trusted, matrix=matrix)

    def improve(self, state: State, plan: RoundPlan, mu: Vector | None) -> tuple[State, InnerReport]:
        """A round in which nothing is known of the votes but their μ."""
        votes = Votes((), np.zeros((0, state.theta.size), np.float32), self._tools.agents, plan, self._tools.task)
        return self.improve_seeing(state, plan, votes, Aggregate(mu, rule="given"))

    def improve_seeing(
        self, state: State, plan: RoundPlan, votes: Votes, aggregate: Aggregate
    ) -> tuple[State, InnerReport]:
        """N_t variance-reduced steps, their length as the gate has it, and the guard's verdict on them."""
        memory = dict(state.memory(ALGORITHM))
        state = self._after_an_alarm(state, memory)
        known = self._known_scale(state, plan)
        scale = (known if self._parts["scale"] else None) or (scale_of(votes) if votes.agents else 0.0)
        mu, figures = self._bounded(aggregate.vector, known)
        spread = _spread(aggregate, votes)
        kappa = 1.0
        if aggregate.vector is not None:
            kappa, learned = learn_signal(memory, norm(aggregate.vector) ** 2, scale**2 * spread)
            memory.update(learned)
            figures["gate"] = kappa

        returns = Returns.from_memory(memory)
        rate = self._tools.task.learning_rate
        if self._parts["gate"] and returns.is_steady:
            rate *= rate_factor(kappa)
        seen = _Seen()
        improved, report = variance_reduced_steps(self._tools, state, plan, mu, learning_rate=rate, watch=seen)

        memory.update(learn_scale(memory, seen.gradients))
        own = np.mean(np.array(seen.gradients, np.float64), axis=0) if seen.gradients else np.zeros(state.theta.size)
        count = len(seen.gradients) * self._tools.task.mini_batch_size
        if seen.gradients and votes.agents and self._parts["anchor"]:
            memory.update(self._anchor.learn(memory, Measured(votes, aggregate.vector, spread, own, count, scale)))
            figures.update(self._figures_of_the_anchor(memory, aggregate.vector, own))
        if self._parts["guard"] or self._parts["gate"]:
            noise = scale * math.sqrt(plan.batch_size / count) if count else 0.0
            figures["ascent"], learned = learn_ascent(memory, _slope(aggregate.vector, own, noise))
            memory.update(learned)
            returns = replace(returns, is_climbing=is_confirmed(figures["ascent"]))
            improved, returns = self._judge(state, improved, plan, returns, seen, report, figures)
            memory.update(returns.to_memory())
        report.figures.update(figures)
        return improved.with_memory(ALGORITHM, memory), report

    def _known_scale(self, state: State, plan: RoundPlan) -> float | None:
        return known_scale(state.memory(ALGORITHM), self._tools.task.mini_batch_size, plan.batch_size)

    def _after_an_alarm(self, state: State, memory: dict[str, Vector]) -> State:
        """At an alarm's onset Adam's moments are those of a captured federation: β₂ would keep them for thousands of
        steps. The memory is told that the onset has been dealt with.
        """
        if not (self._parts["anchor"] and self._parts["reset"] and self._anchor.is_onset(memory)):
            return state
        memory.update(self._anchor.settled(memory))
        return state.with_vectors(fresh(state.theta).vectors, steps=0)

    def _bounded(self, mu: Vector | None, known: float | None) -> tuple[Vector | None, dict[str, float]]:
        """μ, shortened to 2.5 of the server's scales where these are known."""
        if mu is None or known is None or not self._parts["bound"]:
            return mu, {}
        length, longest = norm(mu), MU_MAX * known
        if length <= longest:
            return mu, {"bounded": 0.0}
        return (mu.astype(np.float64) * (longest / length)).astype(np.float32), {"bounded": 1.0}

    def _figures_of_the_anchor(
        self, memory: dict[str, Vector], mu: Vector | None, own: NDArray[np.float64]
    ) -> dict[str, float]:
        figures = {
            "anchor-deviation": float(self._anchor.deviations(memory)[-1]),
            "alarm": float(self._anchor.is_alarm(memory)),
        }
        lengths = 0.0 if mu is None else norm(mu) * math.sqrt(float(own @ own))
        if mu is not None and lengths > 0:
            figures["anchor-cosine"] = float(mu.astype(np.float64) @ own) / lengths
        return figures

    def _judge(
        self,
        before: State,
        after: State,
        plan: RoundPlan,
        returns: Returns,
        seen: _Seen,
        report: InnerReport,
        figures: dict[str, float],
    ) -> tuple[State, Returns]:
        """The state that the guard lets pass, and what it knows of returns from now on."""
        played = self._play(after, plan, JUDGING, report)
        sampled = float(np.mean(seen.returns)) if seen.returns else float(played.mean())
        is_rejected = self._parts["guard"] and not returns.approves(played)
        is_rolled_back = False
        if not is_rejected:
            returns = returns.accept(float(played.mean()), sampled, after)
            lost = LATE if returns.is_sagging else WINDOW if returns.is_fallen else 0
            if self._parts["guard"] and lost and returns.best is not None:
                is_rolled_back, after = True, _core_of(returns.best, after)
                returns = returns.taken_back(lost)
        else:
            returns, after = returns.reject(), before
            if returns.marks.rejections >= REJECTIONS_MAX and returns.best is not None:
                is_rolled_back = True
                after, returns = self._alone(_core_of(returns.best, before), plan, returns, report)
        figures.update(
            {
                "armed": float(returns.marks.is_armed),
                "rejected": float(is_rejected),
                "rolled-back": float(is_rolled_back),
            }
        )
        return after, returns

    def _alone(self, best: State, plan: RoundPlan, returns: Returns, report: InnerReport) -> tuple[State, Returns]:
        """Plain steps from the best state on trajectories of the server's own, or that state if they do not help."""
        steps = replace(plan, inner_steps=max(plan.inner_steps, ALONE_STEPS_MIN))
        seen = _Seen()
        alone, extra = variance_reduced_steps(
            self._tools, best, steps, None, learning_rate=report.learning_rate, watch=seen, first_step=RESCUE_STEPS
        )
        report.sampled.trajectories += extra.sampled.trajectories
        report.sampled.steps += extra.sampled.steps
        report.steps_taken += extra.steps_taken
        report.skipped_steps += extra.skipped_steps
        played = self._play(alone, plan, RESCUE_JUDGING, report)
        if returns.approves(played):
            return alone, returns.accept(float(played.mean()), float(np.mean(seen.returns)), alone)
        return best, returns.forgive()

    def _play(self, state: State, plan: RoundPlan, step: int, report: InnerReport) -> NDArray[np.float64]:
        played = self._tools.play_greedily(state.theta, plan.round_number, JUDGING_EPISODES, step)
        report.judged.add(played)
        return played.returns()


def _core_of(state: State, memory: State) -> State:
    """θ, Adam's moments and steps of one state with the memory of another."""
    return memory.with_vectors({name: state.vectors[name] for name in CORE}, state.steps)


def _slope(mu: Vector | None, own: NDArray[np.float64], noise: float) -> float:
    """⟨μ, g⟩/|μ| in units of the noise of g, shape (d,): how much uphill μ leads; 0 where nobody knows."""
    length = 0.0 if mu is None else norm(mu)
    if mu is None or length == 0 or noise == 0:
        return 0.0
    return float(mu.astype(np.float64) @ own) / (length * noise)


def _spread(aggregate: Aggregate, votes: Votes) -> float:
    """Σw²/(Σw)²: the part of one vote's variance that is left in μ, where votes are independent."""
    if aggregate.weights is None:
        return 1.0 / max(len(votes.agents) or votes.federation_size, 1)
    weights = np.array(list(aggregate.weights.values()))
    total = float(weights.sum())
    return float(weights @ weights) / total**2 if total > 1e-3 else 1.0 / max(len(weights), 1)
