"""Named random streams: every draw of a run follows from (seed, role, agent, round, purpose).

A stream depends on nothing else, so that a run's parameters do not depend on timing, arrival order, process
layout or restarts (docs/algorithm.md, "Randomness").

The server draws with the run's seed. It tells each agent a seed of that agent's own, and the attackers share a secret:
both follow from the run's seed by SHA-256, so that nobody computes the server's streams, or another's, from what it was
told. A run seed that can be guessed (0, 1, …) can still be found by trying: `random_seed` draws one that cannot.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

SEED_BITS = 63
"""A run's seed fits into a signed 64-bit integer, as TOML and the store have them."""


class Role(StrEnum):
    """Who draws."""

    SERVER = "server"
    AGENT = "agent"
    ATTACKERS = "attackers"
    FAULTS = "faults"


class Purpose(StrEnum):
    """What for. Two draws for different purposes never share a stream."""

    INITIAL_PARAMETERS = "initial-parameters"
    BATCH_SIZE = "batch-size"
    INNER_STEPS = "inner-steps"
    ENVIRONMENT = "environment"
    ACTION = "action"
    EVALUATION = "evaluation"
    ATTACK = "attack"
    HOSTILITY = "hostility"
    BACKOFF = "backoff"
    TARGETS = "targets"
    GLOBAL_RANDOM = "global-random"
    MAKING = "making"


def stream(
    seed: int, role: Role, purpose: Purpose, *, agent: int = 0, round_number: int = 0, step: int = 0
) -> np.random.Generator:
    """The generator for one purpose of one participant in one round. `seed` is any whole number.

    `agent` is the 1-based agent index, 0 for the server or the attackers as a group; `step` numbers the inner
    steps of a round. The name is hashed (SHA-256), so streams are independent and stable across versions of Python.
    """
    name = f"{seed}/{role}/{agent}/{round_number}/{purpose}/{step}".encode()
    words = np.frombuffer(hashlib.sha256(name).digest(), dtype="<u4")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words.tolist())))


def agent_seed(run_seed: int, agent: int) -> int:
    """The seed of one agent's own streams, in [0, 2**64): what the server tells it at Join."""
    return _number(f"fedpg/agent-seed/{run_seed}/{agent}")


def attackers_secret(run_seed: int, attackers: Iterable[int]) -> str:
    """What the attackers that collude with each other share: 32 hexadecimal digits, for whoever configures them."""
    return hashlib.sha256(f"fedpg/attackers-secret/{run_seed}/{_listed(attackers)}".encode()).hexdigest()[:32]


def secretless(attackers: Iterable[int]) -> str:
    """The secret of attackers that were given none. It is not one: whoever knows the list can compute it."""
    return f"attackers {_listed(attackers)}"


def attackers_seed(secret: str) -> int:
    """The seed of the attackers' common stream, in [0, 2**64), from their secret."""
    return _number(f"fedpg/attackers-seed/{secret}")


def random_seed() -> int:
    """A seed for a run that nobody can guess, from the operating system's randomness."""
    return secrets.randbits(SEED_BITS)


def _listed(agents: Iterable[int]) -> str:
    return ",".join(map(str, sorted(agents)))


def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def episode_seeds(generator: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Seeds for `count` episodes, shape (count,), each in [0, 2**31), as Gymnasium's `reset(seed=...)` takes."""
    return generator.integers(0, 2**31, size=count, dtype=np.int64)
