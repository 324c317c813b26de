"""The aggregator history measures deviations in noise that a minority cannot choose; its settings are checked."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from fedpg_common.choices import Choice
from fedpg_common.errors import UsageError
from fedpg_common.learning.aggregators import Memory, RoundPlan, build_aggregator
from fedpg_common.learning.aggregators.history import History, beta_of
from fedpg_common.learning.aggregators.scale import scale_of
from hypothesis import given
from support.histories import honest, seeds, votes_of, weights_of


def test_the_scale_is_the_servers_or_one_that_a_minority_cannot_choose() -> None:
    rng = np.random.default_rng(7)
    rows = honest(rng)
    assert scale_of(votes_of(rows, scale=3.0)) == 3.0
    assert 0.8 < scale_of(votes_of(rows, scale=None)) < 1.2
    for size in (0.0, 1e30):
        rows[:3] = size
        assert 0.5 < scale_of(votes_of(rows, scale=None)) < 1.5
    assert scale_of(votes_of(np.zeros((3, 4)), scale=None)) > 0
    assert scale_of(votes_of(np.full((1, 4), 2.0), scale=None)) == 4.0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"horizons": [3, 9]}, "ascend from 1"),
        ({"horizons": [1, 9, 3]}, "ascend"),
        ({"horizons": "many"}, "list"),
        ({"horizons": [1, float("inf")]}, "rounds"),
        ({"knee": 0}, "knee must be a positive number"),
        ({"power": "steep"}, "power"),
        ({"cut": 1.0}, "cut must be larger than knee, which is 1.25, not 1.0"),
        ({"sketch": 3}, "sketch"),
        ({"sigma": 0.06}, "its settings are horizons"),
    ],
)
def test_wrong_settings_are_refused_with_one_sentence(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match="aggregator history: ") as error:
        build_aggregator(Choice("history", wrong))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_betas_are_those_of_their_horizons() -> None:
    assert [beta_of(horizon) for horizon in (1, 3, 9, 39, 199)] == pytest.approx([0, 0.5, 0.8, 0.95, 0.99])


@pytest.mark.parametrize("is_lopsided", [False, True])
@pytest.mark.parametrize("attackers", ["none", "far away", "in the middle"])
def test_the_scale_is_about_right_without_the_servers_help(is_lopsided: bool, attackers: str) -> None:
    """Whatever four of ten do about it. A single round's votes are a third too small where noise is lopsided."""
    rng = np.random.default_rng(1)
    memory: Memory = {}
    scales, heard = [], []
    for _ in range(40):
        rows = honest(rng, is_lopsided=is_lopsided)
        if attackers != "none":
            rows[:4] = rows[4:].mean(axis=0)
        if attackers == "far away":
            rows[:4, 0] += 2.0
        result = History().aggregate(votes_of(rows, scale=None), memory)
        memory = result.memory
        scales.append(result.figures["scale"])
        heard.append(weights_of(result)[4:].mean())
    assert 0.7 < np.mean(scales[9:]) < 1.25
    assert np.mean(heard) > 0.6


@given(seeds)
def test_votes_of_smaller_batches_may_scatter_more(seed: int) -> None:
    """The scale remembers noise per trajectory: four times the batch is half of the scale."""
    rng = np.random.default_rng(seed)
    small, large = honest(rng), 0.5 * honest(rng)
    first = votes_of(small, scale=None)
    memory = History().aggregate(first, {}).memory
    second = dataclasses.replace(votes_of(large, scale=None), plan=RoundPlan(2, 64, 3))
    result = History().aggregate(second, memory)
    assert result.figures["scale"] == pytest.approx(0.5, rel=0.25)
