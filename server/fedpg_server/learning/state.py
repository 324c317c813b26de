"""What one round hands to the next: named vectors. The store knows names and bytes, and nothing of what they mean.

`theta` is θ. `adam/m` and `adam/v` are Adam's moments; `aggregator/…` is the aggregator's memory and `algorithm/…` the
algorithm's. `evaluation/returns` is the round's evaluation, for algorithms that need it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from fedpg_common.learning.parameters import Vector

THETA, ADAM_M, ADAM_V = "theta", "adam/m", "adam/v"
AGGREGATOR, ALGORITHM = "aggregator", "algorithm"
EVALUATION, RETURNS = "evaluation", "returns"
NAME = re.compile(r"[A-Za-z0-9_]+([-/.][A-Za-z0-9_]+)*", re.ASCII)
"""What a vector may be called."""


@dataclass(frozen=True, eq=False)
class State:
    """A run after a round, to the bit."""

    vectors: Mapping[str, Vector] = field(default_factory=dict)
    """By name; float32 of any length (n,)."""
    steps: int = 0
    """Optimizer steps taken so far."""

    @property
    def theta(self) -> Vector:
        """θ, shape (d,)."""
        return self.vectors[THETA]

    def memory(self, owner: str) -> dict[str, Vector]:
        """The vectors named `owner`/…, by the rest of their names."""
        prefix = f"{owner}/"
        return {name.removeprefix(prefix): self.vectors[name] for name in self.vectors if name.startswith(prefix)}

    def with_vectors(self, vectors: Mapping[str, Vector], steps: int | None = None) -> State:
        """The same state with these vectors in place of those of the same names, or beside the others."""
        return State({**self.vectors, **vectors}, self.steps if steps is None else steps)

    def with_memory(self, owner: str, memory: Mapping[str, Vector]) -> State:
        """The same state with this memory in place of the owner's earlier one."""
        others = {name: vector for name, vector in self.vectors.items() if not name.startswith(f"{owner}/")}
        return State({**others, **{f"{owner}/{name}": vector for name, vector in memory.items()}}, self.steps)


def digest_of(state: State) -> bytes:
    """SHA-256 of the whole state: names, lengths, bytes and steps. Equal digests mean equal bits."""
    result = hashlib.sha256(f"{state.steps}\n".encode())
    for name in sorted(state.vectors):
        data = to_bytes(state.vectors[name])
        result.update(f"{name}\n{len(data)}\n".encode())
        result.update(data)
    return result.digest()


def to_bytes(vector: Vector) -> bytes:
    """Little-endian float32."""
    return np.ascontiguousarray(vector, dtype="<f4").tobytes()


def from_bytes(data: bytes) -> Vector:
    """The inverse of `to_bytes`; read-only."""
    return np.frombuffer(data, dtype="<f4").astype(np.float32, copy=False)


def check_memory(memory: object, what: str) -> dict[str, Vector]:
    """A memory as the store can keep it: copies, float32. Raises ValueError that names what is wrong."""
    if not isinstance(memory, Mapping):
        raise ValueError(f"{what} must be a mapping of name to vector, not {type(memory).__name__}")
    checked = {}
    for name, vector in memory.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(f"{what}: {name!r} is not a name of letters, digits, - and /")
        array = np.asarray(vector)
        if array.ndim != 1 or array.dtype.kind not in "fiub":
            raise ValueError(f"{what}: {name} must be a vector of numbers, not of shape {array.shape}, {array.dtype}")
        with np.errstate(over="ignore"):
            checked[name] = array.astype(np.float32)
        checked[name].flags.writeable = False
    return checked
