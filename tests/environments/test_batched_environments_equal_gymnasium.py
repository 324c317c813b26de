"""Every episode of a batch is, bit for bit, the one that Gymnasium's own environment plays for its seed and actions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from fedpg_common.environments import EnvironmentBatch, cartpole, make_environments
from fedpg_common.environments.generic import GymnasiumBatch
from fedpg_common.tasks import CARTPOLE, HALF_CHEETAH, LUNAR_LANDER, Task
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

Choose = Callable[[int, NDArray[Any]], Any]
"""(time step, observation) → action."""


@dataclasses.dataclass
class Episode:
    """What one episode of a batch went through."""

    observations: list[NDArray[Any]]
    actions: list[Any]
    rewards: list[float]
    ended: list[bool]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MuJoCo writes the warnings about Gymnasium's model, which the references load, into the working folder."""
    monkeypatch.chdir(tmp_path)


def play(
    batch: EnvironmentBatch, seeds: list[int], choose: list[Choose], horizon: int, drop_at: dict[int, int]
) -> list[Episode]:
    """Step until all have ended or been dropped; episode i is dropped after step `drop_at[i]` though it lives on."""
    observations = batch.reset(np.array(seeds))
    episodes = [Episode([row], [], [], []) for row in observations]
    live = list(range(len(seeds)))
    for t in range(horizon):
        actions = [choose[i](t, row) for i, row in zip(live, observations, strict=True)]
        for i, action in zip(live, actions, strict=True):
            episodes[i].actions.append(action)
        observations, rewards, ended = batch.step(np.array(actions))
        assert rewards.dtype == np.float64
        assert ended.dtype == np.bool_
        for i, row, reward, end in zip(live, observations, rewards, ended, strict=True):
            episodes[i].observations.append(row)
            episodes[i].rewards.append(reward)
            episodes[i].ended.append(bool(end))
        stays = np.array([not end and drop_at.get(i) != t for i, end in zip(live, ended, strict=True)])
        batch.keep(stays)
        observations = observations[stays]
        live = [i for i, stay in zip(live, stays, strict=True) if stay]
        if not live:
            break
    return episodes


def assert_gymnasium_plays_the_same(environment: gymnasium.Env[Any, Any], seed: int, episode: Episode) -> None:
    """Replay the actions and compare bits."""
    expected = [environment.reset(seed=seed)[0]]
    rewards, ended = [], []
    space = environment.action_space
    for action in episode.actions:
        if isinstance(space, Discrete):
            move = action + space.start
        else:
            assert isinstance(space, Box)
            move = np.reshape(action, space.shape).astype(space.dtype)
            if environment.spec is not None and environment.spec.id == "Pendulum-v1":  # whose torque is −2 to 2
                move = np.clip(2.0 * move, -2.0, 2.0)
        observation, reward, terminated, truncated, _ = environment.step(move)
        expected.append(observation)
        rewards.append(float(reward))
        ended.append(terminated or truncated)
    actual = np.array(episode.observations)
    assert actual.dtype == expected[0].dtype
    assert np.array_equal(actual, np.array(expected).reshape(actual.shape))
    assert episode.rewards == rewards
    assert episode.ended == ended


def random_actions(task: Task, batch: EnvironmentBatch, seed: int, horizon: int) -> Choose:
    """Actions drawn beforehand, for each time step: beyond the bounds, too, where they are numbers."""
    rng = np.random.default_rng(seed)
    space = batch.action_space
    if isinstance(space, Discrete):
        moves: NDArray[Any] = rng.integers(0, int(space.n), horizon)
    else:
        moves = rng.normal(0.0, 1.0, (horizon, int(np.prod(space.shape)))).astype(np.float32)
    return lambda t, _: moves[t]


def balance(t: int, s: NDArray[Any]) -> int:
    """Keeps CartPole's pole up for a while, then lets the cart run away."""
    return int(s[2] + 0.5 * s[3] > (0.0 if t < 150 else -0.05))


def land(t: int, s: NDArray[Any]) -> int:
    """A gentle descent that lands on both legs."""
    tilt = 0.25 * s[0] + 0.5 * s[2] - 0.5 * s[4] - s[5]
    rise = 0.55 * abs(s[0]) - s[1] - s[3]
    if s[6] or s[7]:
        tilt, rise = 0.0, -s[3]
    if rise > max(abs(2.0 * tilt), 0.1):
        return 2
    return 0 if abs(tilt) <= 0.05 else (1 if tilt > 0 else 3)


