"""The layout of a flat parameter vector θ ∈ R^d: which slice is which tensor."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PARAMETERS_MAX = 2**27
"""The longest vector. Its message is 2^29 bytes: below SQLite's 10^9 for a value, and twice that, which a server reads
of a message that is too large, below gRPC's 2^31."""

Vector = NDArray[np.float32]
"""A flat parameter or gradient vector, shape (d,), float32."""


@dataclass(frozen=True)
class TensorSpec:
    """One named tensor of a policy."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class ParameterSpec:
    """The tensors of a policy in the order in which they lie, row-major, in the flat vector."""

    tensors: tuple[TensorSpec, ...]

    @property
    def size(self) -> int:
        """d, the length of the flat vector."""
        return sum(tensor.size for tensor in self.tensors)

    def slices(self) -> Iterator[tuple[TensorSpec, slice]]:
        """Each tensor with its place in the flat vector."""
        start = 0
        for tensor in self.tensors:
            yield tensor, slice(start, start + tensor.size)
            start += tensor.size

    def views(self, vector: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """The tensors as views into `vector` (d,), by name."""
        return {tensor.name: vector[place].reshape(tensor.shape) for tensor, place in self.slices()}


def digest(vector: Vector) -> str:
    """SHA-256 of the vector's little-endian float32 bytes, in hexadecimal: equal digests mean equal bits."""
    return hashlib.sha256(np.ascontiguousarray(vector, dtype="<f4").tobytes()).hexdigest()
