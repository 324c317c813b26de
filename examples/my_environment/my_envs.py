"""An environment of one's own: a puck on a table of ice, to be pushed to the middle and to be held there."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

TIME_STEP_S = 0.1
EDGE_M = 2.0
IMAGE_SIDE = 128


class Puck(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """Observes position and velocity (x, y, x', y') in m and m/s; an action is an acceleration in m/s², up to 3."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (Gymnasium has it so)

    def __init__(self, friction: float = 0.1, render_mode: str | None = None) -> None:
        """`friction` is the share of its velocity that the puck loses in a second."""
        self.observation_space = Box(-np.inf, np.inf, (4,), np.float32)
        self.action_space = Box(-3.0, 3.0, (2,), np.float32)
        self.friction = friction
        self.render_mode = render_mode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start somewhere, at rest. Every random number comes from `self.np_random`, which the seed determines."""
        super().reset(seed=seed)
        self._position = self.np_random.uniform(-1.0, 1.0, 2)
        self._velocity = np.zeros(2)
        return self._observe(), {}

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Push the puck. The episode ends when it falls off the table."""
        self._velocity += TIME_STEP_S * (action - self.friction * self._velocity)
        self._position += TIME_STEP_S * self._velocity
        distance = float(np.linalg.norm(self._position))
        has_fallen = bool(np.abs(self._position).max() > EDGE_M)
        return self._observe(), (-20.0 if has_fallen else 1.0 - distance), has_fallen, False, {}

    def render(self) -> NDArray[np.uint8]:
        """The table from above."""
        image = np.full((IMAGE_SIDE, IMAGE_SIDE, 3), 235, np.uint8)
        middle = IMAGE_SIDE // 2
        image[middle - 1 : middle + 1, :] = image[:, middle - 1 : middle + 1] = 200
        pixels = ((self._position / EDGE_M + 1.0) / 2.0 * IMAGE_SIDE).astype(int)
        x, y = np.clip(pixels, 4, IMAGE_SIDE - 4)
        image[y - 4 : y + 4, x - 4 : x + 4] = (200, 40, 40)
        return image

    def _observe(self) -> NDArray[np.float32]:
        return np.concatenate((self._position, self._velocity)).astype(np.float32)


gymnasium.register("Puck-v0", entry_point="my_envs:Puck")
