"""Named random streams: every draw of a run follows from (seed, role, agent, round, purpose).

A stream depends on nothing else, so that a run's parameters do not depend on timing, arrival order, process
layout or restarts (docs/algorithm.md, "Randomness").

The server draws with the run's seed, each agent with a seed of its own: see `derived_seeds`.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


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
    INTERPOLATION = "interpolation"
    EVALUATION = "evaluation"
    ATTACK = "attack"
    HOSTILITY = "hostility"
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
    name = stream_words(seed, role, purpose, agent=agent, round_number=round_number, step=step)
    words = np.frombuffer(name, dtype="<u4")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words.tolist())))


def stream_words(
    seed: int, role: Role, purpose: Purpose, *, agent: int = 0, round_number: int = 0, step: int = 0
) -> bytes:
    """A stream's name, hashed: eight little-endian words of 32 bits, the entropy of its generator."""
    name = f"{seed}/{role.value}/{agent}/{round_number}/{purpose.value}/{step}"
    return hashlib.sha256(name.encode()).digest()


def episode_seeds(generator: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Seeds for `count` episodes, shape (count,), each in [0, 2**31), as Gymnasium's `reset(seed=...)` takes."""
    return generator.integers(0, 2**31, size=count, dtype=np.int64)
