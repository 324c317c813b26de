"""What Byzantine agents do: attacks on the learning, and on the protocol (`protocol`).

Attacks are chosen by name (`fedpg_common.shipped.ATTACKS`) and built by `build_attacker`.
"""

from fedpg_client.attacks.attacker import Attacker, Pool, build_attacker, knowledge_of
from fedpg_client.attacks.base import (
    HONEST,
    Attack,
    Choose,
    Context,
    Knowledge,
    Target,
    checked_number,
    to_finite_float32,
)

__all__ = [
    "HONEST", "Attack", "Attacker", "Choose", "Context", "Knowledge", "Pool", "Target", "build_attacker",
    "checked_number", "knowledge_of", "to_finite_float32",
]  # fmt: skip
