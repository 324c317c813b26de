"""Attacks on a rule that remembers: they know `history`, its horizons and its thresholds (docs/defence.md).

They are the project's own. What the rule remembers they do not have to know: `Inside` and `Seesaw` compute what it must
remember of them, and `Frame` looks at one round.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from fedpg_common.errors import UsageError
from fedpg_common.learning.aggregators import Aggregate
from fedpg_common.learning.streams import Purpose, Role, stream

from fedpg_client.attacks.base import Context, checked_number
from fedpg_client.attacks.boundary import NEAREST, REACH_MAX, TRIES
from fedpg_client.attacks.scene import Array, Scene, SceneAttack, unit
from fedpg_client.attacks.searches import DIRECTIONS, Harm, along, checked_direction

KNEE_MAX = 1e3


class Inside(SceneAttack):
    """Pushes in each round as far as leaves its mean deviation at the knee over every horizon, and no farther."""

    def __init__(self, knee: float = 1.25, horizon: float = 199.0, direction: str = "mean") -> None:
        """`knee` is the deviation up to which a vote has its full weight, `horizon` the longest one, in rounds."""
        self._knee = checked_number("knee", knee, 0.0, KNEE_MAX)
        self._horizon = checked_number("horizon", horizon, 1.0, 1e6)
        self._direction = checked_direction(direction)

    def craft(self, scene: Scene) -> Array:
        """M − δ_t ‖s‖ in the direction, shape (d,)."""
        delta = self.displacement(scene.context.round_number)
        return scene.mean + delta * scene.spread * DIRECTIONS[self._direction](scene)

    def displacement(self, round_number: int) -> float:
        """δ_t = (D_t − β D_{t−1})/(1 − β) with D_t = knee √((1 − β)/(1 + β) (1 − β^2t)), β = (h − 1)/(h + 1).

        D_t is the moving mean whose q is the knee after t rounds; no displacement is needed to stay below it where δ_t
        would be negative.
        """
        beta = (self._horizon - 1.0) / (self._horizon + 1.0)
        level = self._knee * math.sqrt((1.0 - beta) / (1.0 + beta))
        now, before = (math.sqrt(1.0 - beta ** (2.0 * t)) for t in (round_number, round_number - 1))
        return level * (now - beta * before) / (1.0 - beta)


class Seesaw(SceneAttack):
    """Pushes in rounds with many inner steps and pays back in those with few: its mean deviation remains near zero.

    The server walks N_t steps along one μ. Who has the run's seed knows N_t beforehand.
    """

    def __init__(self, reach: float = 1.25, direction: str = "mean") -> None:
        """`reach` is how far to push, in honest spreads."""
        self._reach = checked_number("reach", reach, 0.0, REACH_MAX)
        self._direction = checked_direction(direction)

    def craft(self, scene: Scene) -> Array:
        """M ± reach · ‖s‖ in the direction, shape (d,): plus where N_t is above its median. Raises UsageError."""
        side = 1.0 if pushes(scene.context) else -1.0
        return scene.mean + side * self._reach * scene.spread * DIRECTIONS[self._direction](scene)


def pushes(context: Context) -> bool:
    """Whether N_t ~ Geometric(p), p = b/(B_t + b), is above its median. Raises UsageError without the run's seed."""
    if context.run_seed is None:
        raise UsageError("attack seesaw needs the run's seed")
    p = context.task.mini_batch_size / (context.batch_size + context.task.mini_batch_size)
    draws = stream(context.run_seed, Role.SERVER, Purpose.INNER_STEPS, round_number=context.round_number)
    return int(draws.geometric(p)) > math.log(0.5) / math.log1p(-p)


class Frame(SceneAttack):
    """Makes those honest agents look guilty from whom the server would learn most, and votes in their place.

    As many as attack: those whose gradients go farthest along the honest mean. Attackers stand on the other side of it,
    where the rule gives these agents the least weight, and attackers no less than `stealth`.
    """

    tries_rule: ClassVar[bool] = True

    def __init__(self, stealth: float = 0.5, reach: float = 8.0) -> None:
        """`stealth` is the weight that each attacker must keep, `reach` how far to look, in honest spreads."""
        self._stealth = checked_number("stealth", stealth, 0.0, 1.0)
        self._reach = checked_number("reach", reach, NEAREST, REACH_MAX)

    def craft(self, scene: Scene) -> Array:
        """M − k ‖s‖ (v − m)/‖v − m‖, v the mean of the framed, shape (d,); m where the rule gives no weights."""
        framed = self.framed(scene)
        direction = -unit(scene.gradients[list(framed)].astype(np.float64).mean(axis=0) - scene.mean)
        scales = [0.0, *np.geomspace(NEAREST, self._reach, TRIES).tolist()]
        found = along(self._value(scene, framed), scene.mean, scene.spread * direction, scales)
        return found.vector if math.isfinite(found.value) else scene.mean

    def framed(self, scene: Scene) -> tuple[int, ...]:
        """Their rows, at most as many as there are attackers, ascending."""
        others = [row for row in range(len(scene.gradients)) if row not in scene.attackers]
        along_the_mean = {row: float(scene.gradients[row].astype(np.float64) @ scene.mean) for row in others}
        farthest = sorted(others, key=lambda row: (-along_the_mean[row], row))[: len(scene.attackers)]
        return tuple(sorted(farthest or scene.attackers))

    def _value(self, scene: Scene, framed: tuple[int, ...]) -> Harm:
        def figure(aggregate: Aggregate) -> float:
            weights = aggregate.weights
            if weights is None or any(weights.get(row + 1, 0.0) < self._stealth for row in scene.attackers):
                return -math.inf
            return -sum(weights.get(row + 1, 0.0) for row in framed)

        return Harm(scene, figure)
