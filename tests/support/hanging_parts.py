"""Parts of one's own that hold their caller up, for tests: until a gate is opened, or for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from fedpg_client.attacks import Attack, Context
from fedpg_common.learning.parameters import Vector
from fedpg_common.tasks import Task
from gymnasium.spaces import Box, Discrete
from odd_environments import odd_task

PATIENCE_S = 60.0


@dataclass
class Gate:
    """Who comes to it waits until it is open, and gives up if it never is."""

    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)

    def pass_through(self) -> None:
        """Wait."""
        self.reached.set()
        if not self.opened.wait(PATIENCE_S):
            raise RuntimeError("nobody has opened the gate")

    def reset(self) -> None:
        """Shut it again."""
        self.reached.clear()
        self.opened.clear()


GATE = Gate()
"""Of this process."""


class Constructed:
    """Something whose constructor waits."""

    def __init__(self) -> None:
        """Wait."""
        GATE.pass_through()


class Waiter(Attack):
    """An attack that waits in a hook."""

    def tamper_gradient(self, gradient: Vector, context: Context) -> Vector:
        """Wait."""
        GATE.pass_through()
        return gradient

    def collude(self, pooled: Mapping[int, Vector], context: Context) -> Vector:
        """Wait."""
        GATE.pass_through()
        return next(iter(pooled.values()))


class Looker:
    """An observer that says in a file that it has seen a round, and never returns."""

    def __init__(self, observed: Any, sign: str) -> None:
        """`sign` is the file's path."""
        self._sign = Path(sign)

    def record(self, record: Any, theta: Vector) -> None:
        """Look on for ever."""
        self._sign.touch()
        while True:
            time.sleep(0.05)

    def close(self) -> None:
        """There is nothing to close."""


class Gated(gymnasium.Env[Any, Any]):
    """Waits at the gate in one of its methods."""

    observation_space = Box(-1, 1, (3,), np.float32)
    action_space = Discrete(2)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (Gymnasium has it so)

    def __init__(self, method: str, render_mode: str | None = None) -> None:
        """`method` is the one in which it waits."""
        self.render_mode = render_mode
        self._method = method
        self._pass("__init__")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """See the class."""
        self._pass("reset")
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> Any:
        """See the class."""
        self._pass("step")
        return np.zeros(3, np.float32), 1.0, True, False, {}

    def render(self) -> Any:
        """See the class."""
        self._pass("render")
        return np.zeros((16, 16, 3), np.uint8)

    def close(self) -> None:
        """See the class."""
        self._pass("close")

    def _pass(self, method: str) -> None:
        if method == self._method:
            GATE.pass_through()


gymnasium.register("Gated-v0", entry_point="support.hanging_parts:Gated")


def gated_task(method: str) -> Task:
    """A small task whose environment waits there."""
    return odd_task("", environment="support.hanging_parts:Gated-v0", environment_options={"method": method})
