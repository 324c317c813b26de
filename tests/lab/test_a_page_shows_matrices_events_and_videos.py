"""What the page has beside runs' rounds: an experiment's matrix, what happened to a run, the best policy's episode."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from fedpg_lab.runs.no_gradient import LONE, LONE_MEANS
from fedpg_lab.watch.events import LateRounds, faults_of, marks_of
from fedpg_lab.watch.logs import ServerLog
from fedpg_lab.watch.videos import Videos
from support.lab import run_federation, small_federation
from support.watch import ask, ask_json, page_of, watched_run

PATIENCE_S = 240.0


def cell(row: str, column: str | None, mean: float | None, runs: list[str | None], **changes: Any) -> dict[str, Any]:
    """A cell as an experiment writes it, of two seeds."""
    return {
        "row": row, "column": column, "final_returns": [mean, mean], "mean": mean, "worst": mean,
        "to_threshold": [100, 300], "complete": [mean is not None] * 2, "accepted_honest": 0.9,
        "accepted_byzantine": None, "runs": runs, **changes,
    }  # fmt: skip


def matrix_of(**changes: Any) -> dict[str, Any]:
    """Two rules against two attacks."""
    matrix = {
        "task": "CartPole-v1", "K": 5, "byzantine": 2, "trajectories": 320, "seeds": [0, 1], "threshold": 400.0,
        "rows": ["fedpg", "mean"], "settings": ["", "b=1"], "columns": ["alie", "ipm"],
        "cells": [
            cell("fedpg", "alie", 480.0, ["a/seed-0", "a/seed-1"]), cell("fedpg", "ipm", 9.5, ["../escape", None]),
            cell("mean", "alie", None, [None, None]), cell("mean", "ipm", 10.0, ["a/seed-0", None]),
        ],
        "undisturbed": [cell("fedpg", None, 500.0, ["a/seed-1"]), cell("mean", None, 499.0, [])],
        "worst": [],
        **changes,
    }  # fmt: skip
    return {"format": 1, "experiment": "robustness", "title": "All <b>rules</b>", "added": {}, "matrices": [matrix]}


def experiment(folder: Path, content: object = None) -> Path:
    """An experiment's folder with two runs and a matrix."""
    for seed in (0, 1):
        watched_run(folder / "a" / f"seed-{seed}", seed=seed)
    (folder / "matrix.json").write_text(json.dumps(matrix_of() if content is None else content))
    return folder


def test_a_matrix_is_found_and_its_cells_lead_to_runs(tmp_path: Path) -> None:
    experiment(tmp_path / "runs" / "exp")
    watched_run(tmp_path / "escape")
    with page_of(tmp_path / "runs") as server:
        assert ask_json(server, "/")["matrices"] == ["exp"]
        found = ask_json(server, "/matrix?matrix=exp")
    assert found["title"] == "All <b>rules</b>"
    (matrix,) = found["matrices"]
    fedpg, mean = matrix["rows"]
    assert [one["mean"] for one in fedpg["cells"]] == [480.0, 9.5]
    assert fedpg["cells"][0]["runs"] == ["exp/a/seed-0", "exp/a/seed-1"]
    assert fedpg["cells"][0]["to_threshold"] == 200.0
    assert fedpg["cells"][1]["runs"] == [], "only runs below the folder are led to"
    assert fedpg["undisturbed"]["mean"] == 500.0
    assert (fedpg["worst"], mean["worst"], mean["setting"]) == (1, 1, "b=1")
    assert mean["cells"][0]["done"] == 0


def test_a_return_of_the_server_alone_is_marked_as_in_the_report(tmp_path: Path) -> None:
    cells = [
        cell("fedpg", "alie", 480.0, [], without_gradient=[0.0, 0.51]),
        cell("fedpg", "ipm", 480.0, [], without_gradient=[0.5, None]),
    ]
    lone = {"rows": ["fedpg"], "settings": [""], "undisturbed": [cell("fedpg", None, 500.0, [])]}
    experiment(tmp_path / "exp", matrix_of(**lone, cells=cells))
    with page_of(tmp_path) as server:
        (matrix,) = ask_json(server, "/matrix?matrix=exp")["matrices"]
    assert [one["is_lone"] for one in matrix["rows"][0]["cells"]] == [True, False]
    assert not matrix["rows"][0]["undisturbed"]["is_lone"], "as in a file of before"
    assert (matrix["lone"], matrix["lone_means"]) == (LONE, LONE_MEANS)
    (tmp_path / "exp" / "matrix.json").write_text(json.dumps(matrix_of(**lone, cells=cells[1:])))
    with page_of(tmp_path) as server:
        (matrix,) = ask_json(server, "/matrix?matrix=exp")["matrices"]
    assert matrix["lone_means"] == ""


