"""Evaluating a policy in the world of every agent.

The episodes have the seeds of the round's own evaluation, so that a difference is the worlds' and not the draws'. An
agent's reward is judged as the task has it: how the agent perceives it (scale, shift, noise) is not what it is worth.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from fedpg_common.environments import EnvironmentBatch, GlobalRandom, make_environments
from fedpg_common.environments.helpers import HelperPool
from fedpg_common.environments.modules import check_wrappers_of_worlds
from fedpg_common.environments.rollouts import rollout
from fedpg_common.errors import UsageError
from fedpg_common.federation import Federation
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.policies import Policy, make_policy
from fedpg_common.learning.streams import Purpose, Role, episode_seeds, stream
from fedpg_common.tasks import Task
from numpy.typing import NDArray

CHECKED_MAX = 100
"""Worlds of agents that are tried before a run."""

log = logging.getLogger(__name__)


def world_task(federation: Federation, agent: int) -> Task:
    """The task in an agent's world, with the reward as it is for all."""
    return replace(federation.task_of(agent), reward=federation.task.reward)


def check_worlds(federation: Federation, policy: Policy) -> None:
    """Make a world that is drawn, and those that agents are given, before a run is begun with a misspelt option.

    Worlds with wrappers are left to their agents, on whose machines the modules are: one that is missing here is only
    warned of. Raises UsageError.
    """
    try:
        check_wrappers_of_worlds(federation)
    except UsageError as error:
        log.warning("%s (rounds wait for that agent, unless its own machine has it)", error)
    drawn = [1] if federation.heterogeneity is not None else []
    for agent in sorted({*drawn, *sorted(federation.environments)[:CHECKED_MAX]}):
        if not federation.task_of(agent).wrappers:
            _make(federation, agent, policy).close()


def _make(federation: Federation, agent: int, policy: Policy) -> EnvironmentBatch:
    task = world_task(federation, agent)
    try:
        batch = make_environments(task, GlobalRandom(federation.seed))
    except UsageError as error:
        raise UsageError(f"the world of agent {agent}: {error}") from error
    if make_policy(task, batch.observation_size, batch.action_space).spec != policy.spec:
        batch.close()
        raise UsageError(f"the world of agent {agent} has other spaces than the task {task.name}")
    return batch


class Worlds:
    """The environments of all agents, on one machine. Of the federation's attackers nothing is read."""

    def __init__(
        self, federation: Federation, policy: Policy, threads: int = 1, helpers: HelperPool | None = None
    ) -> None:
        """Make them. The episodes in a world are shared among `threads`, or processes of `helpers`, where they can be.

        Raises UsageError if one cannot be made, or the policy does not fit it.
        """
        self._seed = federation.seed
        self._policy = policy
        self._horizon = federation.task.evaluation_horizon
        self._threads = threads
        self._environments: dict[int, EnvironmentBatch] = {}
        pool = helpers or HelperPool()
        try:
            for agent in range(1, federation.agents + 1):
                self._environments[agent] = _make(federation, agent, policy)
                self._environments[agent].share_helpers(pool)
        except BaseException:
            self.close()
            raise

    def evaluate_round(self, theta: Vector, round_number: int, episodes: int) -> dict[int, float]:
        """The same with the seeds of a round's own evaluation."""
        draws = stream(self._seed, Role.SERVER, Purpose.EVALUATION, round_number=round_number)
        return self.evaluate(theta, episode_seeds(draws, episodes), round_number)

    def evaluate(self, theta: Vector, seeds: NDArray[np.int64], round_number: int = 0) -> dict[int, float]:
        """Mean undiscounted return of π_θ's greedy episodes in the world of each agent; θ has shape (d,)."""
        returns = {}
        for agent, batch in self._environments.items():
            with self._sharing(batch), batch.drawing(round_number, 0, finite_rewards=False):
                played = rollout(batch, self._policy, theta, self._horizon, seeds, None)
            returns[agent] = float(played.returns().mean())
        return returns

    @contextmanager
    def _sharing(self, batch: EnvironmentBatch) -> Iterator[None]:
        """Have a batch use its threads meanwhile: there may be many worlds, and only one of them is played in."""
        if self._threads == 1:
            yield
            return
        batch.use_threads(self._threads)
        yield
        batch.use_threads(1)

    def close(self) -> None:
        """Close them all."""
        for batch in self._environments.values():
            batch.close()
