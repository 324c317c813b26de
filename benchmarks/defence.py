"""How a federation fares against attacks, in one process: the Learner and the Workers without their network.

An honest agent's updates, the server's draws and the x-axis are those of `fedpg train`. Attackers are the shipped ones,
which are told the server's rule and try it on a fresh memory, or one of these, which know every honest gradient of the
round and the server's whole state:

    edge              on the published filter's radius R1 about the honest mean, against its direction
    knowing-boundary  as far against the honest mean as hurts the rule most, by dry runs of it in its present state
    knowing-worst     the same, but tries several directions: against the mean, its signs, the standard deviation
    knowing-patient   the same, but no attacker's weight ever falls below 0.9
    alone             no agent votes at all: what a federation must be better than
    oracle            plays the whole round for each of some votes, the server's inner steps and the guard's verdict
                      included, and submits the one that leaves the policy with the lowest sampled return

Prints a line of JSON per run. `below_475_after_1000` is the share of the rounds behind trajectory 1,000 with a greedy
return below 475; `learning` and `fallen` are its two parts: before and after the honest agents' *sampled* returns,
which are what is learnt from, first were 300 on average over ten rounds, at `learnt_at`.

    python benchmarks/defence.py --algorithm fedpg-guard fedpg-br --attack none boundary --seed 0 1
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
from fedpg.v1 import federation_pb2 as pb
from fedpg_common.bootstrap import use_one_thread
from fedpg_common.choices import Choice, parse_settings
from fedpg_common.descriptions import describe
from fedpg_common.environments import make_environments
from fedpg_common.federation import Federation
from fedpg_common.learning.aggregators import RoundPlan
from fedpg_common.learning.parameters import Vector, digest
from fedpg_common.learning.policies import make_policy
from fedpg_common.shipped import AGGREGATORS, ALGORITHMS, ATTACKS
from fedpg_lab.local.in_process.agents import Agents
from fedpg_server.learning.algorithms.base import Tools
from fedpg_server.learning.learner import Learner, RoundResult
from fedpg_server.learning.state import State
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
REACHED = 400.0
STABLE, SETTLED = 475.0, 1000
"""Rounds with a lower return after so many trajectories are counted: while the run still learns, and after that."""
LEARNT, WINDOW = 300.0, 10
"""A run has learnt once the honest agents' sampled returns reach so much on average over so many rounds."""
FINAL = 0.95
"""The final return is the mean over the rounds behind this part of the trajectories."""
HARMLESS = ("none", "alone")
"""All agents honest, and no agent at all: the server learns alone, on the same x-axis."""
COUNTED = ("rejected", "rolled-back", "alarm", "unheeded", "bounded")
"""Figures of which a run's line has the number of rounds."""
SCALES = (0.0, *np.geomspace(0.1, 8.0, 13).tolist())
"""How far attackers try to stand from the honest mean, in standard deviations of an honest gradient."""


@dataclass(frozen=True)
class Round:
    """What an omniscient attacker knows."""

    learner: Learner
    state: State
    plan: RoundPlan
    federation: Federation
    updates: Mapping[int, Vector]
    """What every agent would send if it were honest."""
    tools: Tools
    """For episodes of the attackers' own."""

    @property
    def honest(self) -> Numbers:
        """The honest agents' gradients."""
        byzantine = self.federation.byzantine
        return np.array([row for agent, row in self.updates.items() if agent not in byzantine], np.float64)

    def sampled_return(self, theta: Vector) -> float:
        """Mean return of sixteen sampled episodes, always from the same starts."""
        return float(self.tools.sample(theta, 10**6, 1, count=16).returns().mean())

    def with_attackers(self, vector: Numbers) -> dict[int, Vector]:
        """All updates where every attacker sends this."""
        return {
            agent: vector.astype(np.float32) if agent in self.federation.byzantine else row
            for agent, row in self.updates.items()
        }


def edge(known: Round) -> dict[int, Vector]:
    """On the published radius R1 about the honest mean."""
    task, K = known.federation.task, known.federation.agents
    mean = known.honest.mean(axis=0)
    radius = 2 * task.sigma * math.sqrt(2 * math.log(2 * K / task.delta) / known.plan.batch_size)
    return known.with_attackers(mean - radius * unit(mean))


def boundary(known: Round) -> dict[int, Vector]:
    """Against the mean, as far as hurts most."""
    return hurting_most(known, [unit(known.honest.mean(axis=0))])


def worst(known: Round) -> dict[int, Vector]:
    """Against the mean, its signs or the standard deviation, whichever hurts most."""
    return hurting_most(known, three_directions(known))