def test_where_a_seed_never_gets_there_no_mean_is_said(tmp_path: Path) -> None:
    cells = [cell("fedpg", "alie", 480.0, [], to_threshold=[100, None])]
    experiment(tmp_path / "exp", matrix_of(rows=["fedpg"], settings=[""], columns=["alie"], cells=cells))
    with page_of(tmp_path) as server:
        (matrix,) = ask_json(server, "/matrix?matrix=exp")["matrices"]
    assert matrix["rows"][0]["cells"][0]["to_threshold"] is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"format": 2}, "format 2"),
        ({"format": 1, "title": "x", "experiment": "x", "matrices": [{}]}, "is missing"),
        ([1, 2], "not a matrix"),
        (matrix_of(threshold="high"), "'high' stands where a number belongs"),
        (matrix_of(cells=[{"row": 1}]), "is missing"),
    ],
)
def test_a_file_that_is_no_matrix_is_one_sentence(tmp_path: Path, content: object, says: str) -> None:
    experiment(tmp_path / "exp", content)
    with page_of(tmp_path) as server:
        assert len(ask_json(server, "/")["runs"]) == 2
        status, _, text = ask(server, "/matrix?matrix=exp", Accept="application/json")
        assert status == 404
        assert says in json.loads(text)["error"]
        assert ask(server, "/matrix?matrix=..", Accept="application/json")[0] == 404


def test_faults_of_a_scenario_are_spans_of_rounds(tmp_path: Path) -> None:
    entries = [
        {"label": "kill 3", "begin_round": 4, "heal_round": 9},
        {"label": "restart server", "begin_round": 0, "heal_round": None},
    ]
    (tmp_path / "faults.json").write_text(json.dumps({"happened": entries}))
    assert [(span["first"], span["last"], span["label"]) for span in faults_of(tmp_path)] == [
        (4, 9, "kill 3"), (1, 1, "restart server"),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"happened": 1}', '{"happened": [{}]}', "[" * 100_000, "null"])
def test_a_report_that_cannot_be_read_shades_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "faults.json").write_text(text)
    assert faults_of(tmp_path) == []


def test_rounds_beyond_their_deadline_share_a_span() -> None:
    late = LateRounds(deadline_s=10.0)
    for seconds in (1.0, 12.0, 13.0, float("nan"), 10.5, 11.5):
        late.add(seconds)
    assert [(span["first"], span["last"]) for span in late.spans()] == [(2, 3), (6, 6)]


def test_a_restart_stands_after_the_round_that_the_log_says(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    lines = [
        "10:00:00 INFO    server  run abc at 127.0.0.1:1: waiting", "10:00:01 INFO    server  round 7  16/99 x  1 s",
        "10:00:02 INFO    server  run abc at 127.0.0.1:1: again",
    ]  # fmt: skip
    (tmp_path / "logs" / "server.log").write_text("\n".join(lines) + "\n")
    log = ServerLog(tmp_path)
    log.read()
    assert [(mark["kind"], mark["first"]) for mark in marks_of(log.started_after, [3])] == [
        ("restart", 7), ("extension", 3),
    ]  # fmt: skip


def test_an_episode_is_recorded_when_it_is_asked_for(tmp_path: Path) -> None:
    run_federation(small_federation(agents=2, byzantine=0), tmp_path / "runs" / "one", agents_per_process=2)
    before = sorted(path.name for path in (tmp_path / "runs" / "one").rglob("*"))
    with page_of(tmp_path / "runs") as server:
        assert ask_json(server, "/video?run=one")["state"] == "none"
        assert ask(server, "/video/file?run=one")[0] == 404
        foreign = {"Accept": "application/json", "Sec-Fetch-Site": "cross-site"}
        assert ask(server, "/video?run=one&make=yes", **foreign)[0] == 400
        assert ask(server, "/video?run=one&make=yes", "HEAD", Accept="application/json")[0] == 200
        assert ask_json(server, "/video?run=one")["state"] == "none"
        assert ask_json(server, "/video?run=one&make=yes")["state"] == "making"
        until = time.monotonic() + PATIENCE_S
        while (found := ask_json(server, "/video?run=one"))["state"] == "making":
            assert time.monotonic() < until
            time.sleep(0.1)
        assert found["state"] == "made", found
        assert found["return"] == found["steps"] > 0  # CartPole earns 1 a step
        status, headers, content = ask(server, "/video/file?run=one")
        assert (status, headers["Content-Type"]) == (200, found["type"])
        assert b"ftyp" in content[:32] or content.startswith(b"GIF8")
    assert sorted(path.name for path in (tmp_path / "runs" / "one").rglob("*")) == before


def test_a_run_without_a_policy_says_so(tmp_path: Path) -> None:
    watched_run(tmp_path / "one")
    watched_run(tmp_path / "new", rounds=0)
    with page_of(tmp_path) as server:
        found = [ask_json(server, f"/video?run={name}&make=yes") for name in ("one", "new")]
    assert [video["state"] for video in found] == ["impossible"] * 2
    assert "checkpoints of the run in" in found[0]["note"]
    assert "no checkpoint yet" in found[1]["note"]


def test_what_cannot_be_recorded_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "best.safetensors").write_bytes(b"nothing of the kind")
    videos = Videos()
    try:
        assert videos.make(folder)["state"] == "making"
        until = time.monotonic() + PATIENCE_S
        while (found := videos.look(folder))["state"] == "making":
            assert time.monotonic() < until
            time.sleep(0.1)
    finally:
        videos.close()
    assert found["state"] == "failed"
    assert "best.safetensors" in found["note"]
    shutil.rmtree(folder)
    assert videos.look(folder)["state"] == "impossible"
