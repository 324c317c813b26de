"""What stands between FedPG and an environment that somebody else has written.

Such an environment may do anything: raise, end the process, return NaN, four values or None. Whatever it does becomes
one sentence with the task, the environment, the method and the value, as an EnvironmentFailedError. The traceback goes
to the log, at level debug.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NoReturn

import gymnasium
import numpy as np
from gymnasium.utils.seeding import np_random
from numpy.typing import NDArray

from fedpg_common.checks import show
from fedpg_common.errors import EnvironmentFailedError
from fedpg_common.others_code import innermost, place, raise_if_ours, reason
from fedpg_common.tasks import Task

NUMBER_MAX = float(np.finfo(np.float32).max)
"""The policy computes in float32: what is beyond it would be infinite there."""
BOOLEANS = (bool, np.bool_)
FIVE_VALUES = "observation, reward, terminated, truncated and info"

log = logging.getLogger(__name__)


class Guard:
    """Words for what environments of one task do wrong."""

    def __init__(self, task: str, environment: str) -> None:
        """The names of the task and of its environment."""
        self.who = f"task {task}: environment {environment}"
        self.wants_finite_rewards = True
        """Whether a reward that is a NaN, infinite or beyond float32 is a failure, and not only worth a warning."""
        self._told: set[str] = set()

    @classmethod
    def of(cls, task: Task) -> Guard:
        """The guard of a task's environments."""
        return cls(task.name, task.environment)

    def wrong(self, method: str, problem: str) -> EnvironmentFailedError:
        """The error for a value that a method returned."""
        return EnvironmentFailedError(f"{self.who} failed in {method}: {problem}")

    def failure(self, method: str, error: BaseException) -> EnvironmentFailedError:
        """The error for what a method raised; see `raise_if_ours` for what it raises again."""
        raise_if_ours(error)
        log.debug("%s failed in %s", self.who, method, exc_info=error)
        return self.wrong(method, f"{self._unpacked(method, error) or reason(error)}{place(error)}")

    def _unpacked(self, method: str, error: BaseException) -> str:
        """Gymnasium's wrappers trip over a step of four values before anybody can look at it."""
        frame = innermost(error)
        module = str(frame.f_globals.get("__name__", "")) if frame is not None else ""
        if method != "step" or not module.startswith("gymnasium.") or "unpack" not in str(error):
            return ""
        return f"step must return {FIVE_VALUES}, but it has {' '.join(str(error).split())}"

    def tell_of_close(self, error: BaseException) -> None:
        """Log that an environment could not be closed."""
        self._warn_once("close", str(self.failure("close", error)))

    def _warn_once(self, what: str, sentence: str) -> None:
        """A warning for the first of all instances; the others would say the same."""
        log.log(logging.DEBUG if what in self._told else logging.WARNING, "%s", sentence)
        self._told.add(what)

    def reward(self, value: Any) -> float:
        """A reward as a number. Raises EnvironmentFailedError for anything but one finite real number."""
        number = _real_number(value)
        if number is not None and -NUMBER_MAX <= number <= NUMBER_MAX:
            return number
        error = self.wrong("step", f"the reward must be one finite number that float32 can hold, not {name(value)}")
        if number is None or self.wants_finite_rewards:
            raise error
        self._warn_once("reward", f"{error}: what is computed from it is left out")
        return number

    def end(self, what: str, value: Any) -> bool:
        """`terminated` or `truncated`. Raises EnvironmentFailedError for anything but a truth value."""
        if isinstance(value, np.ndarray) and value.shape == () and value.dtype == np.bool_:
            return bool(value)
        if not isinstance(value, BOOLEANS):
            raise self.wrong("step", f"{what} must be True or False, not {name(value)}")
        return bool(value)

    def observation(self, method: str, value: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        """An observation as an array of numbers. Raises EnvironmentFailedError for another shape, and for no numbers.

        The numbers are taken as they are, whatever dtype the space declares.
        """
        try:
            array = np.asarray(value)
        except Exception as error:
            raise self.wrong(method, f"the observation must be an array of numbers, not {name(value)}") from error
        if array.dtype.kind not in "fiub":
            raise self.wrong(method, f"the observation must be an array of numbers, not {name(value)}")
        if array.shape != shape:
            raise self.wrong(method, f"the observation must have the space's shape {shape}, not {array.shape}")
        return array

    def check_finite(self, method: str, observations: NDArray[Any]) -> None:
        """Raise EnvironmentFailedError if an observation among (n, …) is not finite in float32."""
        if observations.dtype.kind == "f" and not (np.abs(observations) <= NUMBER_MAX).all():
            values = observations[~(np.abs(observations) <= NUMBER_MAX)]
            raise self.wrong(
                method, f"the observation must be finite numbers that float32 can hold, but one is {values[0]:g}"
            )


class GuardedEnvironment:
    """One environment. What it returns is of the right type and shape, or an EnvironmentFailedError is raised."""

    def __init__(self, environment: gymnasium.Env[Any, Any], guard: Guard) -> None:
        """Take over an environment, and close it some time."""
        self.environment = environment
        self._guard = guard
        self._shape = environment.observation_space.shape or ()
        self._step = environment.step

    def reset(self, seed: int) -> NDArray[Any]:
        """The first observation of the episode with that seed, as the space shapes it."""
        try:
            self._seed(seed)
            result: Any = self.environment.reset(seed=seed)
        except BaseException as error:
            raise self._guard.failure("reset", error) from error
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping)):
            raise self._guard.wrong(
                "reset", f"it must return an observation and an info dictionary, not {name(result)}"
            )
        return self._guard.observation("reset", result[0], self._shape)

    def _seed(self, seed: int) -> None:
        """Seed what `reset` forgets if its class does not hand the seed on, and the spaces, which it never seeds."""
        bare = self.environment.unwrapped
        with suppress(AttributeError):  # some have a generator of their own, under that name
            bare.np_random = np_random(seed)[0]
        self.environment.action_space.seed(seed)
        self.environment.observation_space.seed(seed)

    def step(self, action: Any) -> tuple[NDArray[Any], float, bool]:
        """Observation, reward, and whether the episode has ended. The observation's numbers are yet to be checked."""
        guard = self._guard
        try:
            result = self._step(action)
        except BaseException as error:
            raise guard.failure("step", error) from error
        if type(result) is not tuple or len(result) != 5:
            raise guard.wrong("step", f"it must return {FIVE_VALUES}, not {name(result)}")
        observation, reward, terminated, truncated, _ = result
        if (
            type(observation) is not np.ndarray
            or observation.shape != self._shape
            or observation.dtype.kind not in "fu"
        ):
            observation = guard.observation("step", observation, self._shape)
        if type(reward) is not float or not -NUMBER_MAX <= reward <= NUMBER_MAX:
            reward = guard.reward(reward)
        if type(terminated) is not bool:
            terminated = guard.end("terminated", terminated)
        if type(truncated) is not bool:
            truncated = guard.end("truncated", truncated)
        return observation, reward, terminated or truncated

    def render(self) -> Any:
        """What the environment draws. Raises what it raises: a machine that cannot draw is another matter."""
        return self.environment.render()

    def close(self) -> None:
        """Close the environment. A failure is logged: what was learned is not less true for it."""
        try:
            self.environment.close()
        except BaseException as error:
            self._guard.tell_of_close(error)


