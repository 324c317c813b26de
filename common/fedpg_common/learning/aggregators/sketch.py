"""Fixed random projections that keep distances: for memories that would be too long."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class Sketch:
    """A linear map of vectors of length d to m < d numbers; with m ≥ d it leaves them as they are.

    The coordinates are put into m buckets of ⌊d/m⌋ or ⌈d/m⌉ by a random permutation, and each bucket holds their sum
    with random signs. For any x that was chosen without knowing the draw, |Sx|² has the expectation |x|² and a
    standard deviation of at most √(2/m) |x|² (docs/defence.md, "Memory"). Being linear, the sketch of a moving mean is
    the moving mean of the sketches.
    """

    def __init__(self, words: Sequence[int], size: int, dimensions: int) -> None:
        """`words` seed the draw; `size` is d and `dimensions` m, both at least 1."""
        self.size = size
        self.dimensions = min(dimensions, size)
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(list(words))))
        self._order = rng.permutation(size)
        self._signs = rng.choice(np.array([-1.0, 1.0]), size)

    def __call__(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sketches of the rows of (k, d): shape (k, m)."""
        if self.dimensions == self.size:
            return matrix
        result = np.zeros((len(matrix), self.dimensions))
        for layer in range(math.ceil(self.size / self.dimensions)):
            places = slice(layer * self.dimensions, (layer + 1) * self.dimensions)
            columns = self._order[places]
            result[:, : len(columns)] += matrix.take(columns, axis=1) * self._signs[places]
        return result


def dimensions_for(rows: int, size: int, numbers: int, least: int) -> int:
    """How long a row may be so that `rows` of them have at most about `numbers` numbers: from `least` to `size`."""
    return min(size, max(least, numbers // max(rows, 1)))