def patient(known: Round) -> dict[int, Vector]:
    """As `worst`, of those that leave every attacker a weight of at least 0.9."""
    return hurting_most(known, three_directions(known), stealth=0.9)


def oracle(known: Round) -> dict[int, Vector]:
    """The vote after which the server ends with the worst policy, by sampled episodes that nobody else plays."""
    mean, spread = known.honest.mean(axis=0), spread_of(known.honest)
    candidates = [known.with_attackers(mean)]
    for direction, scale in itertools.product(three_directions(known)[:2], (0.5, 1.0, 1.5, 2.5, 4.0)):
        candidates.append(known.with_attackers(mean - scale * spread * direction))
    return min(candidates, key=lambda updates: known.sampled_return(known.learner.improve(
        known.state, known.plan, updates).state.theta))  # fmt: skip


def three_directions(known: Round) -> list[Numbers]:
    """The honest mean, its signs and the standard deviation, as unit vectors."""
    mean = known.honest.mean(axis=0)
    return [unit(mean), unit(np.sign(mean)), unit(known.honest.std(axis=0))]


def spread_of(honest: Numbers) -> float:
    """√(tr Cov) of the honest gradients."""
    return math.sqrt(np.square(honest - honest.mean(axis=0)).sum() / max(len(honest) - 1, 1))


def hurting_most(known: Round, directions: list[Numbers], stealth: float = 0.0) -> dict[int, Vector]:
    """Of the places behind the honest mean, the one that leaves μ the least component along that mean."""
    mean, spread = known.honest.mean(axis=0), spread_of(known.honest)
    best, least = known.with_attackers(mean), math.inf
    for direction, scale in itertools.product(directions, SCALES):
        updates = known.with_attackers(mean - scale * spread * direction)
        made = known.learner.dry_run(known.state, known.plan, updates)
        weights = made.weights or {}
        if made.vector is None or any(weights.get(agent, 0.0) < stealth for agent in known.federation.byzantine):
            continue
        along = float(made.vector.astype(np.float64) @ mean)
        if along < least:
            best, least = updates, along
    return best


def choice_of(attack: str) -> Choice:
    """A shipped attack, with settings behind commas: worst-down,starts_at=40."""
    name, *settings = attack.split(",")
    return ATTACKS.parse({"name": name, **parse_settings(settings)})


def unit(vector: Numbers) -> Numbers:
    """The vector with length 1, or zero."""
    length = float(np.linalg.norm(vector))
    return vector / length if length > 0 else vector


OMNISCIENT: Mapping[str, Callable[[Round], dict[int, Vector]]] = {
    "edge": edge, "knowing-boundary": boundary, "knowing-worst": worst, "knowing-patient": patient, "oracle": oracle,
}  # fmt: skip


class Bench:
    """A federation in this process."""

    def __init__(self, federation: Federation, attack: str) -> None:
        """`attack` is one of this page's, of FedPG's (see `choice_of`), or "none"."""
        self._federation = federation
        self._attack = OMNISCIENT.get(attack)
        self._is_alone = attack == "alone"
        environments = make_environments(federation.task)
        policy = make_policy(federation.task, environments.observation_size, environments.action_space)
        self.learner = Learner(federation, environments, policy)
        self._tools = Tools(federation.task, federation.agents, policy, federation.seed, environments)
        is_shipped = attack not in (*OMNISCIENT, *HARMLESS)
        self._agents = Agents(federation if is_shipped else replace(federation, byzantine={}), policy.spec)

    def play(self, state: State, number: int) -> tuple[RoundResult, float]:
        """One round, and the honest agents' mean sampled return in it; not a number where no agent plays."""
        plan = self.learner.plan(number)
        if self._is_alone:
            return self.learner.improve(state, plan, {}), math.nan
        works = self._agents.work(plan, state.theta, self.learner.recursion(state, plan))
        updates = {agent: work.gradient for agent, work in works.items()}
        reports = [pb.WorkReport.FromString(works[a].report) for a in works if a not in self._federation.byzantine]
        sampled = fmean(report.mean_return for report in reports)
        if self._attack is not None and self._federation.byzantine:
            updates = self._attack(Round(self.learner, state, plan, self._federation, updates, self._tools))
        return self.learner.improve(state, plan, updates), sampled


