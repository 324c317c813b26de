"""A start that fails before there is anything to resume removes what it made, and nothing else."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from pathlib import Path

import pytest
from fedpg_common.errors import ExitCode
from fedpg_lab.local.in_process.child import run_main
from fedpg_lab.local.in_process.rounds import RunOptions
from fedpg_lab.local.train import NewFolders
from fedpg_server.storage.mark import mark_path
from fedpg_server.storage.store import STORE_NAME
from support.lab import Command, small_federation

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


@pytest.mark.parametrize(("mark", "is_removed"), [(b"", True), (b"a run's", False)])
def test_a_store_that_a_full_disk_kept_from_being_made_blocks_no_name(
    tmp_path: Path, mark: bytes, is_removed: bool
) -> None:
    """It leaves an empty mark; the mark of a run that has lost its store is not empty."""
    made = NewFolders(tmp_path / "run")
    (tmp_path / "run").mkdir()
    mark_path(tmp_path / "run" / STORE_NAME).write_bytes(mark)
    assert made.remove_unless_resumable() == is_removed
    assert (tmp_path / "run").exists() != is_removed


def test_a_run_in_one_process_says_that_the_disk_is_full_also_where_its_log_is_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").touch()
    hearing, telling = multiprocessing.Pipe(duplex=False)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with open("/dev/full", "w") as full:
            monkeypatch.setattr(sys, "stderr", full)
            code = run_main(RunOptions(tmp_path / "taken", small_federation()), telling)
            monkeypatch.undo()
    except OSError:  # closing the file writes once more
        pass
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert code == ExitCode.STORAGE
    kind, sentence, told = hearing.recv()
    assert (kind, told) == ("failed", ExitCode.STORAGE)
    assert str(tmp_path / "taken") in sentence
