"""Each attack on the learning does what docs/algorithm.md, "Attacks", says, with its settings, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from fedpg_client.attacks import HONEST, Attack, build_attacker
from fedpg_client.attacks.colluding import agreed_vector
from fedpg_common.choices import Choice
from fedpg_common.errors import UsageError
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.trajectories import Trajectories
from gymnasium.spaces import Box, Discrete
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.attacks import ON_THE_LEARNING, SPEC, attack_named, context, generator

LARGEST = float(np.finfo(np.float32).max)
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


def tamper(name: str, gradient: Vector, seed: int = 0, **settings: float) -> Vector:
    """What the attack makes of a gradient."""
    return attack_named(name, **settings).tamper_gradient(gradient, context(seed))


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


def overridden(attack: Attack) -> set[str]:
    """The hooks in which an attack differs from an honest agent."""
    hooks = ("calls", "choose", "tamper_trajectories", "tamper_gradient", "collude")
    return {hook for hook in hooks if getattr(type(attack), hook) is not getattr(Attack, hook)}


def test_each_attack_changes_one_thing() -> None:
    assert overridden(HONEST) == set()
    # The attacks of the literature all combine what attackers know, but for one that looks at its own states first.
    assert {name: overridden(attack_named(name)) for name in ON_THE_LEARNING} == {
        **{name: {"collude"} for name in ON_THE_LEARNING},
        "boundary-split": {"tamper_trajectories", "tamper_gradient"},
        "random-noise": {"tamper_gradient"},
        "random-action": {"choose"},
        "constant-action": {"choose"},
        "sign-flipping": {"tamper_gradient"},
        "zero-gradient": {"tamper_gradient"},
        "reward-flipping": {"tamper_trajectories"},
        "random-reward": {"tamper_trajectories"},
    }


def test_an_honest_agent_follows_the_protocol() -> None:
    sampled = trajectories([3, 1])
    gradient = np.ones(SPEC.size, dtype=np.float32)
    assert HONEST.choose(Policy(), Discrete(9), context())(OBSERVATIONS).tolist() == [7] * 6
    assert HONEST.tamper_trajectories(sampled, context()) is sampled
    assert HONEST.tamper_gradient(gradient, context()) is gradient
    assert HONEST.collude({1: -gradient, 2: gradient}, context()) is gradient


@pytest.mark.parametrize("name", ON_THE_LEARNING)
def test_an_attack_is_the_same_each_time_and_spares_its_input(name: str) -> None:
    attack = attack_named(name)
    sampled, gradient = trajectories([4, 2, 5]), generator(1).standard_normal(SPEC.size).astype(np.float32)
    rewards_before, gradient_before = sampled.rewards.copy(), gradient.copy()
    outcomes = [
        (
            attack.choose(Policy(), Discrete(5), context(3, run_seed=1))(OBSERVATIONS).tobytes(),
            attack.tamper_trajectories(sampled, context(3, run_seed=1)).rewards.tobytes(),
            attack.tamper_gradient(gradient, context(3, run_seed=1)).tobytes(),
            attack.collude({2: gradient, 3: -gradient}, context(3, run_seed=1)).tobytes(),
        )
        for _ in range(2)
    ]
    assert outcomes[0] == outcomes[1]
    assert np.array_equal(sampled.rewards, rewards_before)
    assert np.array_equal(gradient, gradient_before)


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("random-noise", {"scale": -1}, "attack random-noise: scale must be a number from 0 to 1e+30, not -1"),
        ("random-noise", {"scale": "wide"}, "scale must be a number from 0 to 1e+30, not 'wide'"),
        ("random-noise", {"scale": True}, "scale must be a number"),
        ("random-noise", {"scale": math.nan}, "scale must be a number"),
        ("sign-flipping", {"factor": math.inf}, "factor must be a number from -1e+30 to 1e+30, not inf"),
        ("sign-flipping", {"scale": 1}, "its settings are factor (default -2.5)"),
        ("fedpg", {"deviation": [3]}, "deviation must be a number from 0 to 1e+30, not [3]"),
        ("zero-gradient", {"scale": 1}, "attack zero-gradient: unknown setting 'scale'"),
        ("replay", {"factor": 1}, "its settings are none"),
    ],
)
def test_a_setting_that_is_not_one_is_refused_with_a_sentence(
    name: str, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError) as caught:
        build_attacker(Choice(name, settings))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


# Gradients ------------------------------------------------------------------------------------------------------------


@given(gradients, seeds)
def test_random_noise_is_three_times_as_wide_as_each_tensor(gradient: Vector, seed: int) -> None:
    noisy = tamper("random-noise", gradient, seed)
    uniform = generator(seed).uniform(-1, 1, SPEC.size)
    for _, place in SPEC.slices():
        spread = float(gradient[place].max()) - float(gradient[place].min())
        expected = gradient[place] + uniform[place] * 3 * spread
        np.testing.assert_allclose(noisy[place], expected, rtol=1e-6, atol=1e-6 * spread + 1e-44)


def test_random_noise_fills_its_range() -> None:
    gradient = np.array([0, 1, 0, 1, 0, 1, 5, 5, 0, 0, 0, 10], dtype=np.float32)
    noise = np.stack([tamper("random-noise", gradient, seed) - gradient for seed in range(2000)])
    for place, width in ((slice(0, 6), 3.0), (slice(8, 12), 30.0)):
        part = noise[:, place] / width
        assert np.abs(part).max() <= 1 + 1e-6
        assert abs(part.mean()) < 0.03
        assert part.std() == pytest.approx(1 / math.sqrt(3), rel=0.03)
    assert not noise[:, 6:8].any()  # a tensor of equal entries has no range


@given(gradients)
def test_sign_flipping_is_minus_two_and_a_half_times_the_gradient(gradient: Vector) -> None:
    np.testing.assert_allclose(tamper("sign-flipping", gradient), -2.5 * gradient, rtol=1e-6, atol=1e-44)


@given(gradients)
def test_the_zero_gradient_is_zero(gradient: Vector) -> None:
    zeros = tamper("zero-gradient", gradient)
    assert zeros.shape == gradient.shape
    assert not zeros.any()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ON_THE_LEARNING)
def test_submissions_remain_finite(name: str) -> None:
    gradient = np.array([LARGEST, -LARGEST] * (SPEC.size // 2), dtype=np.float32)
    for seed in range(20):
        submitted = tamper(name, gradient, seed)
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
    flipped = attack_named("reward-flipping").tamper_trajectories(sampled, context(seed))
    assert np.array_equal(flipped.rewards, -sampled.rewards)
    assert_only_rewards_differ(sampled, flipped)


@given(lengths, seeds)
def test_random_reward_shuffles_within_each_trajectory(episode_lengths: list[int], seed: int) -> None:
    sampled = trajectories(episode_lengths, seed)
    shuffled = attack_named("random-reward").tamper_trajectories(sampled, context(seed))
    assert_only_rewards_differ(sampled, shuffled)
    for episode in range(sampled.count):
        own = sampled.episodes == episode
        assert sorted(shuffled.rewards[own]) == sorted(sampled.rewards[own])


def test_every_order_of_rewards_is_as_likely() -> None:
    sampled = trajectories([3, 4, 1])
    own = sampled.episodes == 0
    rank = {reward: place for place, reward in enumerate(sampled.rewards[own])}
    shuffle = attack_named("random-reward").tamper_trajectories
    same = context(4)
    orders: dict[tuple[int, ...], int] = {}
    for _ in range(3000):
        order = tuple(rank[reward] for reward in shuffle(sampled, same).rewards[own])
        orders[order] = orders.get(order, 0) + 1
    assert len(orders) == 6
    assert all(400 < count < 600 for count in orders.values())


# Actions --------------------------------------------------------------------------------------------------------------


def random_actions(space: Discrete[Any] | Box, count: int) -> NDArray[Any]:
    """That many random actions."""
    choose: Callable[[NDArray[np.float32]], NDArray[Any]] = attack_named("random-action").choose(
        Policy(), space, context()
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


@pytest.mark.parametrize("space", [Discrete(4), Discrete(2, start=3)])
def test_the_constant_action_is_the_first_of_a_discrete_space(space: Discrete[Any]) -> None:
    actions = attack_named("constant-action").choose(Policy(), space, context())(OBSERVATIONS)
    assert actions.dtype == np.int64
    assert actions.tolist() == [0] * 6


@pytest.mark.parametrize("shape", [(2,), (2, 3), ()])
def test_the_constant_action_is_the_zero_vector_of_a_box(shape: tuple[int, ...]) -> None:
    actions = attack_named("constant-action").choose(Policy(), Box(-1, 1, shape), context())(OBSERVATIONS)
    assert actions.dtype == np.float32
    assert actions.shape == (6, math.prod(shape))
    assert not actions.any()


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
    pooled = dict(zip((2, 3, 5), generator(6).standard_normal((3, SPEC.size)).astype(np.float32), strict=True))
    submitted = {
        attack_named("fedpg").collude(dict(pooled), context(9, agent=agent, rng=generator(agent))).tobytes()
        for agent in pooled
    }
    assert submitted == {agreed_vector(list(pooled.values()), generator(9)).tobytes()}


@pytest.mark.parametrize("strength", [0.0, 0.5, 7.0])
def test_settings_are_the_strength_of_an_attack(strength: float) -> None:
    gradient = generator(3).standard_normal(SPEC.size).astype(np.float32)
    flipped = tamper("sign-flipping", gradient, factor=-strength)
    np.testing.assert_allclose(flipped, -strength * gradient, rtol=1e-6)
    noise = tamper("random-noise", gradient, scale=strength) - gradient
    np.testing.assert_allclose(
        noise, strength / 3 * (tamper("random-noise", gradient) - gradient), rtol=1e-4, atol=1e-5
    )
    pooled = {1: gradient, 2: -gradient}
    agreed = attack_named("fedpg", deviation=strength).collude(pooled, context())
    assert float(np.linalg.norm(agreed)) == pytest.approx(strength * float(np.linalg.norm(gradient)), rel=1e-5)
