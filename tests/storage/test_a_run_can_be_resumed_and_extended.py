"""`--resume` continues a run, also beyond its end, and refuses what it would ignore."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
import tomllib
from contextlib import closing
from pathlib import Path

import pytest
from fedpg_common.descriptions import federation_from_toml, read_federation
from fedpg_common.federation import Federation
from fedpg_lab.runs.folders import load_run
from fedpg_server import cli as server_cli
from fedpg_server.storage.store import STORE_NAME, Store
from support.lab import Command, digests, run_federation, small_federation, write_run
from support.protocol import make_round_record

FEDERATION = small_federation()
LONGER = 120


def with_trajectories(federation: Federation, count: int) -> Federation:
    return dataclasses.replace(federation, task=dataclasses.replace(federation.task, trajectories=count))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    run_federation(FEDERATION, folder)
    return folder


def test_an_extended_run_is_the_run_with_the_larger_count(finished: Path, tmp_path: Path, fedpg: Command) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    before = digests(load_run(folder))
    code, _, text = fedpg("train", "--resume", folder, "--trajectories", LONGER, "--no-tensorboard")
    assert code == 0, text
    longer = run_federation(with_trajectories(FEDERATION, LONGER), tmp_path / "longer")
    extended = load_run(folder)
    assert digests(extended) == digests(longer)
    assert digests(extended)[: len(before)] == before
    assert len(before) < len(digests(extended))
    assert extended.federation == longer.federation == read_federation(folder / "config.toml")
    store = Store.read(folder / STORE_NAME)
    (earlier,) = store.extensions()
    store.close()
    assert earlier["after_round"] == len(before)
    assert federation_from_toml(earlier["federation"], "the history") == FEDERATION


def test_a_finished_run_is_not_started_again(finished: Path, tmp_path: Path, fedpg: Command) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "summary.json").unlink()
    (folder / "returns.png").unlink()
    logs = snapshot(folder / "logs")
    code, _, text = fedpg("train", "--resume", folder)
    assert code == 0
    assert "is complete" in text
    assert "Done: final return" in text
    assert snapshot(folder / "logs") == logs, "no process was started"
    assert (folder / "summary.json").is_file()
    assert (folder / "returns.png").is_file()


@pytest.mark.parametrize("count", [1, 59])
def test_less_than_is_done_is_refused(finished: Path, tmp_path: Path, fedpg: Command, count: int) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    before = snapshot(folder)
    code, _, text = fedpg("train", "--resume", folder, "--trajectories", count)
    assert code == 2
    assert "trajectories already" in text
    assert snapshot(folder) == before


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--agents", "5"], "would ignore --agents: leave it out"),
        (["--task", "CartPole-v1", "--seed", "1"], "would ignore --task, --seed: leave them out"),
        (["--name", "x"], "--name"),
        (["--out", "runs"], "--out"),
        (["--runs", "1"], "--runs"),
        (["--sigma", "0.1", "--round-timeout", "5"], "--sigma, --round-timeout"),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    finished: Path, fedpg: Command, options: list[str], named: str
) -> None:
    code, _, text = fedpg("train", "--resume", finished, *options)
    assert code == 2
    assert named in text


@pytest.mark.parametrize("options", [["--agents", "5"], ["--home", "runs"], ["--federation", "x.toml"]])
def test_the_server_refuses_them_too(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    command = ["fedpg-server", "--resume", "--listen", "127.0.0.1:0", "--out", str(finished), *options]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.setenv("FEDPG_SEED", "7")  # meant for whoever reads it
    with pytest.raises(SystemExit) as ended:
        server_cli.main()
    assert ended.value.code == 2
    assert f"would ignore {options[0]}: leave it out" in capsys.readouterr().err


def test_what_is_not_a_run_is_told_apart(tmp_path: Path, fedpg: Command) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name, sentence in (
        ("nowhere", "there is no folder"),
        ("file", "is not a folder"),
        ("empty", f"there is no run in {tmp_path / 'empty'}, which has no run.sqlite: fedpg train --out"),
    ):
        code, _, text = fedpg("train", "--resume", tmp_path / name)
        assert code == 6
        assert sentence in text


def test_a_run_whose_store_is_gone_is_no_place_without_a_run(finished: Path, tmp_path: Path, fedpg: Command) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "run.sqlite").unlink()
    for command in (("train", "--resume"), ("report",), ("export",)):
        code, _, text = fedpg(*command, folder)
        assert code == 6
        assert f"the run in {folder} has lost its run.sqlite: put the whole folder back from a copy" in text
        assert f"fedpg evaluate {folder}" in text
    assert fedpg("evaluate", folder, "--episodes", "1")[0] == 0


def test_all_seeds_of_a_folder_are_resumed(finished: Path, tmp_path: Path, fedpg: Command) -> None:
    folder = tmp_path / "runs"
    shutil.copytree(finished, folder / "seed-0")
    write_run_of_seed_1 = dataclasses.replace(FEDERATION, seed=1)
    run_federation(write_run_of_seed_1, folder / "seed-1")
    code, _, text = fedpg("train", "--resume", folder, "--trajectories", LONGER, "--no-tensorboard")
    assert code == 0, text
    assert all(load_run(folder / f"seed-{seed}").is_complete for seed in (0, 1))
    assert all(load_run(folder / f"seed-{seed}").records[-1].trajectories_total >= LONGER for seed in (0, 1))
    assert (folder / "returns.png").is_file()


def test_no_seed_is_touched_if_one_cannot_be_extended(tmp_path: Path, fedpg: Command) -> None:
    for seed, count in ((0, 40), (1, 200)):
        record = make_round_record(1, trajectories_total=count)
        write_run(tmp_path / f"seed-{seed}", dataclasses.replace(FEDERATION, seed=seed), [record])
    before = snapshot(tmp_path)
    code, _, text = fedpg("train", "--resume", tmp_path, "--trajectories", "100")
    assert code == 2
    assert "seed-1 has 200 trajectories already" in text
    assert snapshot(tmp_path) == before


def test_a_run_that_is_under_way_is_left_alone(tmp_path: Path, fedpg: Command) -> None:
    folders = [write_run(tmp_path / f"seed-{seed}", FEDERATION, [make_round_record(1)]) for seed in (0, 1)]
    with closing(Store.open(folders[1] / STORE_NAME)):
        code, _, text = fedpg("train", "--resume", tmp_path)
        assert code == 6
        assert text == f"fedpg: the run in {folders[1]} is under way: another server has its store\n"
    assert not list(tmp_path.rglob("logs")), "nothing was started"


def test_the_servers_command_extends_a_run(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    command = [sys.executable, "-c", "from fedpg_server.cli import main; main()", "--resume", "--listen", "127.0.0.1:0",
               "--out", str(folder), "--trajectories", str(LONGER)]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        for line in server.stderr:
            if " from round " in line:
                break
        server.terminate()
        assert server.wait(300) == 143
    assert tomllib.loads((folder / "config.toml").read_text())["task"]["trajectories"] == LONGER
    assert not load_run(folder).is_complete
