"""Every episode of a batch is, bit for bit, the one that Gymnasium's own environment plays for its seed and actions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from fedpg_common.environments import EnvironmentBatch, cartpole, make_environments
from fedpg_common.environments.actions import ActionScale
from fedpg_common.environments.factory import make_one
from fedpg_common.environments.generic import GymnasiumBatch
from fedpg_common.environments.rollouts import rollout, sample
from fedpg_common.errors import UsageError
from fedpg_common.learning.policies import make_policy
from fedpg_common.tasks import CARTPOLE, HALF_CHEETAH, INVERTED_PENDULUM, LUNAR_LANDER, Task
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
            move = ActionScale(space).to_environment(move[None])[0]
        observation, reward, terminated, truncated, _ = environment.step(move)
        expected.append(observation)
        rewards.append(float(reward))
        ended.append(terminated or truncated)
    actual = np.array(episode.observations)
    assert actual.dtype == expected[0].dtype
    assert np.array_equal(actual, np.array(expected).reshape(actual.shape))
    assert episode.rewards == rewards
    assert episode.ended == ended


def with_options(task: Task, **options: Any) -> Task:
    """The task in another world."""
    return dataclasses.replace(task, environment_options=options)


def world_by_hand(task: Task) -> Any:
    """Gymnasium's environment with other physics, as one would set them without FedPG."""
    options = dict(task.environment_options)
    if task.name.startswith("LunarLander"):
        return gymnasium.make(task.environment, **options).unwrapped
    bare: Any = gymnasium.make(task.environment).unwrapped
    if task.name.startswith("CartPole"):
        for name, value in options.items():
            setattr(bare, name, value)
        bare.total_mass, bare.polemass_length = bare.masspole + bare.masscart, bare.masspole * bare.length
        return bare
    if "gravity" in options:
        bare.model.opt.gravity[:] = 0.0, 0.0, options["gravity"]
    if "mass_scale" in options:
        bare.model.body_mass[:] = bare.model.body_mass * options["mass_scale"]
        bare.model.body_inertia[:] = bare.model.body_inertia * options["mass_scale"]
        mujoco.mj_setConst(bare.model, bare.data)
    return bare


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


def hold(t: int, s: NDArray[Any]) -> NDArray[Any]:
    """Keeps the inverted pendulum up for a while, then pushes it over."""
    return np.array([0.6 * s[0] + 6.0 * s[1] + 0.4 * s[2] + 0.6 * s[3] if t < 100 else 1.0], np.float32)


@pytest.mark.parametrize(
    ("task", "horizon", "steer"),
    [
        (CARTPOLE, 500, balance),
        (LUNAR_LANDER, 600, land),
        (HALF_CHEETAH, 60, None),
        (INVERTED_PENDULUM, 200, hold),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_episodes_of_the_published_tasks(task: Task, horizon: int, steer: Choose | None) -> None:
    """One batch, reset with other numbers of episodes, some of which end or are dropped before the others."""
    batch = make_environments(task)
    assert not isinstance(batch, GymnasiumBatch)
    reference = gymnasium.make(task.environment).unwrapped
    assert batch.action_space == ActionScale(reference.action_space).policy_space
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


OTHER_WORLDS: list[tuple[Task, int, Choose | None]] = [
    (with_options(CARTPOLE, gravity=12.5, masscart=0.7, masspole=0.31, length=0.8, force_mag=7.0), 300, balance),
    (with_options(CARTPOLE, length=0.1), 300, balance),
    (with_options(CARTPOLE, gravity=9), 300, balance),
    (with_options(LUNAR_LANDER, gravity=-6.5), 500, land),
    (with_options(LUNAR_LANDER, enable_wind=True, wind_power=19.0, turbulence_power=1.1, gravity=-11), 400, land),
    (with_options(HALF_CHEETAH, gravity=-4.0, mass_scale=1.7), 40, None),
    (with_options(HALF_CHEETAH, mass_scale=0.6), 40, None),
    (with_options(INVERTED_PENDULUM, gravity=-20.0, mass_scale=3.0), 150, hold),
]


@pytest.mark.parametrize(("task", "horizon", "steer"), OTHER_WORLDS, ids=lambda value: getattr(value, "label", None))
def test_episodes_in_worlds_with_other_physics(task: Task, horizon: int, steer: Choose | None) -> None:
    """The reference is set up by hand here, as its users would do it, and by our own path for Gymnasium's classes."""
    batch = make_environments(task)
    assert not isinstance(batch, GymnasiumBatch)
    nominal = make_environments(dataclasses.replace(task, environment_options={}))
    seeds = [3, 2**31 - 1, 77]
    choose = [
        steer or random_actions(task, batch, 5, horizon),
        *[random_actions(task, batch, s, horizon) for s in (6, 7)],
    ]
    episodes = play(batch, seeds, choose, horizon, drop_at={1: 6})
    elsewhere = play(nominal, seeds, choose, horizon, drop_at={1: 6})
    assert not np.array_equal(episodes[0].observations[-1], elsewhere[0].observations[-1]), "the option does something"
    references = [world_by_hand(task), make_one(task, task.environment).unwrapped]
    for seed, episode in zip(seeds, episodes, strict=True):
        for reference in references:
            assert_gymnasium_plays_the_same(reference, seed, episode)


@pytest.mark.parametrize("options", [{"gravity": 14.0, "length": 0.7}, {"masspole": 0.4, "force_mag": 6.0}])
def test_compiled_cartpole_rollouts_in_other_worlds(options: dict[str, float]) -> None:
    batch = make_environments(with_options(CARTPOLE, **options))
    policy = make_policy(CARTPOLE, 4, batch.action_space)
    theta = policy.initial_parameters(np.random.default_rng(0))
    seeds = np.arange(7)
    whole = rollout(batch, policy, theta, 200, seeds, np.random.default_rng(3))
    actor, rng = policy.actor(theta), np.random.default_rng(3)
    stepped = sample(batch, lambda observations: actor.sample(observations, rng), 200, seeds)
    np.testing.assert_array_equal(whole.observations, stepped.observations)
    np.testing.assert_array_equal(whole.actions, stepped.actions)
    np.testing.assert_array_equal(whole.episodes, stepped.episodes)


@pytest.mark.parametrize(
    ("task", "options", "words"),
    [
        (CARTPOLE, {"length": 0}, "length must be a positive number, not 0"),
        (CARTPOLE, {"gravity": "low"}, "gravity must be a number, not 'low'"),
        (CARTPOLE, {"masspole": True, "sutton_barto_reward": True}, "masspole must be a number, not True"),
        (LUNAR_LANDER, {"gravity": -12.0}, "gravity must be between -12 and 0"),
        (LUNAR_LANDER, {"enable_wind": 1}, "enable_wind must be true or false"),
        (HALF_CHEETAH, {"mass_scale": -1.0}, "mass_scale must be a positive number"),
        (INVERTED_PENDULUM, {"gravity": [1]}, "gravity must be a number"),
    ],
)  # fmt: skip
def test_impossible_physics_are_refused(task: Task, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=f"task {task.name}: {task.name} cannot be used: {words}"):
        make_environments(with_options(task, **options))


@pytest.mark.parametrize("task", [CARTPOLE, LUNAR_LANDER, HALF_CHEETAH, INVERTED_PENDULUM], ids=lambda task: task.name)
def test_the_seed_may_be_any_that_a_run_draws(task: Task) -> None:
    """Small, large, and repeated seeds, against environments made again."""
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