@pytest.mark.parametrize(
    ("task", "horizon", "steer"),
    [(CARTPOLE, 500, balance), (LUNAR_LANDER, 600, land), (HALF_CHEETAH, 60, None)],
    ids=lambda value: getattr(value, "name", None),
)
def test_episodes_of_the_three_tasks(task: Task, horizon: int, steer: Choose | None) -> None:
    """One batch, reset with other numbers of episodes, some of which end or are dropped before the others."""
    batch = make_environments(task)
    assert not isinstance(batch, GymnasiumBatch)
    reference = gymnasium.make(task.environment).unwrapped
    assert batch.action_space == reference.action_space
    last_rewards = set()
    for count in (6, 1, 2, 9):
        seeds = [7919 * count + 31 * i for i in range(count)]
        choose = [random_actions(task, batch, seed, horizon) for seed in seeds]
        if steer is not None:
            choose[::2] = [steer] * len(choose[::2])
        episodes = play(batch, seeds, choose, horizon, drop_at={3: 5, 1: 8, 8: 11})
        for seed, episode in zip(seeds, episodes, strict=True):
            assert_gymnasium_plays_the_same(reference, seed, episode)
            last_rewards.add(episode.rewards[-1])
        lengths = {len(episode.rewards) for episode in episodes}
        assert count == 1 or len(lengths) > 1
    if task is LUNAR_LANDER:
        assert {100.0, -100.0} <= last_rewards, "both a landing and a crash must have been compared"
    batch.close()


@pytest.mark.parametrize("task", [CARTPOLE, LUNAR_LANDER, HALF_CHEETAH], ids=lambda task: task.name)
def test_the_seed_may_be_any_that_a_run_draws(task: Task) -> None:
    """Small, large, and repeated seeds, against environments made anew."""
    batch = make_environments(task)
    seeds = [0, 2**31 - 1, 0, 12345]
    episodes = play(batch, seeds, [random_actions(task, batch, 1, 20)] * 4, 20, {})
    for seed, episode in zip(seeds, episodes, strict=True):
        assert_gymnasium_plays_the_same(gymnasium.make(task.environment).unwrapped, seed, episode)
    assert np.array_equal(episodes[0].observations, episodes[2].observations)
    batch.close()


def test_the_limits_of_cartpole() -> None:
    """Which episodes seldom end close enough to for a step to tell."""
    reference: Any = gymnasium.make("CartPole-v1").unwrapped
    assert reference.x_threshold == cartpole.POSITION_LIMIT
    assert reference.theta_threshold_radians == cartpole.ANGLE_LIMIT_RAD


def custom(environment: str, **options: Any) -> Task:
    """A task on another environment, cut at 50 steps in evaluation."""
    return dataclasses.replace(
        CARTPOLE, environment=environment, horizon=30, evaluation_horizon=50, environment_options=options
    )


@pytest.mark.parametrize(
    "task",
    [
        custom("Pendulum-v1"),
        custom("Acrobot-v1"),
        custom("MountainCarContinuous-v0"),
        custom("Hopper-v5"),
        custom("CartPole-v1", sutton_barto_reward=True),
        custom("LunarLander-v3", continuous=True, enable_wind=True),
        custom("HalfCheetah-v5", ctrl_cost_weight=0.5),
    ],
    ids=lambda task: task.environment,
)
def test_any_other_environment_or_option(task: Task) -> None:
    """Gymnasium's class itself, whose own time limit ends episodes at the longer of the two horizons."""
    batch = make_environments(task)
    assert isinstance(batch, GymnasiumBatch)
    reference = gymnasium.make(task.environment, max_episode_steps=50, **task.environment_options)
    for count in (3, 1, 4):
        seeds = [100 * count + i for i in range(count)]
        choose = [random_actions(task, batch, seed, 60) for seed in seeds]
        for seed, episode in zip(seeds, play(batch, seeds, choose, 60, {2: 4}), strict=True):
            assert_gymnasium_plays_the_same(reference, seed, episode)
            assert len(episode.rewards) <= 50
    batch.close()


class Oddly(gymnasium.Env[Any, Any]):
    """Observations and actions of unusual shapes."""

    def __init__(self, discrete: bool) -> None:
        """`discrete`: actions 5, 6, 7; else a 2 × 2 array."""
        self.observation_space = Box(-100, 100, (2, 3), np.int16)
        self.action_space = Discrete(3, start=5) if discrete else Box(-1.0, 1.0, (2, 2), np.float64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Start at random."""
        super().reset(seed=seed)
        self.state = self.np_random.integers(-9, 9, (2, 3), np.int16)
        return self.state.copy(), {}

    def step(self, action: Any) -> Any:
        """Take only what the action space contains in type and shape."""
        if isinstance(self.action_space, Discrete):
            assert self.action_space.contains(action)
            shift = int(action)
        else:
            assert action.shape == (2, 2)
            assert action.dtype == np.float64
            shift = round(float(action[0, 1] - 2 * action[1, 0]))
        self.state = (self.state + np.int16(shift)) % np.int16(50)
        return self.state.copy(), shift, bool(self.state[0, 0] > 40), False, {}


@pytest.mark.parametrize("discrete", [True, False])
def test_arrays_of_any_shape_are_flattened_and_actions_counted_from_zero(discrete: bool) -> None:
    """The policy sees rows; the environment gets what its spaces say."""
    batch = GymnasiumBatch(lambda: Oddly(discrete))
    assert batch.observation_size == 6
    seeds = [3, 1, 4]
    choose = [random_actions(CARTPOLE, batch, seed, 40) for seed in seeds]
    for seed, episode in zip(seeds, play(batch, seeds, choose, 40, {}), strict=True):
        assert_gymnasium_plays_the_same(Oddly(discrete), seed, episode)
