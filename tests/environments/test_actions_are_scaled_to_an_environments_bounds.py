"""A policy's action from −1 to 1 becomes one from an environment's lower bound to its upper one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
from fedpg_client.attacks.actions import RandomAction
from fedpg_common.environments import make_environments
from fedpg_common.environments.actions import ActionScale
from fedpg_common.environments.generic import GymnasiumBatch
from fedpg_common.environments.rollouts import sample
from fedpg_common.errors import UsageError
from fedpg_common.learning.gradient import advantages, estimate
from fedpg_common.learning.policies import make_policy
from fedpg_common.tasks import CARTPOLE, HALF_CHEETAH
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

INFINITE = float("inf")
LARGEST = float(np.finfo(np.float32).max)


def box(low: Any, high: Any, dtype: Any = np.float32) -> Box:
    return Box(np.array(low, dtype), np.array(high, dtype), dtype=dtype)


def translate(space: Box, *actions: float) -> list[float]:
    """Each action in every dimension of the space, and its first dimension in the environment."""
    rows = np.repeat(np.array(actions, np.float32)[:, None], int(np.prod(space.shape)), axis=1)
    moved = ActionScale(space).to_environment(rows)
    assert moved.dtype == space.dtype
    assert moved.shape == (len(actions), *space.shape)
    return list(moved.reshape(len(actions), -1)[:, 0].tolist())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_ends_are_the_bounds_and_zero_is_the_middle(dtype: Any) -> None:
    assert translate(box([10.0], [20.0], dtype), -1, -0.5, 0, 0.5, 1) == [10.0, 12.5, 15.0, 17.5, 20.0]
    assert translate(box([-2.0], [2.0], dtype), -1, 0, 1) == [-2.0, 0.0, 2.0]
    assert translate(box([0.1], [0.3], dtype), -1, 1) == [dtype(0.1), dtype(0.3)]


def test_what_lies_beyond_a_bound_is_moved_to_it() -> None:
    assert translate(box([10.0], [20.0]), -1.5, 1.01, 7) == [10.0, 20.0, 20.0]


def test_each_dimension_has_its_own_bounds_in_any_shape() -> None:
    space = box([[0.0, -1.0], [-INFINITE, 5.0]], [[1.0, 1.0], [INFINITE, 6.0]])
    (moved,) = ActionScale(space).to_environment(np.full((1, 4), 0.5, np.float32))
    assert moved.tolist() == [[0.75, 0.5], [0.5, 5.75]]


@pytest.mark.parametrize(
    "space",
    [
        box([-1.0, -1.0], [1.0, 1.0]),
        box([-INFINITE, -INFINITE], [INFINITE, INFINITE]),
        box([0.0, 3.0], [INFINITE, INFINITE]),
        box([-LARGEST, -LARGEST], [LARGEST, LARGEST]),
    ],
)
def test_other_bounds_leave_the_policys_numbers_alone(space: Box) -> None:
    """±1 is the policy's own frame; half a bound is none, and so is the largest number."""
    actions = np.random.default_rng(0).normal(0, 3, (50, 2)).astype(np.float32)
    scale = ActionScale(space)
    assert scale.to_environment(actions).tobytes() == actions.tobytes()
    assert scale.policy_space is space


def test_half_cheetah_and_discrete_actions_keep_their_spaces() -> None:
    environments = make_environments(HALF_CHEETAH)
    assert isinstance(environments.action_space, Box)
    assert ActionScale(environments.action_space).policy_space is environments.action_space
    environments.close()
    assert ActionScale(Discrete(3, start=5)).to_environment(np.array([0, 2])).tolist() == [5, 7]


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (box([0.0, 3.0], [1.0, 3.0]), "dimension 1 of the actions has the bounds 3 and 3: there is nothing to choose"),
        (Box(0, 9, (2,), np.int64), "must be Discrete or a Box of real numbers, not Box"),
        (Box(-1, 1, (0,), np.float32), "must be a Box of one number at least"),
        (gymnasium.spaces.MultiDiscrete([2, 3]), "must be Discrete or a Box of real numbers, not MultiDiscrete"),
    ],
)
def test_spaces_without_a_choice_are_refused(space: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ActionScale(space)


def test_bounds_that_have_crossed_are_refused() -> None:
    space = box([0.0], [1.0])
    space.low[:] = 2.0  # the class looks only when it is made
    with pytest.raises(UsageError, match="the bounds 2 and 1"):
        ActionScale(space)


class Reach(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """Pays for a force near 15, and insists on one within the bounds."""

    observation_space = Box(-1, 1, (1,), np.float32)
    action_space = Box(10, 20, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Start."""
        self.forces: list[float] = []
        return np.ones(1, np.float32), {}

    def step(self, action: NDArray[np.float32]) -> Any:
        """Push."""
        assert self.action_space.contains(action)
        self.forces.append(float(action[0]))
        return np.ones(1, np.float32), -abs(float(action[0]) - 15.0), len(self.forces) >= 10, False, {}


def test_a_policy_reaches_all_of_the_box_and_its_gradient_is_that_of_its_own_actions() -> None:
    batch = GymnasiumBatch(Reach)
    policy = make_policy(CARTPOLE, 1, batch.action_space)
    theta = policy.initial_parameters(np.random.default_rng(0))
    rng = np.random.default_rng(1)
    played = sample(batch, lambda s: policy.actor(theta).sample(s, rng), 10, np.arange(20))
    assert np.abs(played.actions).max() < 2.0, "in the policy's frame"
    assert played.returns().min() > -50.0, "−50 is what the nearest bound earns in every step"
    gradient = estimate(policy, theta, played, advantages(played, 0.99)).gradient
    assert np.abs(gradient).max() > 0


def test_a_random_action_is_uniform_over_the_box() -> None:
    batch = GymnasiumBatch(Reach)
    context = SimpleNamespace(actions=np.random.default_rng(0))
    choose = RandomAction().choose(None, batch.action_space, context)  # type: ignore[arg-type]
    forces = ActionScale(Reach.action_space).to_environment(choose(np.zeros((4000, 1), np.float32)))
    counts = np.histogram(forces, 5, (10, 20))[0]
    assert counts.sum() == 4000
    assert counts.min() > 700
