"""An attack of somebody's own may raise anything: one sentence then tells which attack it was, and where."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from fedpg_common.choices import Choice
from fedpg_common.errors import FedPGError, UsageError
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.policies import Actor
from fedpg_common.learning.trajectories import Trajectories
from fedpg_common.others_code import asked, place, raise_if_ours, reason
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from fedpg_client.attacks.attacker import Attacker, build_attacker
from fedpg_client.attacks.base import Attack, Choose, Context, Target

if TYPE_CHECKING:
    from fedpg_client.attacks.base import ClosableCalls


T = TypeVar("T")


class WrongAnswerError(Exception):
    """What a hook returned cannot be used."""


class Reported(Attack):
    """An attack whose failures are a UsageError that names it."""

    _name: str
    _attack: Attack

    def calls(self, line: ClosableCalls, target: Target) -> ClosableCalls:
        """See `Attack`."""
        return self._asked("calls", lambda: self._attack.calls(line, target))

    def choose(self, actor: Actor, action_space: Discrete[Any] | Box, context: Context) -> Choose:
        """See `Attack`."""
        choose = self._asked("choose", lambda: self._attack.choose(actor, action_space, context))

        def told(observations: Any) -> Any:
            count = len(observations)
            return self._asked("choose", lambda: _actions(choose(observations), action_space, count))

        return told

    def tamper_trajectories(self, trajectories: Trajectories, context: Context) -> Trajectories:
        """See `Attack`."""
        attack = self._attack
        return self._asked(
            "tamper_trajectories",
            lambda: _trajectories(attack.tamper_trajectories(trajectories, context), trajectories, context),
        )

    def tamper_gradient(self, gradient: Vector, context: Context) -> Vector:
        """See `Attack`."""
        return self._asked("tamper_gradient", lambda: _numbers(self._attack.tamper_gradient(gradient, context)))

    def collude(self, pooled: Mapping[int, Vector], context: Context) -> Vector:
        """See `Attack`."""
        return self._asked("collude", lambda: _numbers(self._attack.collude(pooled, context)))

    def _asked(self, hook: str, work: Callable[[], T]) -> T:
        """What a hook answers. Raises UsageError where it fails."""
        try:
            return asked(hook, f"attack {self._name}", work)
        except FedPGError:
            raise
        except BaseException as error:  # it is somebody's own
            raise_if_ours(error)
            what = str(error) if isinstance(error, WrongAnswerError) else f"{reason(error)}{place(error)}"
            raise UsageError(f"attack {self._name} failed in {hook}: {what}") from error


def _numbers(answer: Any) -> Vector:
    """The answer, whose size the server judges. Raises WrongAnswerError for what is no vector of numbers at all."""
    if not isinstance(answer, np.ndarray) or answer.dtype.kind not in "fiu":
        raise WrongAnswerError(f"it must return a vector of numbers, not {type(answer).__name__}")
    return answer


def _actions(answer: Any, action_space: Discrete[Any] | Box, count: int) -> NDArray[Any]:
    """The answer as `count` actions that an environment can take.

    Raises WrongAnswerError for anything else: otherwise the environment, or the gradient, would fail in words of its
    own.
    """
    actions = np.asarray(answer)
    is_discrete = isinstance(action_space, Discrete)
    shape = (count,) if isinstance(action_space, Discrete) else (count, int(np.prod(action_space.shape)))
    if actions.shape != shape or actions.dtype.kind not in ("iub" if is_discrete else "fiub"):
        kind = "whole numbers" if is_discrete else "numbers"
        raise WrongAnswerError(f"actions must be {kind} of shape {shape}, not {actions.dtype} of shape {actions.shape}")
    if isinstance(action_space, Discrete):
        wrong = actions[(actions < 0) | (actions >= action_space.n)]
        if wrong.size:
            raise WrongAnswerError(f"an action must be from 0 to {action_space.n - 1}, not {wrong[0]}")
    elif not np.isfinite(actions).all():
        raise WrongAnswerError("actions must be finite numbers")
    return actions.astype(np.int64) if actions.dtype.kind == "b" else actions


def _trajectories(answer: Any, sampled: Trajectories, context: Context) -> Trajectories:
    """The answer, if a gradient can be computed of it; a number that is not finite is for the server to refuse.

    Raises WrongAnswerError for anything else.
    """
    if not isinstance(answer, Trajectories):
        raise WrongAnswerError(f"it must return Trajectories, not {type(answer).__name__}")
    if answer is sampled:
        return answer
    steps = len(answer.actions)
    shapes = {"observations": (steps, *sampled.observations.shape[1:]), "rewards": (steps,), "episodes": (steps,)}
    for name, shape in shapes.items():
        array = getattr(answer, name)
        if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype.kind not in "fiu":
            raise WrongAnswerError(f"{name} of {steps} steps must be numbers of shape {shape}, not {_described(array)}")
    episodes = answer.episodes
    if steps == 0 or episodes.dtype.kind not in "iu" or episodes.min() < 0 or episodes.max() >= answer.count:
        raise WrongAnswerError(f"episodes must say of each step which of the {answer.count} episodes it belongs to")
    _actions(answer.actions, context.policy.action_space, steps)
    return answer


def _described(value: object) -> str:
    return f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def reported(attack: Attack, name: str) -> Attack:
    """The attack, with failures that name it."""
    # How much it has to know is said by its class, and not by the instance.
    declared = {name: getattr(attack, name) for name in ("knowledge", "tries_rule", "unanimous", "casts_vote")}
    wrapped: Reported = type("Reported", (Reported,), declared)()
    wrapped._name, wrapped._attack = name, attack
    return wrapped


def build_reported(choice: Choice | None) -> Attacker:
    """As `build_attacker`; an attack of somebody's own is one that is reported."""
    attacker = build_attacker(choice)
    if choice is None or ":" not in choice.name:
        return attacker
    return replace(attacker, attack=reported(attacker.attack, choice.name))
