"""Byzantine behaviours (docs/algorithm.md, "Attacks"): what each attack changes of an honest agent's work."""

from __future__ import annotations

from collections.abc import Mapping

from fedpg_common.errors import UsageError
from fedpg_common.federation import Attack

from fedpg_client.attacks.actions import RandomAction
from fedpg_client.attacks.behaviour import Behaviour
from fedpg_client.attacks.colluding import FedPGAttack, Peers
from fedpg_client.attacks.gradients import RandomNoise, SignFlipping, ZeroGradient
from fedpg_client.attacks.rewards import RandomReward, RewardFlipping

__all__ = ["LOCAL_ATTACKS", "Behaviour", "FedPGAttack", "Peers", "make_behaviour"]

LOCAL_ATTACKS: Mapping[Attack, type[Behaviour]] = {
    Attack.RANDOM_NOISE: RandomNoise,
    Attack.RANDOM_ACTION: RandomAction,
    Attack.SIGN_FLIPPING: SignFlipping,
    Attack.ZERO_GRADIENT: ZeroGradient,
    Attack.REWARD_FLIPPING: RewardFlipping,
    Attack.RANDOM_REWARD: RandomReward,
}
"""The attacks that an agent can do on its own."""


def make_behaviour(attack: Attack | None, peers: Peers | None = None) -> Behaviour:
    """The behaviour of an honest agent (None) or of an attacker.

    Only the colluding attack meets `peers`; without them it raises UsageError, for a forgotten channel would make it
    no attack at all.
    """
    if attack is None:
        return Behaviour()
    if attack is not Attack.FEDPG:
        return LOCAL_ATTACKS[attack]()
    if peers is None:
        raise UsageError(f"the attack {attack.value} needs a channel to its accomplices")
    return FedPGAttack(peers)
