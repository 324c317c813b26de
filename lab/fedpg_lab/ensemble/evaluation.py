"""Episodes of an ensemble, and the certificate of each of its steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fedpg_common.environments import GlobalRandom, make_environments
from fedpg_common.environments.rollouts import sample
from fedpg_common.errors import StorageError
from fedpg_common.files import is_file, shown
from fedpg_common.learning.checkpoints import Checkpoint
from fedpg_common.learning.policies import Actor, CategoricalPolicy, make_policy
from fedpg_common.learning.streams import Purpose, Role, episode_seeds, stream
from fedpg_server.storage.store import STORE_NAME
from gymnasium.spaces import Discrete
from numpy.typing import NDArray

from fedpg_lab.ensemble.vote import certifiable, geometric_median, majority
from fedpg_lab.playback.evaluation import load_policy
from fedpg_lab.runs.folders import require_folder


@dataclass(frozen=True, eq=False)
class EnsembleEvaluation:
    """What an ensemble earned, and how certain its actions are."""

    returns: NDArray[np.float64]
    """Undiscounted, by episode."""
    lengths: NDArray[np.int64]
    certified: NDArray[np.int64] | None
    """n′ of each step, (steps,): so many groups may be spoilt, and the action stays. None with continuous actions."""
    farthest: NDArray[np.float64] | None
    """w of each step, (steps,): the largest distance of a policy's action to the answer. None with discrete ones."""

    def share(self, changed: int) -> float:
        """The share of steps whose action stays where so many groups are spoilt. For discrete actions."""
        assert self.certified is not None
        return float((self.certified >= changed).mean())


def find_policies(folder: Path) -> dict[str, Checkpoint]:
    """The policy of each run directly below a folder, by the run's name: its latest, as algorithm 1 has it.

    Raises StorageError if there are none, if a run has no checkpoint yet, or if they are of different tasks.
    """
    require_folder(folder)
    runs = sorted((path.parent for path in folder.glob(f"*/{STORE_NAME}")), key=lambda run: (len(run.name), run.name))
    if not runs:
        raise StorageError(f"there are no runs in {shown(folder)}: train the groups with fedpg train --groups K first")
    policies = {}
    for run in runs:
        latest = run / "checkpoints" / "latest.safetensors"
        policies[run.name] = load_policy(latest if is_file(latest) else run)[1]
    first = next(iter(policies.values()))
    for name, policy in policies.items():
        if policy.spec != first.spec or policy.task.environment != first.task.environment:
            raise StorageError(f"{shown(folder / name)} holds another task's policy than the first: they cannot vote")
    return policies


def evaluate_ensemble(policies: Sequence[Checkpoint], episodes: int, seed: int) -> EnsembleEvaluation:
    """Episodes of the task's evaluation horizon, in which the policies vote on every action with their most likely one.

    The same seed gives the episodes that `fedpg evaluate` plays. Raises UsageError if the environment cannot be made,
    EnvironmentFailedError if it fails, StorageError if a policy does not fit it.
    """
    task = policies[0].task
    environments = make_environments(task, GlobalRandom(seed))
    try:
        policy = make_policy(task, environments.observation_size, environments.action_space)
        if any(policy.spec != one.spec or not np.isfinite(one.theta).all() for one in policies):
            raise StorageError(f"a policy does not fit {task.name}, or is not finite")
        voters = _Voters([policy.actor(one.theta) for one in policies], policy.action_space)
        seeds = episode_seeds(stream(seed, Role.SERVER, Purpose.EVALUATION), episodes)
        returns, lengths = [], []
        for start in range(episodes):  # one by one: an episode draws the same whoever else is in the batch
            with environments.drawing(0, start):
                played = sample(environments, voters.choose, task.evaluation_horizon, seeds[start : start + 1])
            returns.append(float(played.returns()[0]))
            lengths.append(played.steps)
    finally:
        environments.close()
    found = np.concatenate(voters.found)
    is_discrete = isinstance(policy, CategoricalPolicy)
    return EnsembleEvaluation(
        np.array(returns), np.array(lengths), found.astype(np.int64) if is_discrete else None,
        None if is_discrete else found,
    )  # fmt: skip


class _Voters:
    """Acts by vote, and notes the certificate of every answer."""

    def __init__(self, actors: Sequence[Actor], action_space: Any) -> None:
        self._actors = actors
        self._action_space = action_space
        self.found: list[NDArray[np.float64]] = []

    def choose(self, observations: NDArray[np.float32]) -> NDArray[Any]:
        actions = np.stack([actor.greedy(observations) for actor in self._actors])
        if isinstance(self._action_space, Discrete):
            chosen, certified = majority(actions, int(self._action_space.n))
            self.found.append(certified.astype(np.float64))
            return chosen
        medians = [geometric_median(actions[:, row].astype(np.float64)) for row in range(actions.shape[1])]
        self.found.append(np.array([distances.max() for _, distances in medians]))
        return np.stack([point for point, _ in medians]).astype(np.float32)


def warning_of(possible: int, groups: int) -> str | None:
    """What to say where more agents may be faulty than a vote of so many groups can ever certify; None otherwise."""
    most = certifiable(groups)
    if possible <= most:
        return None
    return (
        f"{possible} agents may be faulty, and a vote of {groups} certifies at most {most}: each may spoil a group, "
        "unless the group's own aggregator withstands it"
    )
