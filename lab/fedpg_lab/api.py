"""The package as a library: what `docs/python.md` describes, and all of it that is public.

Importing this is light. What the functions need (matplotlib, the environments) is imported when they are called.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpg_common.errors import FedPGError, StorageError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from fedpg_common.learning.checkpoints import Checkpoint
    from fedpg_common.learning.parameters import Vector
    from fedpg_common.learning.policies import Actor
    from fedpg_common.tasks import Task
    from gymnasium.spaces import Box, Discrete
    from numpy.typing import ArrayLike, NDArray
    from rich.console import Console

    from fedpg_lab.playback.evaluation import Evaluation
    from fedpg_lab.runs.folders import RunData

__all__ = ["FedPGError", "SavedPolicy", "evaluate", "load_policy", "load_run", "train"]

PathLike = str | os.PathLike[str]
EPISODES_MAX = 10_000


def train(
    task: PathLike = "CartPole-v1",
    *,
    agents: int = 10,
    byzantine: int = 0,
    attack: str = "random-noise",
    algorithm: str = "fedpg-br",
    trajectories: int | None = None,
    seed: int = 0,
    sigma: float | None = None,
    alpha: float | None = None,
    round_timeout: float = 120.0,
    agents_per_process: int = 1,
    in_process: bool = False,
    tensorboard: bool = False,
    out: PathLike | None = None,
    progress: bool = False,
) -> RunData:
    """Train a policy: one server and `agents` agents as processes on this machine, as `fedpg train` does.

    `task` is a published task's name or a task file (NAME.toml). Agents 1 to `byzantine` do what `attack` says. None
    means the task's own value. The run folder is `out`, which must not exist yet, or one in `runs` with a name that
    says what it holds. With `in_process` they all work in one process, with the same parameters. Prints nothing unless
    `progress`, which shows the state on standard error.

    Returns the run with a record of each round. Raises FedPGError with one sentence. On Ctrl-C the processes end, the
    run can be resumed (`fedpg train --resume`), and KeyboardInterrupt is raised.
    """
    from fedpg_common.cli.observer_options import chosen_observers
    from fedpg_common.descriptions import describe
    from fedpg_common.federation import name_of

    from fedpg_lab.local import train as training

    federation = describe(
        os.fspath(task),
        agents=agents,
        byzantine=byzantine,
        attack=attack,
        algorithm=algorithm,
        seed=seed,
        round_timeout_s=round_timeout,
        trajectories=trajectories,
        sigma=sigma,
        alpha=alpha,
    )
    if agents_per_process < 1:
        raise UsageError(f"agents_per_process must be at least 1, not {agents_per_process}")
    if out is None:
        folder = training.new_folder(Path("runs"), None, name_of(federation))
    else:
        folder = Path(out)
        if folder.exists():
            raise StorageError(f"{folder} exists already: choose another folder, or load its run with load_run")
    options = training.TrainOptions(agents_per_process, chosen_observers(tensorboard, ()), in_process=in_process)
    return training.train(federation, folder, options, _console(progress))


def load_run(folder: PathLike) -> RunData:
    """The run in a folder, also of one that is not finished: its federation and a record of each round.

    Raises StorageError if there is none.
    """
    from fedpg_lab.runs import folders as runs

    return runs.load_run(Path(folder))


def load_policy(path: PathLike) -> SavedPolicy:
    """The policy in a checkpoint file, or the best one of a run folder. Raises StorageError."""
    from fedpg_lab.playback import evaluation

    return SavedPolicy(*evaluation.load_policy(Path(path)))


def evaluate(policy: SavedPolicy | PathLike, *, episodes: int = 10, seed: int = 0, sample: bool = False) -> Evaluation:
    """What a policy earns in episodes of its task's evaluation horizon. `policy` may be all that `load_policy` takes.

    Actions are the most likely ones or, with `sample`, drawn as in training. Everything follows from the seed, and no
    round of any run draws from the same random streams. Raises UsageError and StorageError.
    """
    from fedpg_common.federation import SEED_MAX

    from fedpg_lab.playback import evaluation

    if not 1 <= episodes <= EPISODES_MAX:
        raise UsageError(f"episodes must be 1 to {EPISODES_MAX}, not {episodes}")
    if not 0 <= seed <= SEED_MAX:
        raise UsageError(f"the seed must be 0 to 2**63 - 1, not {seed}")
    saved = policy if isinstance(policy, SavedPolicy) else load_policy(policy)
    return evaluation.evaluate(saved.checkpoint, episodes, seed, greedy=not sample)


@dataclass(frozen=True, eq=False)
class SavedPolicy:
    """A policy from a checkpoint."""

    file: Path
    checkpoint: Checkpoint

    @property
    def task(self) -> Task:
        """The task that it was trained for, with all settings."""
        return self.checkpoint.task

    @property
    def theta(self) -> Vector:
        """The parameters θ, shape (d,), float32."""
        return self.checkpoint.theta

    @property
    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """The parameters as the tensors of the network, by name."""
        return self.checkpoint.spec.views(self.checkpoint.theta)

    @property
    def round_number(self) -> int:
        """The round after which it was saved."""
        return self.checkpoint.round_number

    @property
    def evaluation_return(self) -> float | None:
        """Mean greedy return when it was saved; None before the first evaluation."""
        return self.checkpoint.evaluation_return

    def act(
        self,
        observation: ArrayLike,
        rng: np.random.Generator | None = None,
        action_space: Discrete[Any] | Box | None = None,
    ) -> Any:
        """The action for one observation, of any shape: the most likely one, or with `rng` a drawn one.

        With the environment's `action_space` it is what its `step` takes: counted from the space's start, scaled to
        its bounds, of its shape. Without, it is the policy's own, which the three published tasks take as it is: an
        int counted from 0, or numbers around −1 to 1, shape (A,), float32.
        """
        import numpy as np
        from fedpg_common.environments.actions import ActionScale

        actor = self._actor()
        row = np.asarray(observation, np.float32).reshape(1, -1)
        wanted = self.checkpoint.spec.tensors[0].shape[1]
        if row.shape[1] != wanted:
            raise UsageError(f"an observation of {self.task.name} has {wanted} numbers, not {row.shape[1]}")
        actions = actor.greedy(row) if rng is None else actor.sample(row, rng)
        (action,) = actions if action_space is None else ActionScale(action_space).to_environment(actions)
        return int(action) if action.ndim == 0 else action

    def _actor(self) -> Actor:
        """The network with its parameters. Which kind of actions it has follows from its tensors."""
        import numpy as np
        from fedpg_common.learning.policies import make_policy
        from gymnasium.spaces import Box, Discrete

        shapes = {tensor.name: tensor.shape for tensor in self.checkpoint.spec.tensors}
        last = self.checkpoint.spec.tensors[-1]
        is_continuous = "std.weight" in shapes
        space = Box(-np.inf, np.inf, (last.shape[0],)) if is_continuous else Discrete(last.shape[0])
        policy = make_policy(self.task, self.checkpoint.spec.tensors[0].shape[1], space)
        if policy.spec != self.checkpoint.spec:
            raise StorageError(f"the tensors in {self.file} are not those of a policy for {self.task.name}")
        return policy.actor(self.theta)


def _console(progress: bool) -> Console:
    """Where progress goes: as lines in a notebook, whose output is not a terminal."""
    from rich.console import Console

    return Console(stderr=True, force_jupyter=False) if progress else Console(file=io.StringIO(), quiet=True)
