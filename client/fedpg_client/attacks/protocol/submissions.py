"""Attacks that lie in what is submitted."""

from __future__ import annotations

from collections import deque

import numpy as np
from fedpg.v1 import federation_pb2 as pb
from fedpg_common.learning.parameters import Vector
from fedpg_common.transport import wire

from fedpg_client.attacks.protocol.base import AttackerCalls, ProtocolAttack

REPLAYED_MAX = 4
"""Earlier submissions that a replaying agent keeps and sends again."""
BAD_VALUES = (np.nan, np.inf, -np.inf)


class Silence(ProtocolAttack):
    """Joins and fetches every round, and never votes."""


class Replay(ProtocolAttack):
    """Votes honestly, then sends its last four submissions again: as they were, and as if they were this round's."""

    casts_vote = True

    def __init__(self) -> None:
        """Nothing to replay yet."""
        self._earlier: deque[pb.SubmitUpdateRequest] = deque(maxlen=REPLAYED_MAX)

    def on_submit(self, honest: pb.SubmitUpdateRequest, calls: AttackerCalls, rng: np.random.Generator) -> None:
        """See the class. The first kind is a duplicate, the second a conflict with the vote."""
        for earlier in self._earlier:
            calls.send(earlier)
            relabelled = pb.SubmitUpdateRequest()
            relabelled.CopyFrom(earlier)
            relabelled.round, relabelled.run_id = honest.round, honest.run_id
            relabelled.parameters_digest = honest.parameters_digest
            calls.send(relabelled)
        self._earlier.append(honest)


class Equivocation(ProtocolAttack):
    """Votes honestly, then submits another gradient for the same round."""

    casts_vote = True

    def on_submit(self, honest: pb.SubmitUpdateRequest, calls: AttackerCalls, rng: np.random.Generator) -> None:
        """See the class."""
        calls.send(with_vector(honest, noise_like(honest, rng)))


class StaleRound(ProtocolAttack):
    """Never votes; submits its gradient for the round before."""

    def on_submit(self, honest: pb.SubmitUpdateRequest, calls: AttackerCalls, rng: np.random.Generator) -> None:
        """See the class."""
        honest.round -= 1  # from 1: round 0 is before every round
        calls.send(honest)


class WrongShape(ProtocolAttack):
    """Never votes; submits a gradient that is too long, too short, or claims to have two dimensions."""

    def on_submit(self, honest: pb.SubmitUpdateRequest, calls: AttackerCalls, rng: np.random.Generator) -> None:
        """See the class."""
        vector = noise_like(honest, rng)
        match int(rng.integers(3)):
            case 0:
                calls.send(with_vector(honest, np.append(vector, np.float32(1))))
            case 1:
                calls.send(with_vector(honest, vector[:-1]))
            case _:
                honest.gradient.shape.append(1)
                calls.send(honest)


class NotFinite(ProtocolAttack):
    """Never votes; submits a gradient in which some values are NaN or infinite."""

    def on_submit(self, honest: pb.SubmitUpdateRequest, calls: AttackerCalls, rng: np.random.Generator) -> None:
        """See the class."""
        vector = noise_like(honest, rng)
        vector[rng.integers(vector.size, size=3)] = rng.choice(np.array(BAD_VALUES, np.float32), size=3)
        calls.send(with_vector(honest, vector))


class Oversized(ProtocolAttack):
    """Never votes; submits one and a half times the largest message of the run, and then four times."""

    def on_submit(self, honest: pb.SubmitUpdateRequest, calls: AttackerCalls, rng: np.random.Generator) -> None:
        """See the class."""
        limit_bytes = calls.joined.message_bytes_max
        for size_bytes in (limit_bytes * 3 // 2, limit_bytes * 4):
            calls.send(with_vector(honest, np.zeros(size_bytes // wire.FLOAT32.itemsize, np.float32)))


class Impersonation(ProtocolAttack):
    """Never votes in its own name; submits noise in the name of the next agent, and of one that does not exist.

    Without TLS nobody can tell, and the noise is that agent's vote if it arrives before the agent's own.
    """

    def on_submit(self, honest: pb.SubmitUpdateRequest, calls: AttackerCalls, rng: np.random.Generator) -> None:
        """See the class."""
        agents = calls.joined.agents
        for name in (calls.target.index % agents + 1, agents + 1):
            if name != calls.target.index:
                forged = with_vector(honest, noise_like(honest, rng))
                forged.agent = name
                calls.send(forged)


def noise_like(honest: pb.SubmitUpdateRequest, rng: np.random.Generator) -> Vector:
    """Standard normal noise as long as the gradient, shape (d,)."""
    size = len(honest.gradient.data) // wire.FLOAT32.itemsize
    return rng.standard_normal(size, dtype=np.float32)


def with_vector(honest: pb.SubmitUpdateRequest, vector: Vector) -> pb.SubmitUpdateRequest:
    """The submission with another gradient, whose digest is right."""
    changed = pb.SubmitUpdateRequest()
    changed.CopyFrom(honest)
    changed.gradient.CopyFrom(wire.vector_to_tensor(vector))
    changed.gradient_digest = wire.tensor_digest(changed.gradient)
    return changed
