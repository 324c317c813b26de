"""An environment that fails as it is told to, for tests with processes: `failing_environments:Failing-v0`."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from fedpg_common.tasks import Task

EPISODE_STEPS = 5


def fail(how: str) -> float:
    """Fail; gives the reward where the failure is one."""
    match how:
        case "raise":
            raise RuntimeError("the simulator crashed")
        case "SystemExit":
            raise SystemExit(0)
        case "exit-0" | "exit-3":
            os._exit(int(how[-1]))
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "Ctrl-C":
            raise KeyboardInterrupt
        case "hang":
            while True:  # without a pause, as a simulator that does not converge
                pass
        case "infinite":
            return float("inf")
    return float("nan")


class FailingEnvironment(gymnasium.Env[Any, Any]):
    """Fails in the first step of the first `count` environments of the processes `where` that take one."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(
        self, folder: str, how: str, count: int = 1_000_000, where: str = "agent", slow_s: float = 0.0
    ) -> None:
        self._folder = Path(folder)
        self._how = how
        self._count = count
        self._is_here = multiprocessing.current_process().name.startswith(where)
        if slow_s and self._is_here and self._claim("slow"):
            time.sleep(slow_s)

    def _claim(self, what: str) -> bool:
        """Whether this environment is among the first `count` that ask."""
        for number in range(self._count):
            try:
                os.close(os.open(self._folder / f"{what}-{number}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                if self._count > 1000:
                    return True
                continue
            return True
        return False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = float(action)
        if self._steps == 0 and self._is_here and self._how and self._claim("failed"):
            reward = fail(self._how)
        self._steps += 1
        return np.zeros(2, np.float32), reward, self._steps >= EPISODE_STEPS, False, {}


gymnasium.register("Failing-v0", entry_point="failing_environments:FailingEnvironment")


def failing_task(folder: Path, how: str, **options: Any) -> Task:
    """A small task in that environment; `folder` is for its processes to agree on who fails."""
    return Task(
        name="failing",
        environment="failing_environments:Failing-v0",
        environment_options={"folder": str(folder), "how": how, **options},
        hidden=(4,), activation="relu", horizon=EPISODE_STEPS, evaluation_horizon=EPISODE_STEPS, trajectories=12,
        gamma=0.99, learning_rate=1e-3, batch_size=4, batch_size_min=4, batch_size_max=4, mini_batch_size=2,
        inner_steps=1,
    )  # fmt: skip
