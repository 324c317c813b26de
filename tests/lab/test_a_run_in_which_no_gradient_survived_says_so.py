"""A run whose agents had no part in what was learned says so at its end, and what to look at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fedpg_common.descriptions import describe
from fedpg_lab.runs.folders import RunData
from fedpg_lab.runs.no_gradient import describe_no_gradient
from support.protocol import make_round_record

NEVER = """
import numpy as np
from fedpg_common.learning.aggregators import Aggregate
class Never:
    def aggregate(self, votes, memory):
        return Aggregate(np.full(votes.matrix.shape[1], np.nan, np.float32), "never")
"""


def run_of(lone: int, rounds: int = 20, changes: dict[str, Any] | None = None, **described: Any) -> RunData:
    """A run whose first rounds have no gradient, by default for a sigma that does not fit."""
    without = {"has_mu": False, "rule": "none", "accepted": (), "filtered": (1, 2, 3, 4), "centre_distances": {},
               "distances": {"good": 0.9}, "figures": {"radius": 0.12}}  # fmt: skip
    records = [
        make_round_record(n, **({**without, **(changes or {})} if n <= lone else {})) for n in range(1, rounds + 1)
    ]
    return RunData(Path("runs/mine"), describe("CartPole-v1", agents=4, **described), records)


@pytest.mark.parametrize(("lone", "is_told"), [(0, False), (1, False), (2, True), (20, True)])
def test_it_is_told_from_a_tenth_of_the_rounds_on(lone: int, is_told: bool) -> None:
    said = describe_no_gradient(run_of(lone))
    assert (said is not None) is is_told
    if said is not None:
        assert said.startswith(
            f"In {lone} of 20 rounds no gradient survived: the server learned alone. Does sigma fit?"
        )
        assert "Honest gradients lay 0.9 apart on average; within 0.12 they count as near." in said


@pytest.mark.parametrize(
    ("described", "advice"),
    [
        ({"aggregator": "math:NaN"}, "fedpg check math:NaN"),
        ({"byzantine": 2, "attack": "random-noise"}, "2 of 4 agents attack, and the filter needs a majority"),
        ({"aggregator": "krum"}, "See what krum made of the votes: fedpg figure runs/mine --kind distances"),
        ({}, "fedpg figure runs/mine --kind distances"),
    ],
)  # fmt: skip
def test_the_advice_is_for_the_rule(described: dict[str, Any], advice: str) -> None:
    said = describe_no_gradient(run_of(10, **described))
    assert said is not None
    assert said.endswith(advice)


def test_no_figure_is_named_that_cannot_be_drawn_and_no_learning_that_was_not() -> None:
    said = describe_no_gradient(run_of(20))
    assert said is not None
    assert said.endswith("fedpg watch runs/mine")  # there is nothing to measure distances from
    still = describe_no_gradient(run_of(20, changes={"inner_steps_taken": 0, "filtered": ()}, algorithm="gpomdp"))
    assert still == (
        "In 20 of 20 rounds no gradient survived: nothing was learned. Nobody voted in them: see the logs, or fedpg "
        "watch runs/mine"
    )


@pytest.mark.parametrize("how", [[], ["--in-process"]])
@pytest.mark.parametrize(
    ("settings", "advice"),
    [(["--aggregator", "never_answers:Never"], "fedpg check never_answers:Never"),
     (["--set", "task.sigma=1e-6"], "Does sigma fit? Honest gradients lay ")],
)  # fmt: skip
def test_the_command_says_so_last(tmp_path: Path, how: list[str], settings: list[str], advice: str) -> None:
    (tmp_path / "never_answers.py").write_text(NEVER)
    command = [sys.executable, "-c", "from fedpg_lab.cli import main; main()", "train", "--agents", "4", "--seed", "0",
               "--trajectories", "60", "--no-tensorboard", "--name", "run", *settings, *how]  # fmt: skip
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    summary = json.loads((tmp_path / "runs" / "run" / "summary.json").read_text(encoding="utf-8"))
    rounds = summary["rounds"]
    assert summary["rounds_without_gradient"] == rounds
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f"In {rounds} of {rounds} round")
    assert "no gradient survived: the server learned alone. " in last
    assert advice in last
