"""The batch of docs/extending-environments.md trains elsewhere as printed there, to the bits of Gymnasium's class."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fedpg_common.environments import make_environments
from fedpg_common.environments.factory import gymnasium_id
from fedpg_common.environments.guarded_batch import GuardedBatch
from fedpg_common.errors import EnvironmentFailedError, ExitCode, UsageError
from fedpg_common.tasks import Task, find_task
from fedpg_lab.runs.folders import load_run
from support.lab import Command, digests

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "extending"
FILES = ("pendulums.py", "pendulums.toml")
PAGE = (ROOT / "docs" / "extending-environments.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("file", FILES)
def test_the_page_prints_the_whole_example(file: str) -> None:
    blocks = re.findall(r"```(?:python|toml)\n(.*?)```", PAGE, re.DOTALL)
    assert (EXAMPLE / file).read_text(encoding="utf-8") in blocks


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the example, in which one works."""
    for file in FILES:
        shutil.copy(EXAMPLE / file, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for module in ("pendulums", "odd"):
        sys.modules.pop(module, None)


def test_it_trains_to_the_parameters_of_the_slow_one(elsewhere: Path, fedpg: Command) -> None:
    """Across processes, with the batch's setting, and under the attack that chooses actions."""
    slow = (elsewhere / "pendulums.toml").read_text().replace("pendulums:Pendulums", "Pendulum-v1")
    (elsewhere / "slow.toml").write_text(slow)
    for file in ("pendulums", "slow"):
        code, _, text = fedpg("train", "--task", f"{file}.toml", "--agents", "3", "--byzantine", "1", "--attack",
                              "random-action", "--trajectories", "40", "--no-tensorboard", "--name", file)  # fmt: skip
        assert code == ExitCode.OK, text
    fast, reference = (load_run(elsewhere / "runs" / file) for file in ("pendulums", "slow"))
    assert len(fast.records) > 1
    assert digests(fast) == digests(reference)
    code, output, text = fedpg("evaluate", "runs/pendulums", "--json")
    assert code == ExitCode.OK, text
    assert len(json.loads(output)["returns"]) == 10


@pytest.mark.parametrize("g", [9.81, 3.0])
def test_every_step_has_the_bits_of_gymnasiums_class(elsewhere: Path, g: float) -> None:
    task = replace(find_task(str(elsewhere / "pendulums.toml")), environment_options={"g": g})
    fast, slow = make_environments(task), make_environments(replace(task, environment="Pendulum-v1"))
    assert isinstance(fast, GuardedBatch)
    assert (fast.action_space, fast.observation_size) == (slow.action_space, slow.observation_size)
    rng, seeds = np.random.default_rng(1), np.array([0, 2**31 - 1, 0, 12345])
    np.testing.assert_array_equal(fast.reset(seeds), slow.reset(seeds))
    for t in range(60):
        actions = rng.normal(0.0, 1.0, (len(seeds), 1)).astype(np.float32)
        for mine, theirs in zip(fast.step(actions), slow.step(actions), strict=True):
            np.testing.assert_array_equal(mine, theirs)
        if t == 20:
            live = np.array([True, False, True, True])
            for batch in (fast, slow):
                batch.keep(live)
            seeds = seeds[live]
    fast.close()
    slow.close()


def test_one_episode_alone_is_played_by_the_class_that_it_names(elsewhere: Path) -> None:
    assert gymnasium_id(find_task(str(elsewhere / "pendulums.toml"))) == "Pendulum-v1"


def test_a_wrong_setting_is_one_sentence_that_lists_the_settings(elsewhere: Path) -> None:
    task = find_task(str(elsewhere / "pendulums.toml"))
    with pytest.raises(UsageError, match=r"'gg': did you mean g\? Its settings are g \(default 10.0\)"):
        make_environments(replace(task, environment_options={"gg": 1}))
    with pytest.raises(UsageError, match=r"cannot be used: g must be at least 0, not -1"):
        make_environments(replace(task, environment_options={"g": -1}))


ODD = """
import numpy as np
from pendulums import Pendulums

class Odd(Pendulums):
    gymnasium_id = ""

    def __init__(self, fault):
        super().__init__()
        self._fault = fault
        if fault == "size":
            self.observation_size = 0
        if fault == "space":
            self.action_space = 2

    def step(self, actions):
        fault = self._fault
        if fault == "raises":
            1 / 0
        if fault == "exits":
            raise SystemExit(3)
        observations, rewards, ended = super().step(actions)
        if fault == "shape":
            observations = observations[1:]
        if fault == "nan":
            observations[0] = np.nan
        if fault == "rewards":
            rewards = rewards[1:]
        if fault == "infinite":
            rewards[0] = np.inf
        if fault == "ends":
            ended = [False] * len(rewards)
        return (observations, rewards) if fault == "two" else (observations, rewards, ended)
"""


def odd(folder: Path, fault: str) -> Task:
    """A task with a batch that does something wrong."""
    (folder / "odd.py").write_text(ODD)
    task = find_task(str(folder / "pendulums.toml"))
    return replace(task, environment="odd:Odd", environment_options={"fault": fault})


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("raises", r"failed in step: ZeroDivisionError: division by zero \(odd.py, line 19\)"),
        ("exits", "it ended the process"),
        ("shape", r"must have the space's shape \(2, 3\), not \(1, 3\)"),
        ("nan", "the observation must be finite numbers"),
        ("rewards", "rewards must be an array of 2 numbers"),
        ("infinite", "the reward must be one finite number"),
        ("ends", "ends must be an array of 2 truth values, not a list of 2"),
        ("two", "it must return observations, rewards and ends, not a tuple of 2"),
    ],
)
def test_whatever_a_batch_does_wrong_is_one_sentence(elsewhere: Path, fault: str, words: str) -> None:
    batch = make_environments(odd(elsewhere, fault))
    batch.reset(np.array([1, 2]))
    with pytest.raises(EnvironmentFailedError, match=words) as caught:
        batch.step(np.zeros((2, 1), np.float32))
    assert str(caught.value).startswith("task pendulums: environment odd:Odd ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("fault", "words"), [("size", "observation_size must be"), ("space", "action_space must be")])
def test_a_batch_says_what_it_observes_and_does(elsewhere: Path, fault: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make_environments(odd(elsewhere, fault))


def test_a_batch_that_names_no_class_cannot_be_drawn(elsewhere: Path) -> None:
    with pytest.raises(UsageError, match="names no gymnasium_id"):
        gymnasium_id(odd(elsewhere, ""))
