"""Attacks at the edge of the server's rule: as harmful a vector as it accepts, found by running it.

All of them look along a few directions at a fixed number of distances, and then halve the last step towards the edge.
They are the project's own, but for Boundary Split, which is in `boundary_split`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
from fedpg_common.errors import UsageError
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.streams import Purpose, Role, stream

from fedpg_client.attacks.base import Context, checked_number
from fedpg_client.attacks.scene import Array, Scene, SceneAttack, scene_of, unit
from fedpg_client.attacks.searches import (
    DIRECTIONS,
    Found,
    Objective,
    Value,
    along,
    ascent,
    checked_direction,
    displacement,
    harm,
    turn,
    worst,
)

NEAREST = 0.1
TRIES = 13
REACH_MAX = 1e6
FACTORS = (0.0, 0.1, 0.3, 1.0, 3.0)
"""Of the inner product attack, which is among the candidates."""


class EdgeAttack(SceneAttack):
    """Submits the worst vector by `objective`, of those along `steps` with which the attackers keep their weight."""

    tries_rule: ClassVar[bool] = True
    objective: ClassVar[Objective] = staticmethod(ascent)

    def __init__(self, reach: float = 8.0, stealth: float = 0.0) -> None:
        """`reach` is how far to look, in honest spreads; `stealth` the weight that each attacker must keep, 0 to 1.

        A rule that gives nobody a weight is not held to the latter.
        """
        self._reach = checked_number("reach", reach, NEAREST, REACH_MAX)
        self._stealth = checked_number("stealth", stealth, 0.0, 1.0)

    def steps(self, scene: Scene) -> Iterator[Array]:
        """The directions in which to look, unit vectors (d,)."""
        raise NotImplementedError

    def pushers(self, scene: Scene) -> tuple[int, ...]:
        """The rows of the attackers that push in this round; the others are honest."""
        return scene.attackers

    def craft(self, scene: Scene) -> Array:
        """The worst of what was looked at, shape (d,)."""
        value = harm(scene, type(self).objective, self._stealth, self.pushers(scene))
        return worst(scene, self.candidates(scene, value))

    def candidates(self, scene: Scene, value: Value) -> Iterator[Found]:
        """The worst along each direction."""
        scales = [0.0, *np.geomspace(NEAREST, self._reach, TRIES).tolist()]
        for step in self.steps(scene):
            yield along(value, scene.mean, scene.spread * step, scales)


class Boundary(EdgeAttack):
    """From the honest mean against it (or another direction), up to the edge of the filter."""

    def __init__(self, direction: str = "mean", reach: float = 8.0, stealth: float = 0.0) -> None:
        """`direction` is mean, sign or std; the others are `EdgeAttack`'s."""
        super().__init__(reach, stealth)
        self._direction = checked_direction(direction)

    def steps(self, scene: Scene) -> Iterator[Array]:
        """One."""
        yield DIRECTIONS[self._direction](scene)


class WorstDown(EdgeAttack):
    """The worst of all directions and of the inner product attack: μ as far against the honest mean as can be."""

    def steps(self, scene: Scene) -> Iterator[Array]:
        """Against the mean, its signs and the deviations."""
        for direction in DIRECTIONS.values():
            yield direction(scene)

    def candidates(self, scene: Scene, value: Value) -> Iterator[Found]:
        """Those, and −factor · m."""
        yield from super().candidates(scene, value)
        yield along(value, np.zeros_like(scene.mean), -scene.mean, FACTORS)


class WorstAngle(WorstDown):
    """The same candidates, with the largest angle between μ and the honest mean."""

    objective: ClassVar[Objective] = staticmethod(turn)


class Patient(WorstDown):
    """The worst that costs no attacker its standing: each keeps a weight of at least `stealth`."""

    def __init__(self, stealth: float = 0.9, reach: float = 8.0) -> None:
        """See `EdgeAttack`."""
        super().__init__(reach, stealth)


class Drift(EdgeAttack):
    """Pushes μ in one and the same direction all through the run, as far as the filter accepts in each round."""

    objective: ClassVar[Objective] = staticmethod(displacement)

    def steps(self, scene: Scene) -> Iterator[Array]:
        """A random unit vector that follows from the run's seed alone. Raises UsageError without it."""
        if scene.context.run_seed is None:
            raise UsageError("attack drift needs the run's seed")
        rng = stream(scene.context.run_seed, Role.ATTACKERS, Purpose.ATTACK)
        yield unit(rng.standard_normal(len(scene.mean)))


class Turns(WorstDown):
    """One attacker pushes at a time, in turn, and the others are honest: nobody gets a long record."""

    unanimous: ClassVar[bool] = False

    def pushers(self, scene: Scene) -> tuple[int, ...]:
        """Round t is that of attacker t mod B, counted from 0."""
        return (scene.attackers[scene.context.round_number % len(scene.attackers)],)

    def collude(self, pooled: Mapping[int, Vector], context: Context) -> Vector:
        """See `Attack`: the worst for the round's attacker, and the others' own gradient."""
        if context.agent - 1 not in self.pushers(scene_of(pooled, context)):
            return pooled[context.agent]
        return super().collude(pooled, context)
