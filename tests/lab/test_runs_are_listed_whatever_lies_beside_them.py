"""`fedpg runs` lists every run with its state; damaged and foreign folders are lines, too."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from fedpg_common.descriptions import describe, federation_to_toml
from fedpg_lab.runs.folders import load_run, summarize, write_summary
from fedpg_lab.runs.listing import list_runs
from fedpg_lab.runs.listing_table import COLUMNS, listing
from fedpg_lab.runs.states import State
from fedpg_server.storage.store import STORE_NAME, Store
from support.lab import Command, write_run
from support.privileges import as_an_ordinary_user
from support.protocol import initial_state, make_round_record
from support.terminal import command_line, shown

ROUNDS = [make_round_record(n, evaluation_returns=(float(n), n + 1.0)) for n in range(1, 41)]
END = ROUNDS[-1].trajectories_total


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run in every state, and what is none."""
    done = describe("CartPole-v1", agents=4, byzantine=1, attack="sign-flipping", trajectories=END, seed=3)
    write_run(tmp_path / "a" / "done", done, ROUNDS)
    longer = describe("LunarLander-v3", agents=10, algorithm="svrpg", trajectories=END + 1)
    write_run(tmp_path / "a" / "part", longer, ROUNDS)
    write_run(tmp_path / "failed", longer, ROUNDS[:2])
    write_summary(load_run(tmp_path / "failed"), failure="the disk is full")
    write_run(tmp_path / "young", longer, [])
    for name, content in (("damaged", b"SQLite format 3\0 and no more"), ("foreign", b"hello"), ("empty", b"")):
        (tmp_path / name).mkdir()
        (tmp_path / name / STORE_NAME).write_bytes(content)
    (tmp_path / "strange").mkdir()
    Store.create(tmp_path / "strange" / STORE_NAME, "run", "algorithm = 7", initial_state()).close()
    (tmp_path / "directory" / STORE_NAME).mkdir(parents=True)
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "notes.txt").write_text("not a run")
    return tmp_path


def listed(folder: Path, fedpg: Command, *options: str) -> dict[str, dict[str, Any]]:
    code, text, error = fedpg("runs", folder, "--format", "json", *options)
    assert (code, error) == (0, "")
    lines = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    return {Path(line["run"]).name: line for line in lines}


def test_each_run_has_its_state_and_figures(folder: Path, fedpg: Command) -> None:
    store = Store.create(folder / STORE_NAME, "run", federation_to_toml(describe("CartPole-v1")), initial_state())
    lines = listed(folder, fedpg)
    store.close()
    assert {name: line["state"] for name, line in lines.items()} == {
        folder.name: "live", "done": "finished", "part": "unfinished", "young": "unfinished", "failed": "failed",
        "damaged": "unreadable", "foreign": "unreadable", "empty": "unreadable", "strange": "unreadable",
    }  # fmt: skip
    done = lines["done"]
    summary = summarize(load_run(folder / "a" / "done"))
    assert {
        name: done[name] for name in ("final_return", "best_return", "rounds", "trajectories", "seed", "agents")
    } == {name: summary[name] for name in ("final_return", "best_return", "rounds", "trajectories", "seed", "agents")}
    assert (done["attack"], done["byzantine"], lines["part"]["attack"]) == ("sign-flipping", 1, None)
    assert lines["failed"]["note"] == "the disk is full"
    assert lines["young"]["final_return"] is None
    assert all(lines[name]["note"] for name in ("damaged", "foreign", "empty", "strange"))


def test_filters_and_order(folder: Path, fedpg: Command) -> None:
    assert set(listed(folder, fedpg, "--state", "finished", "--state", "failed")) == {"done", "failed"}
    assert set(listed(folder, fedpg, "--task", "LunarLander-v3")) == {"part", "failed", "young"}
    assert set(listed(folder, fedpg, "--algorithm", "svrpg")) == {"part", "failed", "young"}
    assert set(listed(folder, fedpg, "--attack", "sign-flipping")) == {"done"}
    by_rounds = list(listed(folder, fedpg, "--sort", "rounds", "--reverse", "--algorithm", "svrpg"))
    assert by_rounds == ["part", "failed", "young"]
    by_return = list(listed(folder, fedpg, "--sort", "final_return"))
    assert by_return[:3] == ["failed", "done", "part"], "what has no return stands last"


def test_the_table_is_for_people(folder: Path, fedpg: Command) -> None:
    code, text, error = fedpg("runs", folder)
    assert (code, error) == (0, "")
    assert str(folder / "a" / "done") in text
    assert "8 runs: 2 unfinished, 1 finished, 1 failed, 4 unreadable" in text
    code, text, _ = fedpg("runs", folder, "--task", "Nope")
    assert (code, text) == (0, "0 of 8 runs\n")


@pytest.mark.parametrize("width", [10, 30, 50, 65, 80, 100, 130, 200])
def test_any_width_shows_each_state_and_path_and_says_what_it_leaves_out(folder: Path, width: int) -> None:
    lines = list_runs(folder)
    head, *text = listing(lines, width)
    for line in lines:
        assert any(row.startswith(line.state.value) for row in text)
        assert any(row.split("  ")[-1] == line.run for row in text), "whole, to be copied"
    not_shown = next((row for row in text if row.startswith("Not shown: ")), "")
    for name in COLUMNS:
        is_shown = name in head.split() or name == "run"
        assert is_shown != (name in not_shown.partition("(")[0].replace(",", " ").split()), name
    rows = [row for row in (head, *text) if not row.startswith(("  ", "Not shown"))]
    assert max(map(len, rows)) <= width


def test_no_width_hides_anything_in_a_terminal(folder: Path) -> None:
    for columns in (60, 80, 200):
        screen = shown(command_line("fedpg", "runs", folder), columns=columns)
        text = "".join(line.ljust(columns) for line in screen.screen)
        assert screen.code == 0
        assert all(str(line.run) in text for line in list_runs(folder))
        assert "8 runs: 2 unfinished, 1 finished, 1 failed, 4 unreadable" in text


def test_a_folder_that_cannot_be_searched_is_a_line(folder: Path, fedpg: Command) -> None:
    (folder / "a").chmod(0)
    with as_an_ordinary_user():
        lines = listed(folder, fedpg)
    (folder / "a").chmod(0o755)
    assert lines["a"]["state"] == "unreadable"
    assert "Permission denied" in lines["a"]["note"]
    assert "failed" in lines


def test_a_return_that_is_not_a_number_ends_no_listing(tmp_path: Path, fedpg: Command) -> None:
    rounds = [make_round_record(1, evaluation_returns=(math.nan,)), make_round_record(2, evaluation_returns=(7.0,))]
    write_run(tmp_path / "run", describe("CartPole-v1", agents=4, trajectories=32), rounds)
    (line,) = listed(tmp_path, fedpg).values()
    assert (line["best_return"], line["state"]) == (7.0, "finished")


def test_nothing_reads_whole_records(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_store: Store) -> None:
        raise AssertionError("300 runs would take long")

    monkeypatch.setattr(Store, "records", refuse)
    assert any(line.state is State.FINISHED for line in list_runs(folder))
