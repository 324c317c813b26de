"""`fedpg train` trains over real processes and leaves everything that a user comes back for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fedpg_common.descriptions import read_federation
from fedpg_common.errors import StorageError
from fedpg_common.federation import name_of
from fedpg_common.learning.checkpoints import read_checkpoint
from fedpg_common.learning.parameters import digest
from fedpg_lab.local.train import NewFolders, new_folder
from fedpg_lab.runs.folders import load_run
from fedpg_server.storage.locking import Lock
from fedpg_server.storage.store import STORE_NAME
from support.lab import TRAJECTORIES, digests, run_federation, small_federation

COMMAND = [sys.executable, "-c", "from fedpg_lab.cli import main; main()", "train", "--agents", "4", "--byzantine", "1"]


def wait_until_a_round_is_closed(folder: Path, process: subprocess.Popen[str]) -> None:
    while process.poll() is None:
        try:
            if load_run(folder).records:
                return
        except StorageError:
            pass  # the server has not made its store yet
        time.sleep(0.02)
    pytest.fail(f"the run ended before it could be interrupted: {process.communicate()[0]}")


def test_the_command_writes_store_config_summary_picture_checkpoints_events_and_logs(tmp_path: Path) -> None:
    arguments = [*COMMAND, "--trajectories", str(TRAJECTORIES), "--name", "run", "--out", str(tmp_path)]
    finished = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "final return" in finished.stderr
    folder = tmp_path / "run"
    run = load_run(folder)
    assert run.is_complete
    assert read_federation(folder / "config.toml") == run.federation == small_federation()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["complete"]
    assert summary["trajectories"] == run.records[-1].trajectories_total >= TRAJECTORIES
    assert (folder / "returns.png").read_bytes().startswith(b"\x89PNG")
    checkpoint = read_checkpoint(folder / "checkpoints" / "latest.safetensors")
    assert digest(checkpoint.theta) == run.records[-1].parameters_digest == summary["parameters_digest"]
    assert list(folder.glob("events.*"))
    assert {path.stem for path in (folder / "logs").iterdir()} == {"server", *(f"agent-{i}" for i in range(1, 5))}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_every_process_and_resume_gives_the_same_parameters(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    folder = tmp_path / "run"
    arguments = [*COMMAND, "--trajectories", "1000000", "--name", "run", "--out", str(tmp_path)]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_until_a_round_is_closed(folder, process)
    os.kill(process.pid, number)
    _, text = process.communicate(timeout=300)
    assert process.returncode == code, text
    assert f"--resume {folder}" in text
    assert json.loads((folder / "summary.json").read_text())["complete"] is False
    trajectories = load_run(folder).records[-1].trajectories_total + TRAJECTORIES
    undisturbed = run_federation(small_federation(trajectories=trajectories), tmp_path / "undisturbed")
    resume = [*COMMAND[:4], "--resume", str(folder), "--trajectories", str(trajectories)]
    resumed = subprocess.run(resume, capture_output=True, text=True, timeout=120, check=False)
    assert resumed.returncode == 0, resumed.stderr
    assert digests(load_run(folder)) == digests(undisturbed)


def test_a_name_that_is_taken_is_refused_and_a_made_up_name_moves_on(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(StorageError, match="exists already: choose another --name"):
        new_folder(tmp_path, "mine", "unused")
    (tmp_path / "mine" / "logs").mkdir()  # of something else
    with pytest.raises(StorageError, match="it holds no run to resume"):
        new_folder(tmp_path, "mine", "unused")
    made_up = name_of(small_federation())
    assert made_up == "CartPole-v1_fedpg-br_K4_B1_random-noise"
    (tmp_path / made_up).mkdir()
    assert new_folder(tmp_path, None, made_up).name == f"{made_up}-2"


@pytest.mark.parametrize("place", ["both", "both/seed-3", "both/group-2"])
def test_a_name_that_another_command_is_using_is_told_apart(tmp_path: Path, place: str) -> None:
    folder = tmp_path / place
    (folder / "logs").mkdir(parents=True)
    (folder / "logs" / "server.log").touch()
    with pytest.raises(StorageError, match=r"another command is starting a run in \S+, or was killed"):
        new_folder(tmp_path, "both", "unused")
    lock = Lock(folder / STORE_NAME)  # its server is there, and has not made its store yet
    try:
        with pytest.raises(StorageError, match=r"another command is using \S+both: choose another --name, or wait"):
            new_folder(tmp_path, "both", "unused")
    finally:
        lock.release()


def test_who_comes_second_leaves_the_first_ones_folder_alone(tmp_path: Path) -> None:
    made = NewFolders(tmp_path / "both")  # both have found nothing there
    (tmp_path / "both").mkdir()
    lock = Lock(tmp_path / "both" / STORE_NAME)
    try:
        assert made.remove_unless_resumable()
        assert (tmp_path / "both").is_dir()
    finally:
        lock.release()
    assert made.remove_unless_resumable()
    assert not (tmp_path / "both").exists()
