"""A start that fails before there is anything to resume removes what it made, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from fedpg_lab.local.train import NewFolders
from fedpg_server.storage.store import STORE_NAME
from support.lab import Command

TASK = """
environment = "Nope-v0"
hidden = [4]
activation = "relu"
horizon = 5
evaluation_horizon = 5
trajectories = 5
gamma = 0.9
learning_rate = 0.001
batch_size = 2
batch_size_min = 2
batch_size_max = 2
mini_batch_size = 1
inner_steps = 1
"""


@pytest.mark.parametrize("options", [[], ["--runs", "2"], ["--name", "deep"]])
def test_a_name_can_be_used_again(tmp_path: Path, fedpg: Command, options: list[str]) -> None:
    (tmp_path / "Nope.toml").write_text(TASK)
    command = ["train", "--task", tmp_path / "Nope.toml", "--agents", "1", "--out", tmp_path / "a" / "b", *options]
    for _ in range(2):
        code, _, text = fedpg(*command)
        assert code in (2, 9), text
        assert "Nope" in text
        assert not (tmp_path / "a").exists()
    (tmp_path / "a").mkdir()
    fedpg(*command)
    assert list((tmp_path / "a").iterdir()) == [], "a folder that was there stays"


def test_only_what_was_made_is_removed(tmp_path: Path) -> None:
    made = NewFolders(tmp_path / "a" / "run")
    (tmp_path / "a" / "run" / "logs").mkdir(parents=True)
    (tmp_path / "a" / "somebody-elses").touch()
    assert made.remove_unless_resumable()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["somebody-elses"]


def test_a_run_that_can_be_resumed_stays(tmp_path: Path) -> None:
    made = NewFolders(tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / STORE_NAME).touch()
    assert not made.remove_unless_resumable()
    assert (tmp_path / "run" / STORE_NAME).exists()


def test_a_folder_that_was_there_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").touch()
    assert NewFolders(tmp_path / "run").remove_unless_resumable()
    assert (tmp_path / "run" / "notes.txt").exists()
