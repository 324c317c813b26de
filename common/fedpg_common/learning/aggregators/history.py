"""Votes weighed by each agent's history: docs/defence.md has the equations, and what can be promised."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpg_common.checks import is_number, is_whole, show
from fedpg_common.learning.aggregators.base import Aggregate, Memory, Votes
from fedpg_common.learning.aggregators.checks import check_positive
from fedpg_common.learning.aggregators.history_trials import Trials, can_be_tried
from fedpg_common.learning.aggregators.scale import scale_of
from fedpg_common.learning.aggregators.shares import geometric_median
from fedpg_common.learning.aggregators.sketch import Sketch, dimensions_for
from fedpg_common.learning.parameters import Vector

HORIZONS = (1, 3, 9, 39, 199)
HORIZON_MAX = 1e6
LENGTH_MAX = 20.0
"""A vote counts as at most so many scales away from the middle of the round."""
LEAST_WEIGHT = 1e-3
"""With a smaller sum of weights there is no μ."""
HEARD = 0.25
"""Who has a larger weight is counted as heard."""
NUMBERS = 2**20
"""Numbers of memory per horizon up to which nothing is sketched: 4 MB each."""
DIMENSIONS_MIN = 512
COUNT_MAX = 2.0**20
"""Rounds of an agent's that are counted; the longest horizon has long forgotten its beginning by then."""
COUNTS, SEED, LENGTHS = "rounds", "sketch", "length"
OWN_HORIZON = 9.0
"""Rounds over which the scale is estimated from the votes, where the server does not tell it."""

Numbers = NDArray[np.float64]


class History:
    """μ = Σ w_k μ⁽ᵏ⁾ / Σ w_k of this round's votes, where w_k looks at k's deviations now and over several horizons.

    Over each horizon, agents' mean deviations from the rounds' geometric medians are compared with their own geometric
    median, in units of what an honest agent's noise leaves. Whom one horizon finds far away has little weight.
    There is neither σ nor a radius.

    Who is absent has no weight, and its history stays as it is. A newcomer has none: it is judged by what it has sent
    so far. Nobody is banned: who behaves is heard again when the horizons have forgotten.
    """

    equivariant: ClassVar[tuple[str, ...]] = ("shift", "scale")

    def __init__(
        self,
        horizons: Sequence[float] = HORIZONS,
        knee: float = 1.25,
        power: float = 3.0,
        cut: float = 3.0,
        sketch: int | None = None,
    ) -> None:
        """`horizons` are in rounds, ascending from 1, which is this round alone.

        A deviation q of up to `knee` has weight 1, then (knee/q)^power, and 0 from `cut` on. `sketch` is how many
        numbers are kept of each agent and horizon; by default all, or as many as fit into 4 MB per horizon.
        """
        self._horizons = _checked_horizons(horizons)
        for name, value in (("knee", knee), ("power", power), ("cut", cut)):
            if value is None:
                raise ValueError(f"{name} must be a positive number")
            check_positive(name, value)
        if not cut > knee:
            raise ValueError(f"cut must be larger than knee, which is {knee:g}, not {show(cut)}")
        if sketch is not None and not (is_whole(sketch) and 16 <= sketch <= 2**24):
            raise ValueError(f"sketch must be a whole number from 16 to {2**24}, not {show(sketch)}")
        self._knee, self._power, self._cut, self._sketch = float(knee), float(power), float(cut), sketch

    def aggregate(self, votes: Votes, memory: Memory) -> Aggregate:
        """Weigh and average. Sums run in the order of the agents."""
        scale = scale_of(votes)
        deviations, now = _deviations(votes, scale)
        past = _Past(memory, votes, self._dimensions(votes))
        kept: dict[str, Vector] = {}
        if votes.server_scale is None:
            own, kept[LENGTHS] = past.own_scale(now * scale)
            deviations, now, scale = deviations * (scale / own), now * (scale / own), own
        sketched = past.sketch(deviations)
        counts = past.counts + 1.0
        weights, figures = np.ones(len(votes.agents)), {"scale": scale}
        for horizon in self._horizons:
            if horizon > 1:
                rows = past.moved(horizon, sketched)
                kept[_name(horizon)] = past.merged(_name(horizon), rows)
                q = relative_distances(rows, counts, horizon)
            else:
                q = now
            weights = np.minimum(weights, self.weight(q))
            figures[f"deviation-{horizon:g}"] = float(q.max())
        figures["heard"] = float((weights > HEARD).sum())
        return Aggregate(
            vector=weighted_mean(votes.matrix, weights),
            rule="history",
            weights=dict(zip(votes.agents, weights.tolist(), strict=True)),
            figures=figures,
            memory={**kept, **past.bookkeeping()},
        )

    def try_each(
        self, votes: Votes, rows: tuple[int, ...], vectors: NDArray[np.float32]
    ) -> list[Aggregate | None] | None:
        """See `base.Tryable`."""
        if not can_be_tried(votes, rows):
            return None
        return Trials(votes, rows, self.weight, LEAST_WEIGHT, LENGTH_MAX).of(vectors)

    def weight(self, q: Numbers) -> Numbers:
        """ψ(q): 1 up to the knee, then falling, 0 from the cut on. The largest q ψ(q) is the knee."""
        falling = np.minimum(1.0, (self._knee / np.maximum(q, self._knee)) ** self._power)
        return np.where(q >= self._cut, 0.0, falling)

    def _dimensions(self, votes: Votes) -> int:
        size: int = votes.matrix.shape[1]
        if self._sketch is not None:
            return min(self._sketch, size)
        return dimensions_for(votes.federation_size, size, NUMBERS, DIMENSIONS_MIN)


