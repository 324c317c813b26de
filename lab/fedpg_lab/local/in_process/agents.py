"""All agents of a federation in one process, one after the other."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
from fedpg_client.agent import make_report, why_refused
from fedpg_client.attacks import Attack, Attacker, Context, Knowledge, build_attacker
from fedpg_client.attacks.reporting import build_reported
from fedpg_client.attacks.shared import SharedSearches
from fedpg_client.process import check_fit
from fedpg_client.worker import Update, Worker
from fedpg_common.choices import Choice
from fedpg_common.derived_seeds import agent_seed, attackers_secret
from fedpg_common.environments import GlobalRandom, make_environments
from fedpg_common.environments.factory import has_own_batch
from fedpg_common.environments.helpers import HelperPool
from fedpg_common.errors import ExitCode, UsageError
from fedpg_common.federation import Federation
from fedpg_common.learning.aggregators import RoundPlan
from fedpg_common.learning.parameters import ParameterSpec, Vector
from fedpg_common.learning.policies import make_policy
from fedpg_common.learning.recursion import Recursion
from fedpg_common.learning.streams import Role
from fedpg_common.tasks import Reward
from fedpg_common.transport.verdicts import Verdict

from fedpg_lab.local.agent_setup import rule_of, same_attack
from fedpg_lab.local.failures import AgentsLostError, agent_named
from fedpg_lab.local.in_process.colluders import Colluders


def fits(federation: Federation) -> bool:
    """Whether all that its agents do can be done in one process. Raises UsageError for an attack that is not one."""
    return _needs_network(federation) is None


def require_fit(federation: Federation) -> None:
    """Raise UsageError for a federation that cannot be run in one process."""
    attack = _needs_network(federation)
    if attack is not None:
        raise UsageError(f"the attack {attack.name} is on the protocol, which needs a network: leave out --in-process")


def _needs_network(federation: Federation) -> Choice | None:
    """An attack that makes other calls than an honest agent does."""
    for choice, _ in same_attack(federation):
        if type(build_attacker(choice).attack).calls is not Attack.calls:
            return choice
    return None


@dataclass(frozen=True)
class Work:
    """What an agent submits in a round, and what it says of it."""

    gradient: Vector
    report: bytes
    """A WorkReport message."""


class Agents:
    """The federation's agents. A context manager: leaving it releases their environments."""

    def __init__(
        self, federation: Federation, spec: ParameterSpec, threads: int = 1, helpers: HelperPool | None = None
    ) -> None:
        """Make them all, each with its own world, whose episodes `threads` share where they can.

        `spec` are the server's parameters; `helpers` are shared with others than the agents.

        Raises UsageError for what cannot be made, RefusedError for a world whose spaces are not the server's.
        """
        self._federation = federation
        self._resources = ExitStack()
        self._colluders: list[Colluders] = []
        self._workers: dict[int, Worker] = {}
        attackers = self._attackers()
        pool = helpers or HelperPool()
        with ExitStack() as resources:
            for agent in range(1, federation.agents + 1):
                with agent_named(agent):
                    worker = _make(federation, agent, attackers.get(agent, Attacker()), spec, resources)
                worker.environments.share_helpers(pool)
                worker.environments.use_threads(threads)
                self._workers[agent] = worker
            self._resources = resources.pop_all()

    def __enter__(self) -> Agents:
        """The agents themselves."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Release their environments."""
        self._resources.close()

    def work(self, plan: RoundPlan, theta: Vector, recursion: Recursion | None) -> dict[int, Work]:
        """What each agent submits for a round that begins with θ (d,), by agent, ascending.

        Raises AgentsLostError for a gradient that a server would refuse, and what environments and attacks raise.
        """
        updates: dict[int, Update] = {}
        seconds: dict[int, float] = {}
        for agent, worker in self._workers.items():
            started_s = time.perf_counter()
            with agent_named(agent):
                updates[agent] = worker.work(plan.round_number, plan.batch_size, theta, recursion)
            seconds[agent] = time.perf_counter() - started_s
        sampled = dict(updates)
        for colluders in self._colluders:
            agreed = colluders.meet(lambda agent, context: self._recall(agent, context, sampled))
            updates.update((agent, replace(sampled[agent], gradient=vector)) for agent, vector in agreed.items())
        updates = {agent: replace(update, gradient=_sent(update.gradient)) for agent, update in updates.items()}
        _require_votes(plan, updates, theta.shape)
        return {
            agent: Work(update.gradient, make_report(update, seconds[agent]).SerializeToString())
            for agent, update in updates.items()
        }

    def _attackers(self) -> dict[int, Attacker]:
        """What each Byzantine agent is, by agent; those that meet are noted."""
        federation, found = self._federation, {}
        for choice, agents in same_attack(federation):
            attacker = build_reported(choice)
            if attacker.attack.knowledge >= Knowledge.COLLUDERS:
                colluders = Colluders(self._with_others(attacker, agents))
                self._colluders.append(colluders)
                attacker = colluders.sampling
            found.update(dict.fromkeys(agents, attacker))
        return found

    def _with_others(self, attacker: Attacker, agents: tuple[int, ...]) -> Attacker:
        """The attacker with what it is told of the others, as a deployment tells it."""
        federation = self._federation
        rule: Choice = rule_of(federation)
        return replace(
            attacker,
            attackers=agents,
            secret=attackers_secret(federation.seed, agents),
            run_seed=federation.seed if attacker.attack.knowledge >= Knowledge.OMNISCIENT else None,
            aggregator=rule,
            searches=SharedSearches(),
        )

    def _recall(self, agent: int, context: Context, updates: Mapping[int, Update]) -> Vector:
        """An honest agent's gradient as an attacker recomputes it: what was sampled already, if that is the same."""
        federation = self._federation
        mine, theirs = (federation.task_of(one) for one in (context.agent, agent))
        is_same = mine == theirs and has_own_batch(mine) and mine.reward == Reward()
        is_same = is_same and federation.speed_of(context.agent) == federation.speed_of(agent)
        if is_same and agent not in federation.byzantine:
            return updates[agent].gradient
        assert context.recompute is not None  # whoever recalls may recompute
        return context.recompute(agent)


def _make(federation: Federation, agent: int, attacker: Attacker, spec: ParameterSpec, resources: ExitStack) -> Worker:
    task, seed = federation.task_of(agent), agent_seed(federation.seed, agent)
    environments = make_environments(task, GlobalRandom(seed, Role.AGENT, agent))
    resources.callback(environments.close)
    policy = make_policy(task, environments.observation_size, environments.action_space)
    check_fit(task, policy.spec, spec)
    speed = federation.speed_of(agent)
    return Worker(agent, federation.agents, seed, task, policy, environments, attacker, speed)


def _sent(gradient: Vector) -> Vector:
    """A gradient as it arrives over the network, (d,) float32: a number beyond that is infinite."""
    with np.errstate(over="ignore"):
        return np.asarray(gradient, dtype=np.float32).reshape(-1)


def _require_votes(plan: RoundPlan, updates: Mapping[int, Update], shape: tuple[int, ...]) -> None:
    for agent, update in updates.items():
        is_fit = update.gradient.shape == shape
        if not is_fit or not np.isfinite(update.gradient).all():
            reason = why_refused(Verdict.NOT_FINITE if is_fit else Verdict.WRONG_SHAPE, update, shape)
            raise AgentsLostError(
                f"every round is to be complete, and agent {agent} has no vote in round {plan.round_number}: {reason}",
                ExitCode.QUORUM_LOST,
            )
