"""What an environment of somebody else's does wrong is told in one sentence: task, environment, method and value."""

from __future__ import annotations

import logging
import re
import threading

import gymnasium
import numpy as np
import odd_environments
import pytest
from fedpg_common.environments import EnvironmentBatch, make_environments
from fedpg_common.environments.generic import GymnasiumBatch
from fedpg_common.environments.guard import Guard
from fedpg_common.environments.rollouts import sample
from fedpg_common.errors import EnvironmentFailedError, ExitCode, UsageError
from fedpg_common.learning.trajectories import Trajectories
from gymnasium.spaces import Box
from numpy.typing import NDArray
from odd_environments import FAULTS, LENGTH, START, Odd, odd_task


def play(environments: EnvironmentBatch, episodes: int = 3) -> Trajectories:
    def choose(observations: NDArray[np.float32]) -> NDArray[np.int64]:
        return np.ones(len(observations), np.int64)

    return sample(environments, choose, LENGTH + 2, np.arange(episodes))


def failure(fault: str) -> str:
    """The sentence of an environment with that fault."""
    environments = make_environments(odd_task(fault))
    with pytest.raises(EnvironmentFailedError) as caught:
        play(environments)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    return str(caught.value)


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_names_task_environment_and_method(fault: str) -> None:
    sentence = failure(fault)
    method = "reset" if fault.startswith("reset") else "step"
    assert sentence.startswith(f"task odd: environment odd_environments:Odd-v0 failed in {method}: ")
    assert "\n" not in sentence
    assert len(sentence) < 500


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("step_raises", r"RuntimeError: simulator diverged at joint 3 \(odd_environments.py, line \d+\)$"),
        ("step_raises_unprintably", r"step: UnprintableError \(odd_"),
        ("step_exits", r"it ended the process \(SystemExit: 0\)"),
        ("step_four", r"step must return observation, reward, terminated, truncated and info, but .* got 4\)$"),
        ("step_six", "step must return observation, reward, terminated, truncated and info"),
        ("reset_without_seed", "TypeError: .*unexpected keyword argument 'seed'"),
        ("reset_bare", r"must return an observation and an info dictionary, not an array \[0.1, 0.2, 0.3\] of shape"),
        ("reset_raises", "OSError: no device"),
        ("reset_nan", "finite numbers that float32 can hold, but one is nan"),
        ("observation_scalar", r"must have the space's shape \(3,\), not \(\)"),
        ("observation_short", r"shape \(3,\), not \(2,\)"),
        ("observation_column", r"shape \(3,\), not \(3, 1\)"),
        ("observation_infinite", "but one is -inf"),
        ("observation_beyond_float32", r"but one is 1e\+39"),
        ("observation_none", "must be an array of numbers, not None"),
        ("observation_text", r"must be an array of numbers, not 'far away' \(str\)"),
        ("reward_nan", "reward must be one finite number that float32 can hold, not nan"),
        ("reward_none", "not None$"),
        ("reward_true", r"not True \(bool\)"),
        ("reward_array", r"not an array \[1.\] of shape \(1,\) and type float64"),
        ("reward_beyond_float32", r"not 1e\+39"),
        ("ends_none", "terminated must be True or False, not None"),
        ("ends_one", r"terminated must be True or False, not 1 \(int\)"),
        ("truncated_none", "truncated must be True or False, not None"),
    ],
)
def test_the_sentence_says_what_is_wrong(fault: str, words: str) -> None:
    assert re.search(words, failure(fault))


def test_the_traceback_is_in_the_log_only(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "fedpg_common.environments"):
        failure("step_raises")
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.levelno == logging.DEBUG


def test_numbers_of_other_types_are_taken_as_they_are() -> None:
    """A space of bytes whose observations are fractions."""
    played = play(make_environments(odd_task("bytes_declared")))
    assert played.observations[:3].tolist() == [START.tolist()] * 3
    assert played.observations[3].tolist() == [0.25, 1.5, 300.0]


@pytest.mark.parametrize("reward", [2, np.int8(2), np.float32(2), np.float64(2), np.array(2.0)])
def test_any_kind_of_number_is_a_reward(reward: object) -> None:
    assert Guard("t", "e").reward(reward) == 2.0


@pytest.mark.parametrize("end", [True, np.bool_(True), np.array(True)])
def test_any_kind_of_truth_value_is_an_end(end: object) -> None:
    assert Guard("t", "e").end("terminated", end) is True


def test_an_observation_that_the_environment_overwrites_later_stays_what_it_was() -> None:
    """The array is the environment's, and it goes on using it."""
    played = play(make_environments(odd_task("writes_in_place")), episodes=1)
    assert played.observations[:, 0].tolist() == pytest.approx([0.1 + t for t in range(LENGTH)])


def test_an_environment_that_overwrites_its_action_changes_no_trajectory() -> None:
    class Greedy(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
        observation_space = Box(-1, 1, (1,), np.float32)
        action_space = Box(-1, 1, (2,), np.float32)

        def reset(self, *, seed: int | None = None, options: object = None):  # type: ignore[no-untyped-def]
            return np.zeros(1, np.float32), {}

        def step(self, action: NDArray[np.float32]):  # type: ignore[no-untyped-def]
            action[:] = 7.0
            return np.zeros(1, np.float32), 0.0, False, False, {}

    actions = np.full((2, 2), 0.5, np.float32)
    batch = GymnasiumBatch(Greedy)
    batch.reset(np.arange(2))
    batch.step(actions)
    assert (actions == 0.5).all()


def test_an_environment_that_exists_only_once_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Odd, "instances", 0)
    environments = make_environments(odd_task("once"))
    play(environments, episodes=1)
    with pytest.raises(EnvironmentFailedError, match=r"the port is taken .*: one instance was made, but not another"):
        play(environments, episodes=2)


def test_instances_with_other_spaces_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Odd, "instances", 0)
    with pytest.raises(EnvironmentFailedError, match=r"same action_space, but one has Discrete\(2\), another Discrete"):
        play(make_environments(odd_task("spaces_differ")))


@pytest.mark.parametrize("fault", ["close_raises", "close_exits"])
def test_a_failure_to_close_is_a_line_in_the_log(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    environments = make_environments(odd_task(fault))
    play(environments)
    with caplog.at_level(logging.WARNING, "fedpg_common.environments"):
        environments.close()
    assert [record.getMessage().split(": ")[1] for record in caplog.records if record.levelno == logging.WARNING] == [
        "environment odd_environments:Odd-v0 failed in close"
    ]


def test_what_cannot_be_made_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"^task odd: odd_env.*Odd-v0 cannot be made: it ended the process \(System"):
        make_environments(odd_task("make_exits"))


def test_ctrl_c_is_not_the_environments_but_only_in_the_main_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(odd_environments.STEPS, "step_raises", lambda: odd_environments._raise(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        play(make_environments(odd_task("step_raises")))
    sentences: list[str] = []
    thread = threading.Thread(target=lambda: sentences.append(failure("step_raises")))
    thread.start()
    thread.join()
    assert "failed in step: KeyboardInterrupt" in sentences[0]


@pytest.mark.parametrize("shape", [(0,), (3, 0)])
def test_spaces_without_numbers_are_refused(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Odd, "observation_space", Box(-1, 1, shape, np.float32))
    with pytest.raises(UsageError, match="observations must be a Box of one number at least"):
        make_environments(odd_task(""))
