"""Attackers that share a process make a search once, with the outcome that each of them would have found alone."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from fedpg_client.attacks import Context
from fedpg_client.attacks.attacker import build_attacker
from fedpg_client.attacks.base import Attack, Knowledge
from fedpg_client.attacks.scene import Array, Scene, SceneAttack
from fedpg_client.attacks.shared import SharedSearches
from fedpg_common.choices import Choice
from fedpg_common.errors import UsageError
from fedpg_common.learning.parameters import Vector
from fedpg_common.shipped import ATTACKS
from support.scenes import random_round

EVERYBODY = (1, 2, 3)


class Counted(SceneAttack):
    """Counts its counted, in which it waits until it is let go."""

    counted: ClassVar[list[int]] = []

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def craft(self, scene: Scene) -> Array:
        Counted.counted.append(scene.context.agent)
        return self.factor * scene.mean


@pytest.fixture(autouse=True)
def no_searches() -> None:
    Counted.counted.clear()


def all_three(shared: SharedSearches, pooled: Mapping[int, Vector], plain: Context, attack: Attack) -> list[Vector]:
    """What three attackers submit that come at the same time."""
    together = threading.Barrier(len(EVERYBODY))

    def one(agent: int) -> Vector:
        together.wait(300)
        return shared.collude(attack, pooled, replace(plain, agent=agent))

    with ThreadPoolExecutor(len(EVERYBODY)) as threads:
        return list(threads.map(one, EVERYBODY))


def test_threads_that_come_together_search_once_and_have_copies_of_their_own() -> None:
    pooled, plain = random_round(0)
    first, second, third = all_three(SharedSearches(), pooled, plain, Counted())
    assert len(Counted.counted) == 1
    first[:] = 0.0
    assert second.tobytes() == third.tobytes() == Counted().collude(pooled, plain).tobytes()


def test_another_round_other_gradients_or_other_settings_are_another_search() -> None:
    shared = SharedSearches()
    pooled, plain = random_round(0)
    shared.collude(Counted(), pooled, plain)
    other, _ = random_round(1)
    for attack, vectors, context in (
        (Counted(), pooled, replace(plain, round_number=plain.round_number + 1)),
        (Counted(), other, plain),
        (Counted(2.0), pooled, plain),
        (Counted(), pooled, replace(plain, aggregator=Choice("krum"))),
        (Counted(), pooled, replace(plain, honest={**plain.honest, 4: pooled[1]})),
    ):
        found = shared.collude(attack, vectors, context)
        assert found.tobytes() == attack.collude(vectors, context).tobytes()
    assert len(Counted.counted) == 1 + 2 * 5
    assert shared.collude(Counted(), pooled, plain).tobytes() == Counted().collude(pooled, plain).tobytes()


def test_a_search_that_fails_fails_for_all() -> None:
    class Failing(Counted):
        def craft(self, scene: Scene) -> Array:
            super().craft(scene)
            raise UsageError("no")

    shared = SharedSearches()
    pooled, plain = random_round(0)
    for _ in EVERYBODY:
        with pytest.raises(UsageError, match=r"^no$"):
            shared.collude(Failing(), pooled, plain)
    assert len(Counted.counted) == 1


@pytest.mark.parametrize("name", ATTACKS.shipped)
def test_every_shipped_attack_submits_what_it_would_alone(name: str) -> None:
    attack = build_attacker(Choice(name)).attack
    if attack.knowledge < Knowledge.COLLUDERS:
        return
    shared = SharedSearches()
    for agent in EVERYBODY:
        # A stream of its own for each call: an attack that draws would go on where the last one stopped.
        pooled, plain = random_round(3, Choice("krum"), agent=agent, round_number=7)
        alone = attack.collude(*random_round(3, Choice("krum"), agent=agent, round_number=7))
        np.testing.assert_array_equal(shared.collude(attack, pooled, plain), alone)
