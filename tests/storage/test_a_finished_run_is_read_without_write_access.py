"""Whoever may read a run folder can read the run: a finished one, one that was killed, and one that is live."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fedpg_common.descriptions import describe
from fedpg_common.errors import StorageError
from fedpg_lab.runs.folders import load_run
from fedpg_server.storage.store import STORE_NAME, Store
from support.lab import Command, write_run
from support.privileges import as_an_ordinary_user
from support.protocol import initial_state, make_round_record
from support.terminal import PATIENCE_S, command_line, environment

FEDERATION = describe("CartPole-v1", agents=4, trajectories=16)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    for place in (*folder.iterdir(), folder):
        place.chmod(0o555 if place.is_dir() else 0o444)
    try:
        with as_an_ordinary_user():
            with pytest.raises(PermissionError):
                (folder / "new").touch()
            yield
    finally:
        folder.chmod(0o755)


def test_a_run_that_was_closed(tmp_path: Path, fedpg: Command) -> None:
    run = write_run(tmp_path / "run", FEDERATION, [make_round_record(1)])
    assert {path.name for path in run.iterdir()} == {STORE_NAME, "run.lock", "run.mark"}
    before = (run / STORE_NAME).read_bytes()
    with read_only(run):
        assert len(load_run(run).records) == 1
        assert fedpg("export", run)[0] == 0
        assert fedpg("runs", run)[0] == 0
        assert fedpg("figure", run, "--out", tmp_path / "figure.png")[0] == 0
        assert fedpg("report", run, "--out", tmp_path / "report")[0] == 0
        code, _, text = fedpg("report", run)
        assert (code, len(text.splitlines())) == (6, 1)
        code, _, text = fedpg("train", "--resume", run)
        assert code == 0, text
        assert "is complete" in text
    assert (run / STORE_NAME).read_bytes() == before


def killed_run(folder: Path, keep_log: bool) -> Path:
    """A copy of a store that is open: as a killed server leaves it, or a copy without the log of its writes."""
    live = folder / "live"
    live.mkdir()
    store = Store.create(live / STORE_NAME, "run", "agents = 4", initial_state())
    store.finish_round(make_round_record(1), initial_state())
    if not keep_log:
        checkpoint = sqlite3.connect(live / STORE_NAME)
        checkpoint.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        checkpoint.close()
    (folder / "run").mkdir()
    names = (STORE_NAME, f"{STORE_NAME}-wal") if keep_log else (STORE_NAME,)
    for name in names:
        shutil.copy(live / name, folder / "run" / name)
    store.close()
    return folder / "run"


@pytest.mark.parametrize("keep_log", [True, False])
def test_a_run_that_was_killed(tmp_path: Path, keep_log: bool) -> None:
    run = killed_run(tmp_path, keep_log)
    with read_only(run):
        store = Store.read(run / STORE_NAME)
        assert [record.round_number for record in store.records()] == [1]
        store.close()


def test_a_live_run_is_read_and_known_to_be_live(tmp_path: Path) -> None:
    path = tmp_path / STORE_NAME
    store = Store.create(path, "run", "agents = 4", initial_state())
    for number in (1, 2):
        store.finish_round(make_round_record(number), initial_state())
        reader = Store.read(path)
        assert len(reader.records()) == number
        reader.close()
        assert Store.is_live(path)
    store.close()
    assert not Store.is_live(path)
    reopened = Store.open(path)  # a server goes on in a file that was left for readers
    reopened.finish_round(make_round_record(3), initial_state())
    reopened.close()
    assert len(Store.read(path).records()) == 3


def test_a_store_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", FEDERATION, [make_round_record(1)])
    os.chmod(run / STORE_NAME, 0)
    with as_an_ordinary_user(), pytest.raises(StorageError, match="cannot be used"):
        load_run(run)


def test_a_user_without_a_home_folder_is_told_nothing_of_caches(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", FEDERATION, [make_round_record(1, trajectories_total=16)])
    homeless = environment(HOME=str(run / STORE_NAME))  # a file: no folder can be made below it
    for name in ("MPLCONFIGDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        homeless.pop(name, None)
    drawn = subprocess.run(
        command_line("fedpg", "figure", run, "--out", tmp_path / "picture.png"),
        env=homeless, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert (drawn.returncode, drawn.stderr) == (0, "")
