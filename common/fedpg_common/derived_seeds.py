"""The seeds of a federation's participants, derived from the run's.

The server draws with the run's seed. It tells each agent a seed of that agent's own, and the attackers share a secret:
both follow from the run's seed by SHA-256, so that nobody computes the server's streams, or another's, from what it was
told. A run seed that can be guessed (0, 1, …) can still be found by trying: `random_seed` draws one that cannot.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable

SEED_BITS = 63
"""A run's seed fits into a signed 64-bit integer, as TOML and the store have them."""


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