class _Past:
    """An aggregator's memory, as far as it concerns the agents that voted."""

    def __init__(self, memory: Memory, votes: Votes, dimensions: int) -> None:
        self._memory, self._dimensions = memory, dimensions
        self._rows = np.array(votes.agents) - 1
        self._all_counts = _padded(memory.get(COUNTS), max(votes.federation_size, int(self._rows.max()) + 1))
        self._batch_size = votes.plan.batch_size
        self.counts: Numbers = self._all_counts[self._rows].astype(np.float64)
        """Rounds in which each of them has voted before, (k,)."""
        self._seed = memory[SEED] if SEED in memory else _seed_from(votes)
        self.sketch = Sketch([int(word) for word in self._seed], votes.matrix.shape[1], dimensions)

    def own_scale(self, lengths: Numbers) -> tuple[float, Vector]:
        """s_t from how far voters lie from the middle (k,), now and in the rounds before, and everybody's memory of it.

        Each has the root of a moving mean of B |x − c|², and the lower median of these over √B_t is s_t. A single
        round's median would be a third too small where most of the noise lies in one direction: half of the squares
        of one number are less than 0.45 of their mean.
        """
        everyone = _padded(self._memory.get(LENGTHS), len(self._all_counts))
        beta = beta_of(OWN_HORIZON)
        before = beta * np.square(everyone[self._rows].astype(np.float64))
        roots = np.sqrt(before + (1.0 - beta) * self._batch_size * np.square(lengths))
        everyone[self._rows] = np.minimum(roots, np.finfo(np.float32).max)
        ordered = np.sort(roots / np.sqrt(1.0 - beta ** (self.counts + 1.0)))
        scale = float(ordered[(len(ordered) - 1) // 2]) / math.sqrt(self._batch_size)
        return scale or 1.0, everyone

    def moved(self, horizon: float, deviations: Numbers) -> Numbers:
        """D ← β D + (1 − β) times this round's deviations (k, m), of those that voted."""
        beta = beta_of(horizon)
        earlier = self._earlier(_name(horizon))[self._rows]
        result: Numbers = beta * earlier + (1.0 - beta) * deviations
        return result

    def merged(self, name: str, rows: Numbers) -> Vector:
        """The whole horizon's memory, flat, with these rows in place of those that voted."""
        everyone = self._earlier(name)
        everyone[self._rows] = rows
        return everyone.astype(np.float32).ravel()

    def bookkeeping(self) -> dict[str, Vector]:
        """The other named vectors."""
        counts = self._all_counts.copy()
        counts[self._rows] = np.minimum(counts[self._rows] + 1.0, COUNT_MAX)
        is_exact = self.sketch.dimensions == self.sketch.size
        return {COUNTS: counts, **({} if is_exact else {SEED: self._seed})}

    def _earlier(self, name: str) -> Numbers:
        flat = _padded(self._memory.get(name), len(self._all_counts) * self._dimensions)
        return flat.astype(np.float64).reshape(-1, self._dimensions)


def beta_of(horizon: float) -> float:
    """β of the moving mean whose variance is that of a mean over `horizon` rounds: (1 + β)/(1 − β) = horizon."""
    return (horizon - 1.0) / (horizon + 1.0)


def relative_distances(rows: Numbers, counts: Numbers, horizon: float) -> Numbers:
    """How far each moving mean (k, m) of `counts` rounds (k,) lies from the middle, in honest noise: q (k,).

    For honest agents its root mean square is about 1, whatever the horizon and the number of rounds. An agent with a
    longer history than most others is measured against a middle that is less certain than its own mean.
    """
    beta = beta_of(horizon)
    begun = 1.0 - beta**counts
    variances = (1.0 - beta) / (1.0 + beta) * (1.0 - beta ** (2.0 * counts)) / begun**2
    _, distances = geometric_median(rows / begun[:, None])
    of_the_middle = np.maximum(np.median(variances) - variances, 0.0) / len(rows)
    result: Numbers = distances / np.sqrt(variances + of_the_middle)
    return result


def weighted_mean(matrix: NDArray[np.float32], weights: Numbers) -> Vector | None:
    """Σ w x / Σ w over the rows of (k, d), in their order; None if hardly any weight is left."""
    total = float(weights.sum())
    if total < LEAST_WEIGHT:
        return None
    result = np.zeros(matrix.shape[1])
    for weight, row in zip(weights, matrix, strict=True):
        if weight > 0:
            result += weight / total * row.astype(np.float64)
    return result.astype(np.float32)


def _deviations(votes: Votes, scale: float) -> tuple[Numbers, Numbers]:
    """Each vote minus the round's geometric median, in scales, (k, d), and its length (k,).

    Before the median is taken, votes are shortened to `LENGTH_MAX` about the coordinate-wise median: one of 1e30 would
    drown the others' digits.
    """
    ordered = np.sort(votes.matrix, axis=0)
    count = len(ordered)
    middle = 0.5 * (ordered[(count - 1) // 2].astype(np.float64) + ordered[count // 2])
    rows = votes.matrix.astype(np.float64)
    rows -= middle
    rows /= scale
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    rows *= np.minimum(1.0, LENGTH_MAX / np.maximum(lengths, 1e-300))[:, None]
    shares, distances = geometric_median(rows)
    rows -= shares @ rows
    return rows, distances


def _seed_from(votes: Votes) -> Vector:
    """Sixteen bytes from all of a round's votes, whatever their order: nobody knows them who does not know every vote.

    An attacker that knew the sketch could send what it does not show.
    """
    digests = sorted(hashlib.sha256(np.ascontiguousarray(row, "<f4").tobytes()).digest() for row in votes.matrix)
    return np.frombuffer(hashlib.sha256(b"".join(digests)).digest()[:16], np.uint8).astype(np.float32)


def _padded(vector: Vector | None, length: int) -> Vector:
    """The vector with zeros behind it, at least `length` long: a copy."""
    known = np.zeros(0, np.float32) if vector is None else vector
    return np.concatenate([known, np.zeros(max(0, length - len(known)), np.float32)])


def _name(horizon: float) -> str:
    return f"mean-{horizon:g}"


def _checked_horizons(horizons: object) -> tuple[float, ...]:
    if not isinstance(horizons, list | tuple) or not horizons:
        raise ValueError(f"horizons must be a list of numbers of rounds, not {show(horizons)}")
    for horizon in horizons:
        if not (is_number(horizon) and 1 <= horizon <= HORIZON_MAX):
            raise ValueError(f"a horizon must be a number of rounds from 1 to {HORIZON_MAX:g}, not {show(horizon)}")
    if horizons[0] != 1 or any(later <= earlier for earlier, later in pairwise(horizons)):
        raise ValueError(f"horizons must ascend from 1, not {show(horizons)}")
    return tuple(float(horizon) for horizon in horizons)
