"""An attack with a schedule is honest, bit for bit, in the other rounds; no attack has to know of its schedule."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedpg_client.attacks import HONEST, Attacker, build_attacker
from fedpg_common.choices import Choice
from fedpg_common.errors import UsageError
from fedpg_common.federation import Federation
from fedpg_common.learning.parameters import Vector
from support.attacks import ON_THE_LEARNING, SPEC, attack_named, context
from support.lab import digests, run_federation, small_federation

ROUNDS = range(1, 13)


@pytest.mark.parametrize(
    ("settings", "active"),
    [
        ({}, {*ROUNDS}),
        ({"starts_at": 5}, {5, 6, 7, 8, 9, 10, 11, 12}),
        ({"ends_at": 3}, {1, 2, 3}),
        ({"starts_at": 4, "ends_at": 4}, {4}),
        ({"on": 1, "off": 1}, {1, 3, 5, 7, 9, 11}),
        ({"on": 2, "off": 3}, {1, 2, 6, 7, 11, 12}),
        ({"starts_at": 4, "on": 2, "off": 1}, {4, 5, 7, 8, 10, 11}),
        ({"starts_at": 4, "ends_at": 8, "on": 3, "off": 1}, {4, 5, 6, 8}),
        ({"starts_at": 500}, set()),
    ],
)
def test_a_schedule_says_in_which_rounds_it_attacks(settings: dict[str, int], active: set[int]) -> None:
    for name in ON_THE_LEARNING:
        attacker = build_attacker(Choice(name, settings))
        assert {number for number in ROUNDS if attacker.in_round(number) is not HONEST} == active


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"starts_at": 0}, "starts_at must be a whole number of rounds from 1, not 0"),
        ({"starts_at": 1.5}, "starts_at must be a whole number of rounds from 1, not 1.5"),
        ({"ends_at": True}, "ends_at must be a whole number"),
        ({"ends_at": "soon"}, "ends_at must be a whole number of rounds from 1, not 'soon'"),
        ({"starts_at": 5, "ends_at": 4}, "ends_at must not be before starts_at: 4 is before round 5"),
        ({"on": 3}, "on and off go together"),
        ({"off": 3}, "on and off go together"),
        ({"on": 0, "off": 1}, "on must be a whole number"),
        ({"start_at": 5}, "its settings are scale (default 3.0)"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_with_a_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_attacker(Choice("random-noise", settings))
    assert str(caught.value).startswith("attack random-noise: ")
    assert sentence in str(caught.value)


class NotedPool:
    """Notes what it is given."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.exchanged: list[int] = []
        self.contributed: list[int] = []

    def exchange(self, round_number: int, gradient: Vector) -> Mapping[int, Vector]:
        """Somebody else's is there."""
        self.exchanged.append(round_number)
        return {2: gradient, 3: -gradient}

    def contribute(self, round_number: int, gradient: Vector) -> None:
        """See `Pool`."""
        self.contributed.append(round_number)


def test_who_colludes_contributes_in_the_honest_rounds_too() -> None:
    pool = NotedPool()
    attacker = dataclasses.replace(build_attacker(Choice("fedpg", {"on": 1, "off": 2})), attackers=(2, 3), pool=pool)
    gradient = np.arange(SPEC.size, dtype=np.float32)
    submitted = {number: attacker.agree(gradient, context(round_number=number)) for number in range(1, 7)}
    assert (pool.exchanged, pool.contributed) == ([1, 4], [2, 3, 5, 6])
    assert [number for number, vector in submitted.items() if vector is gradient] == [2, 3, 5, 6]


def test_who_does_not_collude_never_meets_anybody() -> None:
    pool = NotedPool()
    gradient = np.ones(SPEC.size, np.float32)
    assert Attacker(attack_named("sign-flipping"), pool=pool).agree(gradient, context()) is gradient
    assert not pool.exchanged


def scheduled(**settings: int) -> Federation:
    """A small federation of which agent 1 flips the sign, on a schedule."""
    described = small_federation(agents=4, byzantine=1, attack="sign-flipping")
    return dataclasses.replace(described, byzantine={1: Choice("sign-flipping", {"factor": -20, **settings})})


def test_a_federation_is_honest_until_the_attack_starts(tmp_path: Path) -> None:
    honest = digests(run_federation(small_federation(agents=4, byzantine=0), tmp_path / "honest", 4))
    attacked = digests(run_federation(scheduled(), tmp_path / "attacked", 4))
    assert len(honest) > 2
    assert attacked[0] != honest[0]
    sleeper = digests(run_federation(scheduled(starts_at=3), tmp_path / "sleeper", 4))
    assert sleeper[:2] == honest[:2]
    assert sleeper[2] != honest[2]
