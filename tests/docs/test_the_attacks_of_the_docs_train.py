"""The examples of docs/extending-attacks.md, as printed there, train from a folder that is not FedPG's."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from fedpg_common.choices import Choice
from fedpg_lab.cli import app
from fedpg_lab.runs.folders import load_run
from support.lab import digests
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending-attacks.md").read_text(encoding="utf-8")
EXAMPLES = {"orthogonal": "Orthogonal", "alie": "ALIE"}


@pytest.mark.parametrize("module", EXAMPLES)
def test_the_page_prints_the_whole_example(module: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert (ROOT / "examples" / "extending" / f"{module}.py").read_text(encoding="utf-8") in blocks


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the examples, in which one works."""
    for module in EXAMPLES:
        (tmp_path / f"{module}.py").write_text((ROOT / "examples" / "extending" / f"{module}.py").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_a_lone_attack_trains_from_the_command_line(elsewhere: Path) -> None:
    arguments = ["train", "--agents", "4", "--byzantine", "1", "--trajectories", "60", "--agents-per-process", "2"]
    arguments += ["--attack", "orthogonal:Orthogonal", "--set", "attack.length=2", "--name", "run", "--no-tensorboard"]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 0, outcome.output
    run = load_run(elsewhere / "runs" / "run")
    assert run.federation.byzantine == {1: Choice("orthogonal:Orthogonal", {"length": 2})}
    assert len(run.records) > 1
    for record in run.records:
        # At a right angle and twice as long, it is farther from a good vector than good ones are from each other.
        assert record.distances["between"] > record.distances["good"]


DESCRIPTION = """
task = "CartPole-v1"
agents = 6
trajectories = 60

[byzantine]
2 = { name = "alie:ALIE", z = 1.5, on = 1, off = 1 }
5 = { name = "alie:ALIE", z = 1.5, on = 1, off = 1 }
6 = "orthogonal:Orthogonal"
"""


def test_a_colluding_attack_trains_from_a_description(elsewhere: Path) -> None:
    (elsewhere / "federation.toml").write_text(DESCRIPTION)
    for name, share in (("apart", "1"), ("together", "6")):
        arguments = ["train", "--federation", "federation.toml", "--name", name, "--agents-per-process", share]
        outcome = CliRunner().invoke(app, [*arguments, "--no-tensorboard"])
        assert outcome.exit_code == 0, outcome.output
    apart, together = (load_run(elsewhere / "runs" / name) for name in ("apart", "together"))
    assert digests(apart) == digests(together)
    assert len(apart.records) > 2


FAILING = """
from fedpg_client.attacks import Attack

class Failing(Attack):
    def tamper_gradient(self, gradient, context):
        return gradient[context.nothing]
"""


def test_an_attack_that_fails_is_named_in_one_sentence(elsewhere: Path) -> None:
    (elsewhere / "failing.py").write_text(FAILING)
    arguments = ["train", "--agents", "3", "--byzantine", "1", "--trajectories", "16", "--round-timeout", "0.5"]
    arguments += ["--attack", "failing:Failing", "--name", "run", "--no-tensorboard"]
    CliRunner().invoke(app, arguments)
    log = (elsewhere / "runs" / "run" / "logs" / "agent-1.log").read_text()
    sentence = "attack failing:Failing failed in tamper_gradient: AttributeError: 'Context' object has no attribute"
    assert sentence in log
    assert "Traceback" not in log
