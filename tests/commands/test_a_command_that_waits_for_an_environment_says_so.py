"""A command that plays episodes in its own process says for which method of the environment it waits, and where."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from fedpg_common import waits
from fedpg_common.descriptions import describe
from fedpg_common.learning.checkpoints import Checkpoint, write_checkpoint
from fedpg_common.learning.policies import make_policy
from fedpg_lab.check.patience import Patience
from fedpg_lab.terminal import waits as told_waits
from gymnasium.spaces import Discrete
from support.hanging_parts import GATE, PATIENCE_S, Gated, gated_task
from support.lab import Command, write_run


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """It is said soon, and whoever waits at the gate may pass once it was."""
    monkeypatch.setattr(waits, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(waits, "TELL_AFTER_S", 0.05)
    tell = told_waits._tell

    def tell_and_open(thread: int, waiting: waits.Waiting | None) -> None:
        tell(thread, waiting)
        GATE.opened.set()

    monkeypatch.setattr(told_waits, "_tell", tell_and_open)
    GATE.reset()
    yield
    GATE.opened.set()


def save(folder: Path, method: str) -> Path:
    """A run folder with a policy whose environment waits in that method."""
    federation = describe("CartPole-v1", agents=1)
    task = gated_task(method)
    policy = make_policy(task, 3, Discrete(2))
    run = write_run(folder, federation, [])
    (run / "checkpoints").mkdir()
    theta = policy.initial_parameters(np.random.default_rng(0))
    write_checkpoint(run / "checkpoints" / "latest.safetensors", Checkpoint(theta, policy.spec, task, 1, None))
    return run


@pytest.mark.parametrize(
    ("command", "method"),
    [
        *product(("evaluate", "ensemble"), ("__init__", "reset", "step", "close")),
        ("evaluate", "render"),
    ],
)
def test_it_names_the_call_and_the_line(command: str, method: str, tmp_path: Path, fedpg: Command) -> None:
    run = save(tmp_path / "group-1", method)
    arguments: list[object] = [command, run if command == "evaluate" else tmp_path, "--episodes", 1]
    if method == "render":
        arguments += ["--video", tmp_path / "v.gif"]
    code, out, error = fedpg(*arguments)
    assert code == 0
    assert "mean " in out
    who = "task odd: environment support.hanging_parts:Gated-v0"
    said = " ".join(error.split())
    assert re.search(rf"fedpg: waiting for 0 s for {method} of {who} \(hanging_parts\.py, line \d+\)", said), error


def test_a_command_whose_environment_returns_says_nothing(tmp_path: Path, fedpg: Command) -> None:
    GATE.opened.set()
    assert Gated("").reset()[1] == {}
    code, _, error = fedpg("evaluate", save(tmp_path / "run", ""), "--episodes", 1)
    assert (code, error) == (0, "")


def test_training_says_what_it_waits_for_before_the_run_begins(tmp_path: Path, fedpg: Command) -> None:
    part = "support.hanging_parts:Constructed"
    code, _, error = fedpg("train", "--aggregator", part, "--out", tmp_path)
    said = " ".join(error.split())
    assert re.search(rf"fedpg: waiting for 0 s for __init__ of aggregator {part} \(hanging_parts\.py, line \d+\)", said)
    assert (code, list(tmp_path.iterdir())) == (2, []), "it is no aggregator"


def test_an_observer_that_is_not_there_is_told_before_anything_is_started(tmp_path: Path, fedpg: Command) -> None:
    code, out, error = fedpg("train", "--observer", "no_such_module:Mine", "--out", tmp_path)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert "observer no_such_module:Mine: no_such_module cannot be imported" in error
    assert list(tmp_path.iterdir()) == []


def test_a_check_says_where_its_part_is() -> None:
    said = threading.Event()
    told: list[str] = []

    def tell(sentence: str) -> None:
        told.append(sentence)
        said.set()

    def wait_until_said(wait: Callable[[float], bool]) -> None:
        assert wait(PATIENCE_S)

    with Patience(3600.0, tell, told_after_s=0.1).watched("is quick"):
        wait_until_said(said.wait)
    (sentence,) = told
    assert re.fullmatch(
        rf"no answer for 0\.1 s \({Path(__file__).name}, line \d+\), and 3600 s at most \(promise: is quick\)", sentence
    )