def run(federation: Federation, attack: str, show_rounds: bool) -> dict[str, object]:
    """A whole run, in figures."""
    bench = Bench(federation, attack)
    state, total, number = bench.learner.initial_state(), 0, 0
    curve: list[tuple[int, float]] = []
    sampled: list[float] = []
    weights: list[dict[int, float]] = []
    figures: list[Mapping[str, float]] = []
    start_s = time.process_time()
    while total < federation.task.trajectories:
        number += 1
        result, mean_return = bench.play(state, number)
        state, total = result.state, total + result.trajectories
        sampled.append(mean_return)
        curve.append((total, fmean(bench.learner.evaluate(state.theta, number).returns)))
        figures.append({**result.aggregate.figures, **result.inner.figures})
        weights.append(dict(result.aggregate.weights or {}))
        if show_rounds:
            print(number, *curve[-1], {name: round(value, 3) for name, value in figures[-1].items()}, flush=True)
    byzantine = federation.byzantine
    honest = [agent for agent in range(1, federation.agents + 1) if agent not in byzantine]
    return {
        "algorithm": federation.algorithm.label,
        "aggregator": None if federation.aggregator is None else federation.aggregator.label,
        "baseline": federation.task.baseline,
        "attack": attack,
        "byzantine": len(byzantine),
        "seed": federation.seed,
        "final": round(fmean(value for at, value in curve if at > FINAL * total), 1),
        "reaches_400_at": next((at for at, value in curve if value >= REACHED), None),
        "mean_return": round(fmean(value for _, value in curve), 1),
        **late_falls(curve, sampled),
        "weight_honest": round(fmean(each.get(agent, 0.0) for each in weights for agent in honest), 3),
        "weight_byzantine": round(fmean(each.get(agent, 0.0) for each in weights for agent in byzantine), 3)
        if byzantine
        else None,
        **{name: sum(each.get(name, 0.0) for each in figures) for name in COUNTED},
        "rounds": number,
        "digest": digest(state.theta)[:12],
        "cpu_s": round(time.process_time() - start_s, 1),
    }


def late_falls(curve: Sequence[tuple[int, float]], sampled: Sequence[float]) -> dict[str, float | None]:
    """The shares of the rounds behind trajectory 1,000 that are below 475: all, while learning, and after that."""
    means = (fmean(sampled[end - WINDOW : end]) for end in range(WINDOW, len(sampled) + 1))
    learnt = next((number for number, mean in enumerate(means, WINDOW - 1) if mean >= LEARNT), len(curve))
    late = [(number, value < STABLE) for number, (at, value) in enumerate(curve) if at > SETTLED]
    shares = {
        "below_475_after_1000": fmean(is_low for _, is_low in late) if late else None,
        "learning": fmean(is_low and number < learnt for number, is_low in late) if late else None,
        "fallen": fmean(is_low and number >= learnt for number, is_low in late) if late else None,
    }
    rounded = {name: None if share is None else round(share, 3) for name, share in shares.items()}
    return {**rounded, "learnt_at": curve[learnt][0] if learnt < len(curve) else None}


def main() -> None:
    """Run all combinations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="CartPole-v1")
    parser.add_argument("--algorithm", nargs="+", default=["fedpg-guard", "fedpg-br"], help=ALGORITHMS.names)
    parser.add_argument("--aggregator", help=AGGREGATORS.names)
    parser.add_argument("--after", nargs="+", default=[], help="pre-aggregators, run before that aggregator")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of the algorithms")
    parser.add_argument("--baseline", choices=("none", "time"), help="of the gradient estimate; the algorithm's")
    parser.add_argument("--attack", nargs="+", default=["none", "boundary"], help=f"{', '.join(OMNISCIENT)}, …")
    parser.add_argument("--seed", nargs="+", type=int, default=[0])
    parser.add_argument("--agents", type=int, default=10)
    parser.add_argument("--byzantine", type=int, default=3)
    parser.add_argument("--trajectories", type=int, default=1500)
    parser.add_argument("--rounds", action="store_true", help="print every round")
    arguments = parser.parse_args()
    use_one_thread()
    settings = parse_settings(arguments.set)
    for attack, seed, name in itertools.product(arguments.attack, arguments.seed, arguments.algorithm):
        federation = describe(
            arguments.task,
            agents=arguments.agents,
            seed=seed,
            trajectories=arguments.trajectories,
            algorithm={"name": name, **settings},
            aggregator={"name": arguments.aggregator, "after": arguments.after}
            if arguments.after
            else arguments.aggregator,
            baseline=arguments.baseline,
        )
        attackers = range(1, 1 + (0 if attack in HARMLESS else arguments.byzantine))
        shipped = choice_of("sign-flipping" if attack in (*OMNISCIENT, *HARMLESS) else attack)
        federation = replace(federation, byzantine=dict.fromkeys(attackers, shipped))
        print(json.dumps(run(federation, attack, arguments.rounds)), flush=True)


if __name__ == "__main__":
    main()
