"""Evaluating a run's policy in the world of each of its agents."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedpg_common.errors import StorageError, UsageError
from fedpg_common.federation import Federation
from fedpg_common.files import is_folder, shown
from fedpg_common.learning.checkpoints import Checkpoint
from fedpg_common.learning.streams import Purpose, Role, episode_seeds, stream
from fedpg_common.modules import make_importable
from fedpg_common.worlds import World
from fedpg_server.learning.records import OverWorlds, over_worlds
from fedpg_server.learning.worlds import Worlds, world_task

from fedpg_lab.playback.evaluation import Evaluation, evaluate, policy_of
from fedpg_lab.runs.folders import load_run


@dataclass(frozen=True)
class WorldsEvaluation:
    """What a policy earned in each agent's world. The episodes have the same seeds in all of them."""

    federation: Federation
    nominal: Evaluation
    """In the task's own world, the server's."""
    returns: dict[int, float]
    """Mean return by agent."""

    @property
    def over_worlds(self) -> OverWorlds:
        """Over agents."""
        return over_worlds(self.returns)

    @property
    def why_alike(self) -> str | None:
        """A sentence on worlds that do not differ in what is evaluated there; None for those that do."""
        federation = self.federation
        tasks = [world_task(federation, agent) for agent in self.returns]
        if any(task != tasks[0] for task in tasks):
            return None
        if any(federation.task_of(agent) != federation.task_of(1) for agent in self.returns):
            return "the agents' worlds differ only in how rewards are perceived there, which is not evaluated"
        if tasks[0] == federation.task:
            return "the agents of this run have no worlds of their own: all of them live in the server's"
        return f"all agents of this run have the same world: {federation.world_of(1).label}"

    def world(self, agent: int) -> World:
        """What the agent's environment has of its own."""
        return self.federation.world_of(agent)


def evaluate_worlds(run: Path, checkpoint: Checkpoint, episodes: int, seed: int) -> WorldsEvaluation:
    """Play greedy `episodes` in the task's world and in each agent's, as the description of the `run` folder has them.

    What an agent's operator has given it on its own command line is in no description. Raises UsageError where `run` is
    not a run folder or a world cannot be made, StorageError, EnvironmentFailedError.
    """
    if not is_folder(run):
        raise UsageError(f"--worlds needs a run folder, whose description has the worlds: {shown(run)} is not one")
    federation = load_run(run).federation
    make_importable(federation)
    nominal = evaluate(checkpoint, episodes, seed, greedy=True)
    policy = policy_of(federation.task)
    if policy.spec != checkpoint.spec:
        raise StorageError(f"the checkpoint's policy is not the one of the run in {shown(run)}")
    worlds = Worlds(federation, policy)
    try:
        seeds = episode_seeds(stream(seed, Role.SERVER, Purpose.EVALUATION), episodes)
        returns = worlds.evaluate(checkpoint.theta, seeds)
    finally:
        worlds.close()
    return WorldsEvaluation(federation, nominal, returns)
