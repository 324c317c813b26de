"""Environments that do what environments should not, by the name of the fault. `odd_environments:Odd-v0` in a task."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from fedpg_common.tasks import Task, task_from_fields
from gymnasium.spaces import Box, Discrete

LENGTH = 6
"""Steps of an episode."""


def odd_task(fault: str, **changes: Any) -> Task:
    """A small task whose environment has that fault."""
    fields: dict[str, Any] = {
        "name": "odd", "environment": "odd_environments:Odd-v0", "hidden": [4], "activation": "tanh", "horizon": 8,
        "evaluation_horizon": 8, "trajectories": 12, "gamma": 0.99, "learning_rate": 1e-3, "batch_size": 4,
        "batch_size_min": 4, "batch_size_max": 4, "mini_batch_size": 2, "inner_steps": 1,
        "environment_options": {"fault": fault},
    }  # fmt: skip
    return replace(task_from_fields(fields), **changes)


def _raise(error: BaseException) -> Any:
    raise error


class UnprintableError(Exception):
    """An exception whose message cannot be had."""

    def __str__(self) -> str:
        """Fail again."""
        raise RuntimeError("not even that")


START = np.array([0.1, 0.2, 0.3], np.float32)
RESETS: dict[str, Callable[[], Any]] = {
    "reset_raises": lambda: _raise(OSError("no\ndevice")),
    "reset_exits": lambda: _raise(SystemExit("enough")),
    "reset_bare": START.copy,
    "reset_none": lambda: None,
    "reset_no_info": lambda: (START, None),
    "reset_three": lambda: (START, {}, 1),
    "reset_nan": lambda: (START * np.float32("nan"), {}),
    "reset_wrong_size": lambda: (START[:2], {}),
    "reset_dictionary": lambda: ({"position": START}, {}),
}
OBSERVATIONS: dict[str, Any] = {
    "observation_scalar": 0.5,
    "observation_short": START[:2],
    "observation_column": START[:, None],
    "observation_nan": np.array([0.1, float("nan"), 0.3], np.float32),
    "observation_infinite": np.array([0.1, float("-inf"), 0.3]),
    "observation_beyond_float32": np.array([0.1, 1e39, 0.3]),
    "observation_none": None,
    "observation_text": "far away",
    "observation_texts": ["a", "b", "c"],
    "observation_objects": np.array([1, None, 3], object),
    "observation_dictionary": {"position": 1},
    "observation_complex": START.astype(np.complex64),
    "observation_ragged": [[1], [2, 3], 4],
}
REWARDS: dict[str, Any] = {
    "reward_nan": float("nan"),
    "reward_infinite": float("inf"),
    "reward_numpy_infinite": -np.float32("inf"),
    "reward_none": None,
    "reward_true": True,
    "reward_numpy_true": np.bool_(True),
    "reward_text": "1.0",
    "reward_array": np.array([1.0]),
    "reward_list": [1.0],
    "reward_complex": 1j,
    "reward_beyond_float32": 1e39,
    "reward_huge": 10**400,
}
ENDS: dict[str, Any] = {"ends_none": None, "ends_one": 1, "ends_text": "no", "ends_array": np.array([False])}
STEPS: dict[str, Callable[[], Any]] = {
    "step_raises": lambda: _raise(RuntimeError("simulator diverged\nat joint 3")),
    "step_raises_unprintably": lambda: _raise(UnprintableError()),
    "step_exits": lambda: _raise(SystemExit(0)),
    "step_four": lambda: (START, 1.0, False, {}),
    "step_six": lambda: (START, 1.0, False, False, {}, {}),
    "step_none": lambda: None,
}
FAULTS = (*RESETS, *OBSERVATIONS, *REWARDS, *ENDS, *STEPS, "reset_without_seed", "truncated_none")


class Odd(gymnasium.Env[Any, Any]):
    """Pays the action, shows how far it is, and has one fault."""

    observation_space: Box = Box(-np.inf, np.inf, (3,), np.float32)
    action_space = Discrete(2)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (Gymnasium has it so)
    instances = 0

    def __init__(self, fault: str = "", render_mode: str | None = None) -> None:
        """`fault` is one of FAULTS, or of the names below."""
        self.fault, self.render_mode = fault, render_mode
        self.thread = threading.get_ident()
        if fault == "make_exits":
            raise SystemExit(3)
        if fault == "once" and Odd.instances:
            raise RuntimeError("the port is taken")
        if fault == "spaces_differ" and Odd.instances % 2:
            self.action_space = Discrete(3)
        if fault == "bytes_declared":
            self.observation_space = Box(0, 255, (3,), np.uint8)
        Odd.instances += 1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Start, or fail."""
        if self.fault == "reset_without_seed":
            return _raise(TypeError("Odd.reset() got an unexpected keyword argument 'seed'"))
        self.steps = 0
        self.shown = START.copy()
        self._check_thread()
        return RESETS[self.fault]() if self.fault in RESETS else (self.shown, {})

    def step(self, action: Any) -> Any:
        """Go on, or fail."""
        self.steps += 1
        self._check_thread()
        if self.fault == "prints":
            print("step", self.steps)
        if self.fault == "fails_at_the_server" and threading.current_thread().name.startswith("learner"):
            raise RuntimeError("no licence for another simulator")
        if self.fault == "fails_late" and self.steps > 3:
            raise RuntimeError("out of track")
        if self.fault in STEPS:
            return STEPS[self.fault]()
        if self.fault == "writes_in_place":
            self.shown += 1.0  # the very array that it gave away before
        else:
            self.shown = START + np.float32(self.steps)
        observation = OBSERVATIONS.get(self.fault, self.shown)
        if self.fault == "large":
            observation = np.full(3, 3e38, np.float32)
        if self.fault == "bytes_declared":
            observation = np.array([0.25, 1.5, 300.0])
        reward = REWARDS.get(self.fault, float(action))
        if self.fault == "draws":
            reward = float(np.random.random() + random.random())
        if self.fault == "fails_when_drawn" and self.render_mode:
            raise RuntimeError("no screen")
        ended = ENDS.get(self.fault, self.steps >= LENGTH)
        return observation, reward, ended, None if self.fault == "truncated_none" else False, {}

    def render(self) -> Any:
        """An image, or something else."""
        image = np.full((16, 16, 3), 10 * self.steps, np.uint8)
        if self.fault == "render_grows":
            return np.zeros((16 + self.steps, 16, 3), np.uint8)
        odd: dict[str, Any] = {
            "render_none": None, "render_list": [image, image], "render_grey": image[:, :, 0], "render_text": "image",
            "render_fractions": image / 255.0, "render_beyond": image.astype(np.int64) + 300, "render_empty": image[:0],
        }  # fmt: skip
        if self.fault == "render_raises":
            raise RuntimeError("no screen")
        return odd.get(self.fault, image)

    def close(self) -> None:
        """End, or fail."""
        if self.fault == "close_raises":
            raise RuntimeError("will not close")
        if self.fault == "close_exits":
            raise SystemExit(1)
        self._check_thread()

    def _check_thread(self) -> None:
        if self.fault == "bound_to_its_thread" and threading.get_ident() != self.thread:
            raise RuntimeError("used in another thread than it was made in")


gymnasium.register("Odd-v0", entry_point="odd_environments:Odd")


class Undrawn(Odd):
    """Takes no render mode."""

    def __init__(self) -> None:
        """Nothing to say."""
        super().__init__()


gymnasium.register("Undrawn-v0", entry_point="odd_environments:Undrawn")
