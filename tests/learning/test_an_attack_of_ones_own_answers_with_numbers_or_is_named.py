"""What an attack of one's own returns in place of usable numbers is one sentence that names attack and hook."""

from __future__ import annotations

import dataclasses
import sys
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from fedpg_client.attacks import Attack
from fedpg_client.attacks.reporting import reported
from fedpg_common.errors import UsageError
from fedpg_common.learning.trajectories import Trajectories
from gymnasium.spaces import Box, Discrete

TWO = Discrete(2)
PLANE = Box(-1.0, 1.0, (2,), np.float32)
STATES = np.zeros((3, 4), np.float32)
CONTEXT = cast(Any, SimpleNamespace(policy=SimpleNamespace(action_space=TWO)))


class Answering(Attack):
    """Returns what it is told to, or raises it."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def choose(self, actor: Any, action_space: Any, context: Any) -> Any:
        return lambda observations: self._answer

    def tamper_trajectories(self, trajectories: Any, context: Any) -> Any:
        return self._answer

    def tamper_gradient(self, gradient: Any, context: Any) -> Any:
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer

    def collude(self, pooled: Any, context: Any) -> Any:
        return self._answer


@pytest.mark.parametrize("answer", [None, 1.0, "x", [1.0], np.array(["x"]), np.array([None])])
def test_what_is_not_a_vector_is_named(answer: object) -> None:
    attack = reported(Answering(answer), "mine:Answering")
    context = cast(Any, None)
    with pytest.raises(UsageError, match=r"attack mine:Answering failed in tamper_gradient: .*a vector of numbers"):
        attack.tamper_gradient(np.ones(1, np.float32), context)
    with pytest.raises(UsageError, match=r"attack mine:Answering failed in collude: .*a vector of numbers"):
        attack.collude({}, context)


@pytest.mark.parametrize(
    ("space", "answer", "sentence"),
    [
        (TWO, np.array([0, 17, 1]), "an action must be from 0 to 1, not 17"),
        (TWO, np.array([0, -1, 1]), "an action must be from 0 to 1, not -1"),
        (TWO, np.array([0, 1]), r"whole numbers of shape \(3,\), not int64 of shape \(2,\)"),
        (TWO, np.zeros(3), r"whole numbers of shape \(3,\), not float64"),
        (TWO, None, "whole numbers of shape"),
        (PLANE, np.zeros(3), r"numbers of shape \(3, 2\), not float64 of shape \(3,\)"),
        (PLANE, np.full((3, 2), np.nan), "actions must be finite numbers"),
        (PLANE, "forward", "numbers of shape"),
    ],
)
def test_actions_that_cannot_be_taken_are_named(space: Discrete[Any] | Box, answer: object, sentence: str) -> None:
    choose = reported(Answering(answer), "mine:Answering").choose(cast(Any, None), space, CONTEXT)
    with pytest.raises(UsageError, match=f"^attack mine:Answering failed in choose: .*{sentence}"):
        choose(STATES)


def test_actions_that_can_be_taken_stay_as_they_are() -> None:
    for space, answer in ((TWO, np.array([0, 1, 1], np.int32)), (PLANE, np.full((3, 2), 5.0))):
        chosen = reported(Answering(answer), "mine:Answering").choose(cast(Any, None), space, CONTEXT)(STATES)
        assert chosen is answer
    truths = reported(Answering(np.array([True, False, True])), "mine:Answering").choose(cast(Any, None), TWO, CONTEXT)
    assert truths(STATES).tolist() == [1, 0, 1]


SAMPLED = Trajectories(STATES, np.array([0, 1, 0]), np.ones(3), np.array([0, 1, 0]), 2)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (None, "it must return Trajectories, not NoneType"),
        (dataclasses.replace(SAMPLED, actions=np.array([0, 17, 0])), "an action must be from 0 to 1, not 17"),
        (dataclasses.replace(SAMPLED, rewards=np.ones(2)), r"rewards of 3 steps must be numbers of shape \(3,\)"),
        (dataclasses.replace(SAMPLED, observations=STATES[:, :2]), "observations of 3 steps must be numbers of shape"),
        (dataclasses.replace(SAMPLED, episodes=np.array([0, 1, 2])), "which of the 2 episodes it belongs to"),
    ],
)
def test_trajectories_without_a_gradient_are_named(answer: object, sentence: str) -> None:
    attack = reported(Answering(answer), "mine:Answering")
    with pytest.raises(UsageError, match=f"^attack mine:Answering failed in tamper_trajectories: .*{sentence}"):
        attack.tamper_trajectories(SAMPLED, CONTEXT)


def test_trajectories_with_a_gradient_stay_as_they_are() -> None:
    worse = dataclasses.replace(SAMPLED, rewards=np.array([0.0, np.nan, -1.0]))
    assert reported(Answering(worse), "mine:Answering").tamper_trajectories(SAMPLED, CONTEXT) is worse


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (SystemExit(3), r"it ended the process \(SystemExit: 3\)"),
        (GeneratorExit(), "GeneratorExit"),
        (KeyError("lost"), "KeyError: 'lost'"),
    ],
)
def test_what_a_hook_raises_is_named_with_its_place(error: BaseException, sentence: str) -> None:
    attack = reported(Answering(error), "mine:Answering")
    line = sys._getframe().f_code.co_filename.rpartition("/")[2]
    with pytest.raises(
        UsageError, match=rf"mine:Answering failed in tamper_gradient: {sentence} \({line}, line \d+\)$"
    ):
        attack.tamper_gradient(np.ones(1, np.float32), CONTEXT)
