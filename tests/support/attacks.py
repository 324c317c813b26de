"""What tests of attacks share: a small policy's layout, and a round's context."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import numpy as np
from fedpg_client.attacks import Attack, Context, build_attacker
from fedpg_common.choices import Choice
from fedpg_common.learning.parameters import ParameterSpec, TensorSpec
from fedpg_common.learning.policies import Policy
from fedpg_common.shipped import ATTACKS
from fedpg_common.tasks import find_task

SPEC = ParameterSpec((TensorSpec("weight", (2, 3)), TensorSpec("bias", (2,)), TensorSpec("head", (1, 4))))
ON_THE_PROTOCOL = (
    "replay", "equivocation", "stale-round", "wrong-shape", "not-finite", "oversized", "impersonation", "slow-loris",
    "flood", "silence", "garbage",
)  # fmt: skip
ON_THE_LEARNING = tuple(name for name in ATTACKS.shipped if name not in ON_THE_PROTOCOL)


class StubPolicy:
    """As much of a policy as the attacks on gradients look at."""

    spec = SPEC


def generator(seed: int = 0) -> np.random.Generator:
    """A generator of its own."""
    return np.random.default_rng(seed)


def context(seed: int = 0, **changes: Any) -> Context:
    """A round of agent 2 among seven, of whom 2, 3 and 5 attack, whose streams all follow from `seed`."""
    plain = Context(
        agent=2,
        agents=7,
        attackers=(2, 3, 5),
        round_number=17,
        batch_size=4,
        task=find_task("CartPole-v1"),
        policy=cast(Policy, StubPolicy()),
        theta=np.zeros(SPEC.size, np.float32),
        actions=generator(seed),
        rng=generator(seed),
        common=generator(seed),
    )
    return dataclasses.replace(plain, **changes)


def attack_named(name: str, **settings: Any) -> Attack:
    """A shipped attack with these settings."""
    return build_attacker(Choice(name, settings)).attack
