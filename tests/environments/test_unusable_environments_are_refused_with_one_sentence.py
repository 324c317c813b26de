"""A task whose environment cannot be used is a usage error that says why, not a traceback."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import pytest
from fedpg_common.environments import make_environments
from fedpg_common.errors import UsageError
from fedpg_common.learning.policies import make_policy
from fedpg_common.tasks import CARTPOLE, HALF_CHEETAH, LUNAR_LANDER
from gymnasium.spaces import Discrete, MultiBinary


@pytest.mark.parametrize(
    ("environment", "options", "reason"),
    [
        ("NoSuchThing-v0", {}, "doesn't exist"),
        ("CartPole-v9", {}, "version"),
        ("LunarLander-v2", {}, "LunarLander-v3"),
        ("not an id", {}, "Malformed"),
        ("nosuchmodule:Thing-v0", {}, "nosuchmodule"),
        ("FrozenLake-v1", {}, "observations must be a Box, not Discrete"),
        ("Blackjack-v1", {}, "observations must be a Box, not Tuple"),
        ("CartPole-v1", {"no_such_option": 1}, "no_such_option"),
        ("LunarLander-v3", {"gravity": -50.0}, "gravity"),
        ("HalfCheetah-v5", {"xml_file": "/no/such/file.xml"}, "/no/such/file.xml"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_unknown_environments_options_and_spaces(environment: str, options: dict[str, Any], reason: str) -> None:
    """The sentence names the task, the environment and the reason."""
    task = dataclasses.replace(CARTPOLE, name="mine", environment=environment, environment_options=options)
    with pytest.raises(UsageError) as caught:
        make_environments(task)
    sentence = str(caught.value)
    assert sentence.startswith(f"task mine: {environment} cannot be ")
    assert reason in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("task", "library", "module"),
    [(HALF_CHEETAH, "mujoco", "half_cheetah"), (LUNAR_LANDER, "gymnasium.envs.box2d.lunar_lander", "lunar_lander")],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_missing_simulator(task: Any, library: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """None in `sys.modules` makes an import fail as if the library were not installed."""
    monkeypatch.delitem(sys.modules, f"fedpg_common.environments.{module}", raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UsageError, match=f"{task.environment} cannot be made"):
        make_environments(task)


@pytest.mark.parametrize("space", [MultiBinary(3), Discrete(1)])
def test_actions_without_a_policy(space: Any) -> None:
    """Neither a set of switches nor a single action."""
    with pytest.raises(UsageError, match="task CartPole-v1"):
        make_policy(CARTPOLE, 4, space)
