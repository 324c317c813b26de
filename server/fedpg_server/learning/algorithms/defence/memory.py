"""Numbers as a state keeps them: named float32 vectors, always finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from fedpg_common.learning.parameters import Vector
from numpy.typing import NDArray

LARGEST = float(np.finfo(np.float32).max)
HALF = 2**20

Memory = Mapping[str, Vector]


def to_vector(numbers: Sequence[float] | NDArray[np.float64]) -> Vector:
    """The nearest finite float32 numbers; what is not a number becomes 0."""
    plain = np.nan_to_num(np.asarray(numbers, np.float64), nan=0.0, posinf=LARGEST, neginf=-LARGEST)
    return np.clip(plain, -LARGEST, LARGEST).astype(np.float32)


def numbers_in(memory: Memory, name: str, count: int) -> list[float]:
    """`count` numbers by name; zeros where there are none yet."""
    vector = memory.get(name)
    return [0.0] * count if vector is None else [float(number) for number in vector]


def from_count(count: int) -> tuple[float, float]:
    """A count of up to 2**44 as two numbers that float32 holds exactly."""
    high, low = divmod(count, HALF)
    return float(high), float(low)


def to_count(high: float, low: float) -> int:
    """The inverse of `from_count`."""
    return int(high) * HALF + int(low)
