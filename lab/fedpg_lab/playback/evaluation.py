"""Evaluating a saved policy: episodes from a seed, and what they earned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fedpg_common.environments import GlobalRandom, make_environments
from fedpg_common.environments.factory import has_own_batch
from fedpg_common.environments.rollouts import sample
from fedpg_common.errors import StorageError
from fedpg_common.files import is_file, is_folder, shown
from fedpg_common.learning.checkpoints import Checkpoint, read_checkpoint
from fedpg_common.learning.policies import Policy, make_policy
from fedpg_common.learning.streams import Purpose, Role, episode_seeds, stream
from fedpg_common.learning.trajectories import Trajectories
from fedpg_common.tasks import Task
from fedpg_common.words import count
from fedpg_server.storage.damage import CHECKPOINT_FOLDER
from fedpg_server.storage.store import STORE_NAME, Store
from numpy.typing import NDArray

from fedpg_lab.runs.folders import how_to_make_runs, require_folder

BEST = "best.safetensors"
LATEST = "latest.safetensors"


@dataclass(frozen=True, eq=False)
class Episode:
    """One episode of an evaluation, with all that it takes to play it again, bit for bit."""

    seed: int
    """Of the environment's reset."""
    actions: NDArray[Any]
    """(T,) int64 or (T, A) float32."""
    total_reward: float
    """Undiscounted return."""
    number: int = 0
    """Its place in the evaluation, from 0."""
    global_random: GlobalRandom = field(default_factory=GlobalRandom)
    """What seeds the global generators, for an environment that draws from them."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a policy earned."""

    episodes: tuple[Episode, ...]

    @property
    def returns(self) -> NDArray[np.float64]:
        """Each episode's undiscounted return, shape (episodes,)."""
        return np.array([episode.total_reward for episode in self.episodes])

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation of the returns; None for a single episode."""
        return float(self.returns.std(ddof=1)) if len(self.episodes) > 1 else None

    def __repr__(self) -> str:
        """What it came to, without every action."""
        return f"<Evaluation: mean return {self.mean:.2f} of {count(len(self.episodes), 'episode')}>"


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that `path` means: itself, or a run folder's best. Raises StorageError."""
    if not is_folder(path):
        if path.suffix != ".safetensors" and not is_file(path):
            require_folder(path)  # whoever names no checkpoint file means a folder, which is not there
        return path
    for name in (BEST, LATEST):  # there is no best one where no round had a return that is a number
        if is_file(path / CHECKPOINT_FOLDER / name):
            return path / CHECKPOINT_FOLDER / name
    if is_file(path / STORE_NAME):
        raise StorageError(_why_no_checkpoint(path))
    below = sorted(path.glob(f"*/{CHECKPOINT_FOLDER}/{BEST}"))
    if below:
        raise StorageError(f"{shown(path)} holds several runs: choose one, for example {shown(below[0].parent.parent)}")
    raise StorageError(
        f"there is no run in {shown(path)}: give a checkpoint file or a run folder ({how_to_make_runs(path)})"
    )


def _why_no_checkpoint(run: Path) -> str:
    """A server writes them after every round: a run with rounds had some, unless that round ends at this moment."""
    store = run / STORE_NAME
    with Store.read(store) as stored:
        has_rounds = bool(stored.records(limit=1))
    if not has_rounds:
        return f"the run in {shown(run)} has no checkpoint yet: its first round has not ended"
    if Store.is_live(store):
        return f"the run in {shown(run)} has no checkpoint yet: its next round writes them"
    return (
        f"the checkpoints of the run in {shown(run)} are missing: put its folder {CHECKPOINT_FOLDER} back from a copy, "
        "or continue the run with fedpg train --resume and a larger --trajectories, which writes new ones"
    )


def evaluate(checkpoint: Checkpoint, episodes: int, seed: int, greedy: bool) -> Evaluation:
    """Run `episodes` episodes of the task's evaluation horizon, with the most likely or with drawn actions.

    Everything follows from the seed. No round of a run draws from these streams, so the episodes are new to the policy.
    Raises UsageError if the environment cannot be made, EnvironmentFailedError if it fails, StorageError if the policy
    does not fit it.
    """
    task, global_random = checkpoint.task, GlobalRandom(seed)
    environments = make_environments(task, global_random)
    try:
        policy = make_policy(task, environments.observation_size, environments.action_space)
        if policy.spec != checkpoint.spec:
            raise StorageError(
                f"the checkpoint's tensors are not those of a policy for {task.name}: "
                f"{checkpoint.spec.size} parameters, where {policy.spec.size} belong"
            )
        if not np.isfinite(checkpoint.theta).all():
            raise StorageError("the checkpoint's parameters are not finite")
        actor = policy.actor(checkpoint.theta)
        rng = stream(seed, Role.SERVER, Purpose.ACTION)
        seeds = episode_seeds(stream(seed, Role.SERVER, Purpose.EVALUATION), episodes)
        choose = actor.greedy if greedy else lambda observations: actor.sample(observations, rng)
        # Alone, an episode draws the same from the global generators when it is shown as when it was evaluated.
        size = episodes if has_own_batch(task) else 1
        played: list[Episode] = []
        for start in range(0, episodes, size):
            with environments.drawing(0, start):
                batch = sample(environments, choose, task.evaluation_horizon, seeds[start : start + size])
            played += _episodes(batch, seeds, start, global_random)
    finally:
        environments.close()
    return Evaluation(tuple(played))


def policy_of(task: Task) -> Policy:
    """The policy for a task's environment, which is made and closed. Raises UsageError."""
    environments = make_environments(task)
    try:
        return make_policy(task, environments.observation_size, environments.action_space)
    finally:
        environments.close()


def _episodes(
    batch: Trajectories, seeds: NDArray[np.int64], start: int, global_random: GlobalRandom
) -> Iterator[Episode]:
    for i, total in enumerate(batch.returns().tolist()):
        actions = batch.actions[batch.episodes == i]
        yield Episode(int(seeds[start + i]), actions, float(total), start + i, global_random)


def load_policy(path: Path) -> tuple[Path, Checkpoint]:
    """The checkpoint that `path` means, and what is in it. Raises StorageError."""
    file = find_checkpoint(path)
    return file, read_checkpoint(file)
