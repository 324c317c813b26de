"""Messages that have gone wrong in every way that a seeded generator can think of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

BYTES_MAX = 4096
"""Mutated messages are cut to this length: what is too large is another test's."""

Mutation = Callable[[Random, bytes, Sequence[bytes]], bytes]
"""Changes a message; the others are at hand to be mixed in."""


def mutate(rng: Random, message: bytes, others: Sequence[bytes]) -> bytes:
    """The message after one to three mutations."""
    for _ in range(rng.randint(1, 3)):
        message = rng.choice(MUTATIONS)(rng, message, others)
    return message[:BYTES_MAX]


def varint(value: int) -> bytes:
    """The protobuf encoding of a whole number from 0."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def _flip_bits(rng: Random, message: bytes, others: Sequence[bytes]) -> bytes:
    changed = bytearray(message)
    for _ in range(rng.randint(1, 8) if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _truncate(rng: Random, message: bytes, others: Sequence[bytes]) -> bytes:
    return message[: rng.randint(0, len(message))]


def _splice(rng: Random, message: bytes, others: Sequence[bytes]) -> bytes:
    other = rng.choice(others)
    return message[: rng.randint(0, len(message))] + other[rng.randint(0, len(other)) :]


def _append(rng: Random, message: bytes, others: Sequence[bytes]) -> bytes:
    return message + rng.choice(others)  # which protobuf takes as one message, merged


def _repeat_a_part(rng: Random, message: bytes, others: Sequence[bytes]) -> bytes:
    start = rng.randint(0, len(message))
    part = message[start : rng.randint(start, len(message))]
    return message[:start] + part * rng.randint(2, 20) + message[start:]


def _insert(rng: Random, message: bytes, others: Sequence[bytes]) -> bytes:
    place = rng.randint(0, len(message))
    return message[:place] + rng.randbytes(rng.randint(1, 32)) + message[place:]


def _add_a_field(rng: Random, message: bytes, others: Sequence[bytes]) -> bytes:
    """A number where the contract may want something else, of up to 70 bits."""
    return message + varint(rng.randint(1, 20) << 3) + varint(rng.getrandbits(rng.randint(1, 70)))


def _add_an_absurd_length(rng: Random, message: bytes, others: Sequence[bytes]) -> bytes:
    return message + varint(rng.randint(1, 20) << 3 | 2) + varint(rng.getrandbits(rng.randint(8, 64)))


def _nest(rng: Random, message: bytes, others: Sequence[bytes]) -> bytes:
    """The message as a field of itself, again and again."""
    for _ in range(rng.randint(1, 150)):
        message = varint(rng.randint(1, 8) << 3 | 2) + varint(len(message)) + message
        if len(message) > BYTES_MAX:
            break
    return message


def _replace(rng: Random, message: bytes, others: Sequence[bytes]) -> bytes:
    return rng.randbytes(rng.randint(0, 256))


MUTATIONS: tuple[Mutation, ...] = (
    _flip_bits, _truncate, _splice, _append, _repeat_a_part, _insert, _add_a_field, _add_an_absurd_length, _nest,
    _replace,
)  # fmt: skip
