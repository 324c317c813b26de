"""Small rounds in which attackers know every gradient, for the tests of omniscient attacks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from fedpg_client.attacks import Context
from fedpg_client.attacks.scene import Scene, scene_of
from fedpg_common.choices import Choice
from fedpg_common.learning.aggregators import Aggregate, Memory, Votes
from fedpg_common.learning.parameters import Vector
from numpy.typing import ArrayLike
from support.attacks import context


class Fading:
    """A rule that weighs the votes by how near they are to the median, gradually less with distance."""

    def aggregate(self, votes: Votes, memory: Memory) -> Aggregate:
        """The weighted mean; a vote at 0.03 from the median counts for a half."""
        rows = votes.matrix.astype(np.float64)
        distances = np.sqrt(np.square(rows - np.median(rows, axis=0)).sum(axis=1))
        weights = 1.0 / (1.0 + np.square(distances / 0.03))
        weights /= weights.max()
        mean = (weights @ rows / weights.sum()).astype(np.float32)
        return Aggregate(mean, "fading", dict(zip(votes.agents, weights.tolist(), strict=True)))


def vectors(rows: ArrayLike) -> list[Vector]:
    """Gradients (d,), one per row."""
    return list(np.asarray(rows, np.float32))


def known_round(
    honest: Sequence[Vector], own: Sequence[Vector], rule: Choice | None = None, **changes: Any
) -> tuple[dict[int, Vector], Context]:
    """What `collude` is given where the first agents attack and submit `own`, and the others `honest`."""
    count = len(own)
    attackers = tuple(range(1, count + 1))
    plain = context(
        agent=1,
        agents=count + len(honest),
        attackers=attackers,
        honest={count + 1 + place: vector for place, vector in enumerate(honest)},
        aggregator=rule,
        run_seed=11,
    )
    return dict(zip(attackers, own, strict=True)), changed(plain, **changes)


def changed(plain: Context, **changes: Any) -> Context:
    """The context with other values."""
    return dataclasses.replace(plain, **changes)


def random_round(seed: int, rule: Choice | None = None, **changes: Any) -> tuple[dict[int, Vector], Context]:
    """Three attackers among ten, whose gradients lie as close together as CartPole's: 0.03 from a mean of 0.02."""
    rng = np.random.default_rng(seed)
    mean = 0.02 * rng.standard_normal(20) / np.sqrt(20.0)
    rows = vectors(mean + 0.03 * rng.standard_normal((10, 20)) / np.sqrt(20.0))
    return known_round(rows[3:], rows[:3], rule, **changes)


def scene(pooled: dict[int, Vector], plain: Context) -> Scene:
    """The round as the attackers see it."""
    return scene_of(pooled, plain)
