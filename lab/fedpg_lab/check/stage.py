"""A small federation on which an attack is put to the test: real environments, a few attackers, no network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from fedpg_client.attacks import Attack, Attacker, Choose, Context, build_attacker
from fedpg_client.worker import Worker
from fedpg_common.choices import Choice
from fedpg_common.derived_seeds import agent_seed, attackers_secret
from fedpg_common.environments import make_environments
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.policies import Actor, make_policy
from fedpg_common.learning.streams import Purpose, Role, stream
from fedpg_common.learning.trajectories import Trajectories
from fedpg_common.tasks import Task, find_task
from gymnasium.spaces import Box, Discrete

AGENTS = 7
ATTACKERS = (2, 3, 5)
BATCH_SIZE = 4
SEED = 20
HORIZON = 25


def discrete_task() -> Task:
    """CartPole with short episodes."""
    return dataclasses.replace(find_task("CartPole-v1"), horizon=HORIZON)


def continuous_task() -> Task:
    """Pendulum, whose actions are real and whose rewards differ, with short episodes."""
    return dataclasses.replace(find_task("CartPole-v1"), name="Pendulum-v1", environment="Pendulum-v1", horizon=HORIZON)


class ChangedInputError(Exception):
    """An attack has changed what it was given."""


class _Contributed(Exception):  # noqa: N818 (it is not an error)
    """Ends a round when the agent has contributed to the pool."""

    def __init__(self, gradient: Vector) -> None:
        super().__init__()
        self.gradient = gradient


class _FirstHalf:
    """A pool at which a round ends."""

    def exchange(self, round_number: int, gradient: Vector) -> Mapping[int, Vector]:
        raise _Contributed(gradient)

    def contribute(self, round_number: int, gradient: Vector) -> None:
        raise _Contributed(gradient)


@dataclasses.dataclass(frozen=True)
class _SecondHalf:
    """A pool to which everybody else has contributed."""

    pooled: Mapping[int, Vector]

    def exchange(self, round_number: int, gradient: Vector) -> Mapping[int, Vector]:
        return {agent: vector.copy() for agent, vector in self.pooled.items()}

    def contribute(self, round_number: int, gradient: Vector) -> None:
        """Nobody waits for it."""


class _Guarded(Attack):
    """An attack, and a look at whether it changes what its hooks are given."""

    attack: Attack

    def choose(self, actor: Actor, action_space: Discrete[Any] | Box, context: Context) -> Choose:
        before = context.theta.copy()
        choose = self.attack.choose(actor, action_space, context)

        def guarded(observations: Any) -> Any:
            seen = observations.copy()
            actions = choose(observations)
            _compare("choose", {"observations": seen}, {"observations": observations})
            return actions

        _compare("choose", {"theta": before}, {"theta": context.theta})
        return guarded

    def tamper_trajectories(self, trajectories: Trajectories, context: Context) -> Trajectories:
        before = {name: value.copy() for name, value in _arrays(trajectories).items()}
        tampered = self.attack.tamper_trajectories(trajectories, context)
        _compare("tamper_trajectories", before, _arrays(trajectories))
        return tampered

    def tamper_gradient(self, gradient: Vector, context: Context) -> Vector:
        before = gradient.copy()
        tampered = self.attack.tamper_gradient(gradient, context)
        _compare("tamper_gradient", {"gradient": before}, {"gradient": gradient})
        return tampered

    def collude(self, pooled: Mapping[int, Vector], context: Context) -> Vector:
        before = {str(agent): vector.copy() for agent, vector in pooled.items()}
        submitted = self.attack.collude(pooled, context)
        _compare("collude", before, {str(agent): vector for agent, vector in pooled.items()})
        return submitted


def _guarded(attack: Attack) -> Attack:
    # Its class, and not the instance, says how much it has to know.
    guarded: _Guarded = type("_Guarded", (_Guarded,), {"knowledge": attack.knowledge})()
    guarded.attack = attack
    return guarded


def _arrays(trajectories: Trajectories) -> dict[str, Any]:
    return {name: getattr(trajectories, name) for name in ("observations", "actions", "rewards", "episodes")}


def _compare(hook: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    if list(before) != list(after):
        raise ChangedInputError(f"{hook} changes which vectors are pooled")
    for name, value in before.items():
        if value.tobytes() != after[name].tobytes():
            raise ChangedInputError(f"{hook} changes its input {name}")


@dataclasses.dataclass
class Stage:
    """The attackers of a small federation on one task. A context manager."""

    task: Task

    def __enter__(self) -> Stage:
        """Make environments and policy."""
        self._environments = make_environments(self.task)
        self.policy = make_policy(self.task, self._environments.observation_size, self._environments.action_space)
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close the environments."""
        self._environments.close()

    def theta(self, round_number: int) -> Vector:
        """A round's parameters, shape (d,)."""
        rng = stream(SEED, Role.SERVER, Purpose.INITIAL_PARAMETERS, round_number=round_number)
        return self.policy.initial_parameters(rng)

    def attackers(self, choice: Choice | None, run_seed: int | None = None) -> dict[int, Attacker]:
        """The attackers, as if their processes had just been started; with None they are honest."""
        made = {}
        for agent in ATTACKERS:
            attacker = build_attacker(choice)
            made[agent] = dataclasses.replace(
                attacker,
                attack=_guarded(attacker.attack),
                attackers=ATTACKERS,
                secret=attackers_secret(SEED, ATTACKERS),
                run_seed=run_seed,
            )
        return made

    def play(self, attackers: Mapping[int, Attacker], round_number: int, alone: bool = False) -> dict[int, Vector]:
        """What each attacker submits in a round; `alone`: each without the others' contributions."""
        contributed = {agent: self._contribute(agent, attacker, round_number) for agent, attacker in attackers.items()}
        return {
            agent: self._work(
                agent,
                dataclasses.replace(attacker, pool=_SecondHalf({agent: contributed[agent]} if alone else contributed)),
                round_number,
            )
            for agent, attacker in attackers.items()
        }

    def _contribute(self, agent: int, attacker: Attacker, round_number: int) -> Vector:
        try:
            return self._work(agent, dataclasses.replace(attacker, pool=_FirstHalf()), round_number)
        except _Contributed as contribution:
            return contribution.gradient

    def _work(self, agent: int, attacker: Attacker, round_number: int) -> Vector:
        worker = Worker(agent, AGENTS, agent_seed(SEED, agent), self.task, self.policy, self._environments, attacker)
        return worker.work(round_number, BATCH_SIZE, self.theta(round_number)).gradient


def is_submittable(vector: object, size: int) -> bool:
    """Whether the server would take this as a vote: float32 of shape (d,), finite."""
    return (
        isinstance(vector, np.ndarray)
        and vector.dtype == np.float32
        and vector.shape == (size,)
        and bool(np.isfinite(vector).all())
    )
