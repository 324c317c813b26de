"""`--runs N` is N runs from scratch: the parameters of the second are those of a run of its own."""

from __future__ import annotations

from pathlib import Path

from fedpg_lab.cli import app
from fedpg_lab.runs.folders import load_run
from support.lab import TRAJECTORIES, digests, run_federation, small_federation
from typer.testing import CliRunner


def test_a_repeated_run_equals_a_run_of_its_own(tmp_path: Path) -> None:
    arguments = ["train", "--agents", "4", "--byzantine", "1", "--trajectories", str(TRAJECTORIES), "--runs", "2"]
    arguments += ["--seed", "6", "--name", "both", "--out", str(tmp_path), "--no-tensorboard"]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 0, outcome.output
    second = load_run(tmp_path / "both" / "seed-7")
    alone = run_federation(small_federation(seed=7), tmp_path / "alone")
    assert digests(second) == digests(alone)
    assert (tmp_path / "both" / "returns.png").is_file()
