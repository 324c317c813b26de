"""A_{i,t} is the discounted reward-to-go, whitened per trajectory, and 0 where there is nothing to whiten."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fedpg_common.learning.gradient import advantages
from fedpg_common.learning.trajectories import Trajectories
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

Rewards = list[list[float]]

numbers = st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-6)
batches = st.lists(st.lists(numbers, min_size=1, max_size=30), min_size=1, max_size=6)
gammas = st.floats(0.0, 1.0)


def trajectories(rewards: Rewards) -> Trajectories:
    """Trajectories with those rewards, laid out time-major as `sample` does."""
    order = [
        (t, i) for t in range(max(len(episode) for episode in rewards)) for i, e in enumerate(rewards) if t < len(e)
    ]
    return Trajectories(
        observations=np.zeros((len(order), 1), np.float32),
        actions=np.zeros(len(order), np.int64),
        rewards=np.array([rewards[i][t] for t, i in order]),
        episodes=np.array([i for _, i in order]),
        count=len(rewards),
    )


def by_episode(batch: Trajectories, values: NDArray[np.float32]) -> list[list[float]]:
    """The values of each episode in the order of time."""
    return [values[batch.episodes == i].tolist() for i in range(batch.count)]


def whitened(rewards: Rewards, gamma: float) -> list[list[float]]:
    """The definition, one trajectory and one sum at a time."""
    result = []
    for episode in rewards:
        to_go = [math.fsum(gamma ** (k - t) * episode[k] for k in range(t, len(episode))) for t in range(len(episode))]
        mean = math.fsum(to_go) / len(to_go)
        squares = math.fsum((r - mean) ** 2 for r in to_go)
        std = math.sqrt(squares / (len(to_go) - 1)) if len(to_go) > 1 else 0.0
        largest = max(abs(r) for r in to_go)
        result.append([(r - mean) / std if std > 1e-9 * largest else 0.0 for r in to_go])
    return result


def test_by_hand() -> None:
    """Rewards 1, 1, 1 at γ = 1/2: R = 7/4, 3/2, 1; mean 17/12; std √(7/48). Rewards 0, 3: R = 3/2, 3."""
    batch = trajectories([[1, 1, 1], [0, 3]])
    first, second = by_episode(batch, advantages(batch, 0.5))
    std = math.sqrt(7 / 48)
    assert first == pytest.approx([(7 / 4 - 17 / 12) / std, (3 / 2 - 17 / 12) / std, (1 - 17 / 12) / std])
    assert second == pytest.approx([-1 / math.sqrt(2), 1 / math.sqrt(2)])


@given(batches, gammas)
def test_the_definition(rewards: Rewards, gamma: float) -> None:
    """Whatever the lengths and the discount."""
    batch = trajectories(rewards)
    actual = advantages(batch, gamma)
    assert actual.dtype == np.float32
    for episode, expected in zip(by_episode(batch, actual), whitened(rewards, gamma), strict=True):
        assert episode == pytest.approx(expected, rel=1e-3, abs=1e-4)


@given(batches, gammas)
def test_mean_zero_and_unit_variance(rewards: Rewards, gamma: float) -> None:
    """Or all zero."""
    batch = trajectories(rewards)
    for episode in by_episode(batch, advantages(batch, gamma)):
        assert abs(sum(episode)) < 1e-3
        assert not any(episode) or np.std(episode, ddof=1) == pytest.approx(1.0, abs=1e-4)


@given(batches, gammas, st.floats(1e-3, 1e3), st.floats(-100, 100))
def test_scale_and_offset_of_the_rewards_to_go_do_not_matter(
    rewards: Rewards, gamma: float, scale: float, offset: float
) -> None:
    """R → scale · R + offset, for which each reward but the last gains (1 − γ) of the offset."""
    changed = [
        [scale * r + offset * (1 - gamma if t < len(episode) - 1 else 1) for t, r in enumerate(episode)]
        for episode in rewards
    ]
    before, after = trajectories(rewards), trajectories(changed)
    for episode, other, reference in zip(
        by_episode(before, advantages(before, gamma)),
        by_episode(after, advantages(after, gamma)),
        rewards,
        strict=True,
    ):
        # Where rewards to go are tiny beside the offset, float64 cannot tell them apart any more.
        if np.ptp(reference) * scale > 1e-3 * (1 + abs(offset)):
            assert other == pytest.approx(episode, rel=1e-3, abs=1e-3)


@given(st.floats(-1e9, 1e9), gammas, st.integers(1, 400))
def test_a_constant_reward_to_go_gives_zero(value: float, gamma: float, length: int) -> None:
    """Though its terms, rounded as they come, differ in the last places."""
    rewards = [value * (1.0 - gamma)] * (length - 1) + [value]
    batch = trajectories([rewards, [0.0] * length, [0.5] * 2])
    values = advantages(batch, gamma)
    assert np.array_equal(values[batch.episodes < 2], np.zeros(2 * length, np.float32))


@given(st.lists(numbers, min_size=1, max_size=5), gammas)
def test_episodes_of_one_step_give_zero(rewards: list[float], gamma: float) -> None:
    """Never NaN."""
    assert np.array_equal(advantages(trajectories([[r] for r in rewards]), gamma), np.zeros(len(rewards), np.float32))


@given(batches, gammas)
def test_a_trajectory_does_not_depend_on_the_others(rewards: Rewards, gamma: float) -> None:
    """Bit for bit."""
    together = trajectories(rewards)
    for episode, own in zip(rewards, by_episode(together, advantages(together, gamma)), strict=True):
        alone = trajectories([episode])
        assert advantages(alone, gamma).tolist() == own