def name(value: Any) -> str:
    """A wrong value, on one line: what it is, and of which type if that does not show."""
    kind = type(value).__name__
    if isinstance(value, np.ndarray):
        few = f" {' '.join(np.array2string(value, separator=', ').split())}" if value.size <= 3 else ""
        return f"an array{few} of shape {value.shape} and type {value.dtype}"
    if isinstance(value, tuple | list):
        return f"a {kind} of {len(value)}"
    try:
        text = " ".join(show(value).split())
    except Exception:  # its repr is others' code, too
        return f"a {kind}"
    return text if value is None else f"{text} ({kind})"


def _real_number(value: Any) -> float | None:
    """A real number as a float, infinite where it is too large; None for anything else. True and False are none."""
    if isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, int):
        return float(value) if abs(value) <= sys.float_info.max else float("inf")
    try:
        array = np.asarray(value)
    except Exception:
        return None
    return float(array) if array.shape == () and array.dtype.kind in "fiu" else None


def made_again(make: Callable[[], gymnasium.Env[Any, Any]], guard: Guard) -> gymnasium.Env[Any, Any]:
    """One more instance of an environment that could be made before. Raises EnvironmentFailedError."""
    try:
        return make()
    except BaseException as error:
        failed = guard.failure("__init__", error)
        _explain(failed, "one instance was made, but not another, and each episode of a batch needs one of its own")


def _explain(error: EnvironmentFailedError, why: str) -> NoReturn:
    raise EnvironmentFailedError(f"{error}: {why}") from error.__cause__
