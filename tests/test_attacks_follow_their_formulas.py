"""Each Byzantine behaviour does what design.md section 4 says of it, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from fedpg_client.attacks import LOCAL_ATTACKS, Behaviour, make_behaviour
from fedpg_client.attacks.colluding import agreed_vector
from fedpg_common.errors import UsageError
from fedpg_common.federation import Attack
from fedpg_common.parameters import ParameterSpec, TensorSpec, Vector
from fedpg_common.trajectories import Trajectories
from gymnasium.spaces import Box, Discrete
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

LARGEST = float(np.finfo(np.float32).max)
SPEC = ParameterSpec((TensorSpec("weight", (2, 3)), TensorSpec("bias", (2,)), TensorSpec("head", (1, 4))))
OBSERVATIONS = np.zeros((6, 3), dtype=np.float32)

gradients = st.lists(st.floats(-1e3, 1e3, width=32), min_size=SPEC.size, max_size=SPEC.size).map(
    lambda values: np.array(values, dtype=np.float32)
)
seeds = st.integers(0, 2**32 - 1)


class Policy:
    """An actor that always takes action 7."""

    def sample(self, observations: NDArray[np.float32], rng: np.random.Generator) -> NDArray[Any]:
        """Sevens."""
        return np.full(len(observations), 7)

    def greedy(self, observations: NDArray[np.float32]) -> NDArray[Any]:
        """Sevens."""
        return np.full(len(observations), 7)


class Pool:
    """Accomplices who pooled beforehand."""

    def __init__(self, pooled: Sequence[Vector]) -> None:
        """The gradients to hand out."""
        self.pooled = pooled
        self.asked: list[tuple[int, Vector]] = []

    def pool(self, round_number: int, gradient: Vector) -> Sequence[Vector]:
        """See `Peers`."""
        self.asked.append((round_number, gradient))
        return self.pooled


def generator(seed: int = 0) -> np.random.Generator:
    """A generator of its own."""
    return np.random.default_rng(seed)


def tamper(attack: Attack, gradient: Vector, seed: int = 0) -> Vector:
    """What the attack makes of a gradient."""
    return make_behaviour(attack).tamper_gradient(gradient, SPEC, generator(seed))


def trajectories(lengths: Sequence[int], seed: int = 0) -> Trajectories:
    """Random trajectories of those lengths, time-major as sampled ones are."""
    times = np.concatenate([np.arange(length) for length in lengths])
    episodes = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((episodes, times))
    rng = generator(seed)
    return Trajectories(
        observations=rng.standard_normal((len(order), 3)).astype(np.float32),
        actions=rng.integers(2, size=len(order)),
        rewards=rng.standard_normal(len(order)),
        episodes=episodes[order],
        count=len(lengths),
    )


# Honest parts ---------------------------------------------------------------------------------------------------------


def overridden(behaviour: Behaviour) -> set[str]:
    """The hooks in which a behaviour differs from an honest one."""
    hooks = ("choose", "tamper_trajectories", "tamper_gradient", "collude")
    return {hook for hook in hooks if getattr(type(behaviour), hook) is not getattr(Behaviour, hook)}


def test_each_attack_changes_one_thing() -> None:
    assert overridden(make_behaviour(None)) == set()
    changed = {attack: overridden(make_behaviour(attack, Pool([]))) for attack in Attack}
    assert changed == {
        Attack.RANDOM_NOISE: {"tamper_gradient"},
        Attack.RANDOM_ACTION: {"choose"},
        Attack.SIGN_FLIPPING: {"tamper_gradient"},
        Attack.ZERO_GRADIENT: {"tamper_gradient"},
        Attack.REWARD_FLIPPING: {"tamper_trajectories"},
        Attack.RANDOM_REWARD: {"tamper_trajectories"},
        Attack.FEDPG: {"collude"},
    }


def test_an_honest_agent_follows_the_protocol() -> None:
    honest = make_behaviour(None)
    sampled = trajectories([3, 1])
    gradient = np.ones(SPEC.size, dtype=np.float32)
    assert honest.choose(Policy(), Discrete(9), generator())(OBSERVATIONS).tolist() == [7] * 6
    assert honest.tamper_trajectories(sampled, generator()) is sampled
    assert honest.tamper_gradient(gradient, SPEC, generator()) is gradient
    assert honest.collude(gradient, 1, generator()) is gradient


@pytest.mark.parametrize("attack", LOCAL_ATTACKS)
def test_an_attack_is_the_same_each_time_and_spares_its_input(attack: Attack) -> None:
    behaviour = make_behaviour(attack)
    sampled, gradient = trajectories([4, 2, 5]), generator(1).standard_normal(SPEC.size).astype(np.float32)
    rewards_before, gradient_before = sampled.rewards.copy(), gradient.copy()
    outcomes = [
        (
            behaviour.choose(Policy(), Discrete(5), generator(3))(OBSERVATIONS).tobytes(),
            behaviour.tamper_trajectories(sampled, generator(3)).rewards.tobytes(),
            behaviour.tamper_gradient(gradient, SPEC, generator(3)).tobytes(),
        )
        for _ in range(2)
    ]
    assert outcomes[0] == outcomes[1]
    assert np.array_equal(sampled.rewards, rewards_before)
    assert np.array_equal(gradient, gradient_before)


# Gradients ------------------------------------------------------------------------------------------------------------


@given(gradients, seeds)
def test_random_noise_is_three_times_as_wide_as_each_tensor(gradient: Vector, seed: int) -> None:
    noisy = tamper(Attack.RANDOM_NOISE, gradient, seed)
    uniform = generator(seed).uniform(-1, 1, SPEC.size)
    for _, place in SPEC.slices():
        spread = float(gradient[place].max()) - float(gradient[place].min())
        expected = gradient[place] + uniform[place] * 3 * spread
        np.testing.assert_allclose(noisy[place], expected, rtol=1e-6, atol=1e-6 * spread + 1e-44)


def test_random_noise_fills_its_range() -> None:
    gradient = np.array([0, 1, 0, 1, 0, 1, 5, 5, 0, 0, 0, 10], dtype=np.float32)
    noise = np.stack([tamper(Attack.RANDOM_NOISE, gradient, seed) - gradient for seed in range(2000)])
    for place, width in ((slice(0, 6), 3.0), (slice(8, 12), 30.0)):
        part = noise[:, place] / width
        assert np.abs(part).max() <= 1 + 1e-6
        assert abs(part.mean()) < 0.03
        assert part.std() == pytest.approx(1 / math.sqrt(3), rel=0.03)
    assert not noise[:, 6:8].any()  # a tensor of equal entries has no range


@given(gradients)
def test_sign_flipping_is_minus_two_and_a_half_times_the_gradient(gradient: Vector) -> None:
    np.testing.assert_allclose(tamper(Attack.SIGN_FLIPPING, gradient), -2.5 * gradient, rtol=1e-6, atol=1e-44)


@given(gradients)
def test_the_zero_gradient_is_zero(gradient: Vector) -> None:
    zeros = tamper(Attack.ZERO_GRADIENT, gradient)
    assert zeros.shape == gradient.shape
    assert not zeros.any()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("attack", LOCAL_ATTACKS)
def test_submissions_remain_finite(attack: Attack) -> None:
    gradient = np.array([LARGEST, -LARGEST] * (SPEC.size // 2), dtype=np.float32)
    for seed in range(20):
        submitted = tamper(attack, gradient, seed)
        assert submitted.dtype == np.float32
        assert np.isfinite(submitted).all()
    agreed = agreed_vector([gradient, -gradient], generator())
    assert agreed.dtype == np.float32
    assert np.isfinite(agreed).all()


# Rewards --------------------------------------------------------------------------------------------------------------

lengths = st.lists(st.integers(1, 8), min_size=1, max_size=6)


def assert_only_rewards_differ(one: Trajectories, other: Trajectories) -> None:
    """Whatever else was sampled stays."""
    assert one.count == other.count
    for name in ("observations", "actions", "episodes"):
        assert np.array_equal(getattr(one, name), getattr(other, name))


@given(lengths, seeds)
def test_reward_flipping_negates(episode_lengths: list[int], seed: int) -> None:
    sampled = trajectories(episode_lengths, seed)
    flipped = make_behaviour(Attack.REWARD_FLIPPING).tamper_trajectories(sampled, generator(seed))
    assert np.array_equal(flipped.rewards, -sampled.rewards)
    assert_only_rewards_differ(sampled, flipped)


@given(lengths, seeds)
def test_random_reward_shuffles_within_each_trajectory(episode_lengths: list[int], seed: int) -> None:
    sampled = trajectories(episode_lengths, seed)
    shuffled = make_behaviour(Attack.RANDOM_REWARD).tamper_trajectories(sampled, generator(seed))
    assert_only_rewards_differ(sampled, shuffled)
    for episode in range(sampled.count):
        own = sampled.episodes == episode
        assert sorted(shuffled.rewards[own]) == sorted(sampled.rewards[own])


def test_every_order_of_rewards_is_as_likely() -> None:
    sampled = trajectories([3, 4, 1])
    own = sampled.episodes == 0
    rank = {reward: place for place, reward in enumerate(sampled.rewards[own])}
    shuffle = make_behaviour(Attack.RANDOM_REWARD).tamper_trajectories
    rng = generator(4)
    orders: dict[tuple[int, ...], int] = {}
    for _ in range(3000):
        order = tuple(rank[reward] for reward in shuffle(sampled, rng).rewards[own])
        orders[order] = orders.get(order, 0) + 1
    assert len(orders) == 6
    assert all(400 < count < 600 for count in orders.values())


# Actions --------------------------------------------------------------------------------------------------------------


def random_actions(space: Discrete[Any] | Box, count: int) -> NDArray[Any]:
    """That many random actions."""
    choose: Callable[[NDArray[np.float32]], NDArray[Any]] = make_behaviour(Attack.RANDOM_ACTION).choose(
        Policy(), space, generator()
    )
    return choose(np.zeros((count, 3), dtype=np.float32))


def test_random_actions_are_uniform_over_a_discrete_space() -> None:
    actions = random_actions(Discrete(4, start=2), 8000)
    assert actions.dtype == np.int64
    assert np.bincount(actions).tolist() == pytest.approx([2000] * 4, rel=0.1)


def test_random_actions_are_uniform_within_a_box() -> None:
    low, high = np.array([[-1, 0, -LARGEST]], dtype=np.float32), np.array([[1, 0.5, LARGEST]], dtype=np.float32)
    actions = random_actions(Box(low, high), 8000)
    assert actions.shape == (8000, 3)
    assert actions.dtype == np.float32
    assert (actions >= low).all()
    assert (actions <= high).all()
    middle, width = (low.astype(float) + high) / 2, high.astype(float) - low
    scaled = (actions - middle) / width
    assert np.abs(scaled.mean(axis=0)).max() < 0.02
    assert scaled.std(axis=0).tolist() == pytest.approx([1 / math.sqrt(12)] * 3, rel=0.03)


def test_random_actions_are_normal_where_a_box_has_no_bounds() -> None:
    low = np.array([-np.inf, -1, -np.inf, 2], dtype=np.float32)
    high = np.array([np.inf, 1, 0, np.inf], dtype=np.float32)
    actions = random_actions(Box(low, high), 8000)
    assert actions[:, 0].std() == pytest.approx(1, rel=0.03)
    assert actions[:, 1].std() == pytest.approx(1 / math.sqrt(3), rel=0.03)
    assert actions[:, 2].max() == 0
    assert actions[:, 3].min() == 2


# Collusion ------------------------------------------------------------------------------------------------------------


@given(st.lists(gradients, min_size=1, max_size=5), seeds)
def test_colluders_go_three_half_diameters_off_their_mean(pooled: list[Vector], seed: int) -> None:
    rows = [gradient.tolist() for gradient in pooled]
    mean = np.mean(rows, axis=0)
    diameter = max(math.dist(a, b) for a in rows for b in rows)
    offset = agreed_vector(pooled, generator(seed)) - mean
    size = float(np.linalg.norm(mean)) + diameter
    assert float(np.linalg.norm(offset)) == pytest.approx(1.5 * diameter, rel=1e-4, abs=1e-5 * size + 1e-30)


def test_the_direction_is_random() -> None:
    pooled = [np.array([1, 0, 0], dtype=np.float32), np.array([-1, 0, 0], dtype=np.float32)]
    directions = np.stack([agreed_vector(pooled, generator(seed)) / 3 for seed in range(4000)])
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(directions.mean(axis=0), 0, atol=0.05)
    np.testing.assert_allclose(directions.T @ directions / 4000, np.eye(3) / 3, atol=0.03)


def test_a_lone_attacker_submits_its_own_gradient() -> None:
    own = generator(5).standard_normal(SPEC.size).astype(np.float32)
    assert np.array_equal(agreed_vector([own], generator()), own)


def test_all_colluders_submit_the_same_bits_in_a_round() -> None:
    pooled = list(generator(6).standard_normal((3, SPEC.size)).astype(np.float32))
    pools = [Pool(pooled) for _ in pooled]
    submitted = [
        make_behaviour(Attack.FEDPG, pool).collude(own, 17, generator(9)).tobytes()
        for pool, own in zip(pools, pooled, strict=True)
    ]
    assert len(set(submitted)) == 1
    assert [pool.asked for pool in pools] == [[(17, own)] for own in pooled]


def test_collusion_needs_a_channel() -> None:
    with pytest.raises(UsageError, match="channel to its accomplices"):
        make_behaviour(Attack.FEDPG)
