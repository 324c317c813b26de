"""Whoever mends a module repeats the command: runs of which nothing has come are begun again with the new version."""

from __future__ import annotations

from pathlib import Path

import pytest
from fedpg_common.errors import ExitCode
from fedpg_lab.runs.folders import load_run
from support.lab import Command

EXPERIMENT = """
[[federation]]
task = "CartPole-v1"
aggregator = "mended_module:Mine"
agents = 2
trajectories = 60
"""
MODULE = """
import numpy as np
from fedpg_common.learning.aggregators import Aggregate, mean_vector
class Mine:
    def aggregate(self, votes, memory):
        {first}
        return Aggregate(mean_vector(votes.matrix).astype(np.float32), "mine")
"""
FAILS = 'raise RuntimeError("not yet")'
FAILS_LATER = f"if votes.plan.round_number == 2: {FAILS}"
MENDED = "pass"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the experiment's one run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mine.toml").write_text(EXPERIMENT)
    return tmp_path / "mine" / "CartPole-v1_fedpg-br_Mine_K2" / "seed-0"


def repeat(tmp_path: Path, fedpg: Command, first: str) -> tuple[int, str]:
    """The same command, with a module that begins like that."""
    (tmp_path / "mended_module.py").write_text(MODULE.format(first=first))
    code, _, error = fedpg("experiment", "mine.toml", "--in-process", "--out", tmp_path)
    return code, error


def test_a_run_without_a_round_is_begun_again(run: Path, tmp_path: Path, fedpg: Command) -> None:
    code, error = repeat(tmp_path, fedpg, FAILS)
    assert (code, "RuntimeError: not yet (mended_module.py, line 6)" in error) == (ExitCode.USAGE, True), error
    begun_with = load_run(run).federation.modules
    code, error = repeat(tmp_path, fedpg, MENDED)
    assert code == ExitCode.OK, error
    assert "started" in error
    ended = load_run(run)
    assert ended.is_complete
    assert ended.federation.modules != begun_with


def test_rounds_of_another_version_are_not_thrown_away(run: Path, tmp_path: Path, fedpg: Command) -> None:
    assert repeat(tmp_path, fedpg, FAILS_LATER)[0] == ExitCode.USAGE
    assert len(load_run(run).records) == 1
    code, error = repeat(tmp_path, fedpg, MENDED)
    assert (code, "was run with another version of mended_module: remove it" in error) == (ExitCode.STORAGE, True)
    assert len(load_run(run).records) == 1
