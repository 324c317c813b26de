"""Byzantine behaviours (design.md section 4): what each attack changes of an honest agent's work."""

from __future__ import annotations

from collections.abc import Mapping

from fedpg_common.choices import Choice
from fedpg_common.errors import UsageError

from fedpg_client.attacks.actions import RandomAction
from fedpg_client.attacks.behaviour import Behaviour
from fedpg_client.attacks.colluding import FedPGAttack, Peers
from fedpg_client.attacks.gradients import RandomNoise, SignFlipping, ZeroGradient
from fedpg_client.attacks.rewards import RandomReward, RewardFlipping

__all__ = ["LOCAL_ATTACKS", "Behaviour", "FedPGAttack", "Peers", "make_behaviour"]

LOCAL_ATTACKS: Mapping[str, type[Behaviour]] = {
    "random-noise": RandomNoise,
    "random-action": RandomAction,
    "sign-flipping": SignFlipping,
    "zero-gradient": ZeroGradient,
    "reward-flipping": RewardFlipping,
    "random-reward": RandomReward,
}
"""The attacks that an agent can do on its own."""


def make_behaviour(attack: Choice | None, peers: Peers | None = None) -> Behaviour:
    """The behaviour of an honest agent (None) or of an attacker.

    Only the colluding attack meets `peers`; without them it raises UsageError, for a forgotten channel would make it
    no attack at all.
    """
    if attack is None:
        return Behaviour()
    if attack.name != "fedpg":
        return LOCAL_ATTACKS[attack.name]()
    if peers is None:
        raise UsageError(f"the attack {attack.name} needs a channel to its accomplices")
    return FedPGAttack(peers)
