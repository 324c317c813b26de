"""How attackers look for the worst vector that the server's rule accepts: deterministic, in a fixed number of tries."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from fedpg_common.checks import show
from fedpg_common.learning.aggregators import Aggregate

from fedpg_client.attacks.scene import Array, Scene, length, unit

Value = Callable[[Array], float]
"""How much harm a vector (d,) does: −∞ where the rule throws everybody out, or an attacker too far."""

AHEAD = 4
"""How many halvings are tried together, whatever comes of each, where the rule can be tried on many vectors at once."""
REFINEMENTS = 12
"""Halvings of the last step: the edge of a filter is then known to 1/4096 of it."""

DIRECTIONS: dict[str, Callable[[Scene], Array]] = {
    "mean": lambda scene: -unit(scene.mean),
    "sign": lambda scene: -unit(np.sign(scene.mean)),
    "std": lambda scene: -unit(scene.deviations),
}
"""Where an attack pushes to, as unit vectors (d,): against the honest mean, its signs, or the deviations."""


def checked_direction(name: object) -> str:
    """A direction's name. Raises ValueError with one sentence."""
    if not (isinstance(name, str) and name in DIRECTIONS):
        raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}, not {show(name)}")
    return name


class Objective(Protocol):
    """What an attack maximises: a figure of μ (d,) in a scene."""

    def __call__(self, scene: Scene, mu: Array) -> float:
        """The larger, the worse for the federation."""
        ...


def displacement(scene: Scene, mu: Array) -> float:
    """‖μ − m‖, m the honest mean."""
    return length(mu - scene.mean)


def turn(scene: Scene, mu: Array) -> float:
    """‖μ/‖μ‖ − m/‖m‖‖ = √(2 − 2 cos of the angle between them), at most 2."""
    return length(unit(mu) - unit(scene.mean))


def ascent(scene: Scene, mu: Array) -> float:
    """−⟨μ, m⟩ / ⟨m, m⟩: at −1 μ is as good as the honest mean, above 0 it leads uphill."""
    return -float(mu @ scene.mean) / max(float(scene.mean @ scene.mean), 1e-30)


@dataclass(frozen=True, eq=False)
class Harm:
    """A figure of what the rule makes of the round, as a function of what is submitted."""

    scene: Scene
    figure: Callable[[Aggregate], float]
    pushers: tuple[int, ...] | None = None
    """Who submits it (rows); all attackers by default."""

    def __call__(self, vector: Array) -> float:
        """Of a vector (d,)."""
        return self.figure(self.scene.aggregate(vector, self.pushers))

    def foresee(self, vectors: Iterable[Array]) -> None:
        """Of these vectors it may be asked."""
        self.scene.foresee(vectors, self.pushers)


def harm(scene: Scene, objective: Objective, stealth: float = 0.0, pushers: tuple[int, ...] | None = None) -> Harm:
    """The objective as a function of what is submitted.

    A vector with which one of `pushers` (rows; all attackers by default) has a smaller weight than `stealth` does none,
    where the rule gives weights.
    """
    watched = scene.attackers if pushers is None else pushers

    def figure(aggregate: Aggregate) -> float:
        if aggregate.vector is None:
            return -math.inf
        weights = aggregate.weights
        if weights is not None and any(weights.get(row + 1, 0.0) < stealth for row in watched):
            return -math.inf
        return objective(scene, aggregate.vector.astype(np.float64))

    return Harm(scene, figure, pushers)


@dataclass(frozen=True)
class Found:
    """The best of a search."""

    vector: Array
    value: float


def along(value: Value, base: Array, step: Array, scales: Iterable[float]) -> Found:
    """The best of base + k · step (both (d,)) for the k of an ascending grid, and then between it and its neighbours.

    Each side is halved `REFINEMENTS` times towards the better end, which finds the edge of a filter where the value
    grows up to it and falls beyond.
    """
    grid = list(scales)
    _foresee(value, base, step, grid)
    values = [value(base + scale * step) for scale in grid]
    place = int(np.argmax(values))
    best_scale, best_value = grid[place], values[place]
    if not math.isfinite(best_value):
        return Found(base + best_scale * step, best_value)
    for neighbour in (place + 1, place - 1):
        if not 0 <= neighbour < len(grid):
            continue
        far = grid[neighbour]
        for done in range(REFINEMENTS):
            if done % AHEAD == 0:
                _foresee(value, base, step, _middles(best_scale, far, AHEAD))
            middle = 0.5 * (best_scale + far)
            tried = value(base + middle * step)
            if tried > best_value:
                best_scale, best_value = middle, tried
            else:
                far = middle
    return Found(base + best_scale * step, best_value)


def _foresee(value: Value, base: Array, step: Array, scales: Iterable[float]) -> None:
    if isinstance(value, Harm):
        value.foresee(base + scale * step for scale in scales)


def _middles(near: float, far: float, halvings: int) -> list[float]:
    """All places at which so many halvings of the interval may look."""
    if not halvings:
        return []
    middle = 0.5 * (near + far)
    return [middle, *_middles(near, middle, halvings - 1), *_middles(middle, far, halvings - 1)]


def worst(scene: Scene, found: Iterable[Found]) -> Array:
    """The vector (d,) of the greatest value, the first of equals; the honest mean where none does any harm."""
    best = max(found, key=lambda one: one.value, default=None)
    return best.vector if best is not None and math.isfinite(best.value) else scene.mean
