"""A world is an environment in the user's wrappers, with a reward that is scaled, shifted and noisy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedpg_common.environments import EnvironmentBatch, make_environments
from fedpg_common.environments.generic import GymnasiumBatch
from fedpg_common.environments.rewards import RewardBatch
from fedpg_common.environments.rollouts import rollout, sample
from fedpg_common.errors import UsageError
from fedpg_common.learning.policies import make_policy
from fedpg_common.tasks import CARTPOLE, Reward


def test_a_wrapped_environment_is_the_users_own(modules: Path) -> None:
    task = replace(
        CARTPOLE, environment_options={"gravity": 12.0}, wrappers=({"name": "found_wrappers:Blind", "factor": 0.25},)
    )
    wrapped, plain = make_environments(task), make_environments(replace(task, wrappers=()))
    assert isinstance(wrapped, GymnasiumBatch)
    seeds = np.array([1, 2])
    np.testing.assert_array_equal(wrapped.reset(seeds), plain.reset(seeds) * np.float32(0.25))
    for _ in range(5):
        (seen, *_), (real, *_) = (batch.step(np.array([0, 1])) for batch in (wrapped, plain))
        np.testing.assert_array_equal(seen, real * np.float32(0.25))


@pytest.mark.parametrize(
    ("wrapper", "words"),
    [
        ("found_wrappers:Nowhere", "found_wrappers has no class Nowhere"),
        ("found_nowhere:Wrap", "its module found_nowhere is not there"),
        ({"name": "found_wrappers:Blind", "size": 1}, r"'size': its settings are factor \(default 0.5\)"),
        ("found_wrappers:nothing", "it made None, which is not an environment"),
    ],
)
def test_wrong_wrappers_are_refused_with_one_sentence(modules: Path, wrapper: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        make_environments(replace(CARTPOLE, wrappers=(wrapper,)))
    assert "\n" not in str(caught.value)


def play(batch: EnvironmentBatch, seeds: list[int], steps: int) -> list[list[float]]:
    """Rewards by episode, with actions that only its seed decides."""
    batch.reset(np.array(seeds))
    rewards: dict[int, list[float]] = {place: [] for place in range(len(seeds))}
    live = list(range(len(seeds)))
    for t in range(steps):
        _, earned, ended = batch.step(np.array([(seeds[place] + t) % 2 for place in live]))
        for place, reward in zip(live, earned.tolist(), strict=True):
            rewards[place].append(reward)
        batch.keep(~ended)
        live = [place for place, end in zip(live, ended.tolist(), strict=True) if not end]
        if not live:
            break
    return list(rewards.values())


@pytest.mark.parametrize("reward", [Reward(2.0, -0.5), Reward(noise=0.1), Reward(0.5, 1.0, 2.0)])
def test_a_reward_is_scaled_shifted_and_noisy(reward: Reward) -> None:
    perceived = make_environments(replace(CARTPOLE, environment_options={"length": 5.0}, reward=reward))
    assert isinstance(perceived, RewardBatch)
    together = play(perceived, list(range(40)), 150)
    noise = np.concatenate([np.array(one) for one in together]) - (reward.scale + reward.shift)
    assert len(noise) > 2000, "episodes must last longer than the noise that is drawn at once"
    if not reward.noise:
        assert not noise.any()
        return
    assert abs(noise.mean()) < 4 * reward.noise / np.sqrt(len(noise))
    assert noise.std() == pytest.approx(reward.noise, rel=0.08)
    assert len(np.unique(noise)) == len(noise)
    assert play(perceived, [7], 150)[0] == together[7], "an episode's noise depends on nothing but its seed"


def test_compiled_rollouts_have_the_same_noise() -> None:
    batch = make_environments(replace(CARTPOLE, reward=Reward(noise=0.3)))
    policy = make_policy(CARTPOLE, 4, batch.action_space)
    theta = policy.initial_parameters(np.random.default_rng(0))
    seeds = np.arange(9)
    whole = rollout(batch, policy, theta, 200, seeds, np.random.default_rng(3))
    actor, rng = policy.actor(theta), np.random.default_rng(3)
    stepped = sample(batch, lambda observations: actor.sample(observations, rng), 200, seeds)
    np.testing.assert_array_equal(whole.observations, stepped.observations)
    np.testing.assert_array_equal(whole.rewards, stepped.rewards)
