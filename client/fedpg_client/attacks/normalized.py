"""The Normalized attack: turn the aggregate as far as the server's rule lets it be turned.

Source: Fang, Wang, Gong, "Provably Robust Federated Reinforcement Learning", WWW 2025, section 4. The attackers submit
ζ · g/‖g‖ with g = a + λΔ, where a is the normalised aggregate of everybody's honest gradients and Δ points against
their mean, and search λ and then ζ for the largest D = ‖a − â‖, â the normalised aggregate under attack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from fedpg_common.checks import is_whole, show
from fedpg_common.learning.aggregators import Aggregate

from fedpg_client.attacks.base import Knowledge, checked_number
from fedpg_client.attacks.scene import Array, Scene, SceneAttack, length, unit
from fedpg_client.attacks.searches import Harm

DECAY = 1.0 / 3.0
"""Of the search's step, in each iteration: all steps together go 1.5 times as far as the first."""
AHEAD = 3
"""How many steps are tried together, whatever comes of each, where the rule can be tried on many vectors at once."""
THRESHOLD = 1e-4
"""The search ends when its step is this part of the first. (The paper does not say when.)"""
NUMBER_MAX = 1e6
GRID_MAX = 1000
LAMBDAS = (0.01, 3.0)
"""Where the grid looks: below, g is the aggregate's direction, and above it is Δ's."""
ZETAS = (0.1, 10.0)
"""In lengths of the honest mean."""

DELTAS: dict[str, Callable[[Array], Array]] = {
    "sgn": lambda gradients: -np.sign(gradients.mean(axis=0)),
    "uv": lambda gradients: -unit(gradients.mean(axis=0)),
    "std": lambda gradients: -gradients.std(axis=0),
}
"""Δ (d,) from everybody's gradients (K, d), by the paper's names."""


class Normalized(SceneAttack):
    """The paper's search: from λ_0 and ζ_0, with steps that decay by a third."""

    tries_rule: ClassVar[bool] = True

    def __init__(
        self,
        delta: str = "sgn",
        lambda_step: float = 0.83,
        zeta_step: float = 0.03,
        lambda_start: float = 0.0,
        zeta_start: float | None = None,
    ) -> None:
        """The paper's settings for CartPole. It does not say where the search starts.

        `delta` is sgn, uv or std; `zeta_start` is the length of the honest aggregate if it is None.
        """
        if not (isinstance(delta, str) and delta in DELTAS):
            raise ValueError(f"delta must be one of {', '.join(DELTAS)}, not {show(delta)}")
        self._delta = DELTAS[delta]
        self._lambda_step = checked_number("lambda_step", lambda_step, 0.0, NUMBER_MAX)
        self._zeta_step = checked_number("zeta_step", zeta_step, 0.0, NUMBER_MAX)
        self._lambda_start = checked_number("lambda_start", lambda_start, -NUMBER_MAX, NUMBER_MAX)
        self._zeta_start = None if zeta_start is None else checked_number("zeta_start", zeta_start, 0.0, NUMBER_MAX)

    def craft(self, scene: Scene) -> Array:
        """ζ · g/‖g‖, shape (d,)."""
        aggregate, delta = honest_aggregate(scene), self._delta(scene.gradients.astype(np.float64))
        turned = deviation(scene, aggregate)
        a = unit(aggregate)
        lambda_ = climb(Line(turned, a, delta), self._lambda_start, self._lambda_step)
        direction = unit(a + lambda_ * delta)
        start = length(aggregate) if self._zeta_start is None else self._zeta_start
        zeta = climb(Line(turned, np.zeros_like(a), direction), start, self._zeta_step)
        return zeta * direction


class PartialNormalized(Normalized):
    """The same by attackers who know their own gradients and the rule: they take theirs for the others' in turn."""

    knowledge: ClassVar[Knowledge] = Knowledge.COLLUDERS


class NormalizedGrid(Normalized):
    """The best point of a grid over λ and ζ, and of the paper's search: an upper bound of the latter."""

    def __init__(self, lambdas: int = 8, zetas: int = 20, delta: str = "sgn") -> None:
        """`lambdas` and `zetas` are how many values to try: the rule is run once for each pair."""
        super().__init__(delta)
        for name, value in (("lambdas", lambdas), ("zetas", zetas)):
            if not (is_whole(value) and 1 <= value <= GRID_MAX):
                raise ValueError(f"{name} must be a whole number from 1 to {GRID_MAX}, not {show(value)}")
        self._lambdas, self._zetas = lambdas, zetas

    def craft(self, scene: Scene) -> Array:
        """ζ · g/‖g‖, shape (d,)."""
        aggregate, delta = honest_aggregate(scene), self._delta(scene.gradients.astype(np.float64))
        turned = deviation(scene, aggregate)
        a = unit(aggregate)
        best = super().craft(scene)
        best_value = turned(best)
        for lambda_ in np.geomspace(*LAMBDAS, self._lambdas):
            direction = unit(a + lambda_ * delta)
            vectors = [zeta * direction for zeta in length(scene.mean) * np.geomspace(*ZETAS, self._zetas)]
            turned.foresee(vectors)
            for vector in vectors:
                if (value := turned(vector)) > best_value:
                    best, best_value = vector, value
        return best


def honest_aggregate(scene: Scene) -> Array:
    """AR{g} before the attack, (d,): the plain mean where the rule keeps nobody."""
    vector = scene.aggregate(None).vector
    return scene.gradients.astype(np.float64).mean(axis=0) if vector is None else vector.astype(np.float64)


def deviation(scene: Scene, aggregate: Array) -> Harm:
    """D as a function of what all attackers submit (d,): 0 to 2, or −1 where the rule keeps nobody."""
    before = unit(aggregate)

    def turned(after: Aggregate) -> float:
        return -1.0 if after.vector is None else length(before - unit(after.vector.astype(np.float64)))

    return Harm(scene, turned)


@dataclass(frozen=True, eq=False)
class Line:
    """D along a line base + x · step, both (d,), as a function of x."""

    value: Harm
    base: Array
    step: Array

    def __call__(self, x: float) -> float:
        """At one place."""
        return self.value(self.base + x * self.step)

    def foresee(self, places: Iterable[float]) -> None:
        """At these places it may be asked."""
        self.value.foresee(self.base + x * self.step for x in places)


def climb(value: Callable[[float], float], x: float, step: float) -> float:
    """The paper's search: a step up where that increases the value, else one down; each a third of the one before."""
    current, smallest, done = value(x), step * THRESHOLD, 0
    while step > smallest:
        if done % AHEAD == 0 and isinstance(value, Line):
            value.foresee(_places(x, step, AHEAD))
        ahead = value(x + step)
        if ahead > current:
            x, current = x + step, ahead
        else:
            x, current = x - step, value(x - step)
        step *= DECAY
        done += 1
    return x


def _places(x: float, step: float, steps: int) -> list[float]:
    """All places that so many steps from x may come to."""
    if not steps:
        return []
    ahead, back = x + step, x - step
    return [ahead, back, *_places(ahead, step * DECAY, steps - 1), *_places(back, step * DECAY, steps - 1)]
