"""The compiled kernels and what they say in numpy give the same bits, whatever they are given."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from fedpg_common.learning.kernels.interface import Floats, Mlp
from fedpg_common.learning.kernels.library import is_compiled, kernels
from fedpg_common.learning.kernels.reference import Reference
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

REFERENCE = Reference()
seeds = st.integers(0, 2**31 - 1)
layouts = st.lists(st.integers(1, 70), min_size=1, max_size=3).map(tuple)


def test_the_kernels_are_compiled_here() -> None:
    assert is_compiled(), "the comparison below would compare numpy with itself"


def draw_theta(rng: np.random.Generator, sizes: tuple[int, ...], scale: float) -> Floats:
    """Parameters of a network."""
    count = sum((before + 1) * after for before, after in pairwise(sizes))
    return (scale * rng.standard_normal(count)).astype(np.float32)


def both(sizes: tuple[int, ...], activation: str, theta: Floats) -> tuple[Mlp, Mlp]:
    """The same network, compiled and in numpy."""
    return kernels().open_mlp(sizes, activation, theta), REFERENCE.open_mlp(sizes, activation, theta)


@given(arrays(np.float64, st.integers(1, 50), elements=st.floats(allow_nan=True, allow_infinity=True)))
def test_exp_and_tanh_have_the_same_bits_for_every_double(x: np.ndarray) -> None:
    for compiled, expected in zip(kernels().functions(x)[::2], REFERENCE.functions(x)[::2], strict=True):
        np.testing.assert_array_equal(compiled, expected)


@given(arrays(np.float64, st.integers(1, 50), elements=st.floats(1e-300, 1e300)))
def test_the_logarithm_has_the_same_bits(x: np.ndarray) -> None:
    np.testing.assert_array_equal(kernels().functions(x)[1], REFERENCE.functions(x)[1])


def test_the_functions_are_right_to_a_few_units_in_the_last_place() -> None:
    x = np.concatenate((np.linspace(-40.0, 40.0, 200_001), np.geomspace(1e-12, 1.0, 1000)))
    exps, logs, tanhs = kernels().functions(x)
    np.testing.assert_allclose(exps, np.exp(x), rtol=5e-16)
    np.testing.assert_allclose(tanhs, np.tanh(x), rtol=1e-15)
    positive = np.abs(x) > 0
    np.testing.assert_allclose(logs[positive], np.log(np.abs(x[positive])), rtol=1e-15, atol=1e-15)


@given(seeds, layouts, st.integers(1, 9), st.integers(2, 5), st.sampled_from(["relu", "tanh"]), st.integers(0, 70))
def test_actions_have_the_same_bits(
    seed: int, hidden: tuple[int, ...], inputs: int, outputs: int, activation: str, rows: int
) -> None:
    rng = np.random.default_rng(seed)
    sizes = (inputs, *hidden, outputs)
    observations = rng.standard_normal((rows, inputs)).astype(np.float32)
    compiled, expected = both(sizes, activation, draw_theta(rng, sizes, 0.5))
    uniforms = rng.random(rows, np.float32)
    np.testing.assert_array_equal(compiled.act(observations, uniforms), expected.act(observations, uniforms))
    np.testing.assert_array_equal(compiled.act(observations, None), expected.act(observations, None))


@given(
    seeds, layouts, st.integers(1, 9), st.integers(2, 5), st.sampled_from(["relu", "tanh"]), st.integers(1, 200),
    st.booleans(),
)  # fmt: skip
def test_gradients_have_the_same_bits(
    seed: int, hidden: tuple[int, ...], inputs: int, outputs: int, activation: str, rows: int, with_reference: bool
) -> None:
    rng = np.random.default_rng(seed)
    sizes = (inputs, *hidden, outputs)
    observations = rng.standard_normal((rows, inputs)).astype(np.float32)
    actions, weights = rng.integers(outputs, size=rows), rng.standard_normal(rows).astype(np.float32)
    reference = np.log(rng.uniform(0.1, 1.0, rows)).astype(np.float32) if with_reference else None
    compiled, expected = both(sizes, activation, draw_theta(rng, sizes, 0.5))
    results = (one.gradient(observations, actions, weights, reference, -1.0 / rows) for one in (compiled, expected))
    for mine, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("greedy", [False, True])
@given(seed=seeds, episodes=st.integers(0, 20), horizon=st.integers(1, 80))
def test_cartpole_episodes_have_the_same_bits(greedy: bool, seed: int, episodes: int, horizon: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = (4, 16, 16, 2)
    compiled, expected = both(sizes, "relu", draw_theta(rng, sizes, 0.3))
    starts = rng.integers(0, 2**31, size=episodes)
    uniforms = None if greedy else rng.random(episodes * horizon, np.float32)
    physics = np.array([9.8, 0.1, 1.1, 0.5, 0.05, 10.0]) * rng.choice([1.0, 0.7, 1.3], 6)
    results = (one.cartpole(physics, starts, horizon, uniforms) for one in (compiled, expected))
    for mine, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@given(seeds, st.integers(1, 10), st.integers(1, 200), st.floats(0.0, 1.0))
def test_advantages_have_the_same_bits(seed: int, episodes: int, rows: int, gamma: float) -> None:
    rng = np.random.default_rng(seed)
    owners = np.concatenate((np.arange(episodes), rng.integers(episodes, size=rows)))
    rewards = rng.standard_normal(len(owners))
    mine, theirs = (one.advantages(rewards, owners, episodes, gamma) for one in (kernels(), REFERENCE))
    np.testing.assert_array_equal(mine, theirs)
