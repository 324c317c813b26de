"""`fedpg report` makes summary and picture of any run; the server itself leaves a summary, however it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from fedpg_common.descriptions import describe
from fedpg_lab.runs.folders import load_run, summarize
from support.lab import Command, small_federation, write_run
from support.protocol import make_round_record

ROUNDS = [make_round_record(n, evaluation_returns=(float(n),)) for n in range(1, 41)]


def test_summary_and_picture_of_a_run(tmp_path: Path, fedpg: Command) -> None:
    run = write_run(tmp_path / "run", describe("CartPole-v1", agents=5, trajectories=640), ROUNDS)
    code, text, _ = fedpg("report", run)
    assert code == 0
    assert text.startswith("run: complete, 640/640 trajectories, final return 39.5; see ")
    summary = json.loads((run / "summary.json").read_text())
    assert summary == summarize(load_run(run))
    assert (summary["final_return"], summary["last_return"], summary["best_return"]) == (39.5, 40.0, 40.0)
    assert summary["final_return_is"] == "mean of the evaluation returns over the last 5 % of the trajectories"
    assert (run / "returns.png").read_bytes().startswith(b"\x89PNG")


def test_to_another_folder_by_name(tmp_path: Path, fedpg: Command) -> None:
    for seed in (0, 1):
        write_run(tmp_path / "runs" / f"seed-{seed}", describe("CartPole-v1", agents=5, seed=seed), ROUNDS)
    out = tmp_path / "out"
    code, text, _ = fedpg("report", tmp_path / "runs", "--out", out, "--format", "json")
    assert code == 0
    assert [summary["seed"] for summary in json.loads(text)] == [0, 1]
    assert {str(path.relative_to(out)) for path in out.rglob("*.*")} == {
        "returns.png",
        *(f"seed-{seed}/{name}" for seed in (0, 1) for name in ("summary.json", "returns.png", "report.html")),
    }  # fmt: skip
    assert {path.name for path in (tmp_path / "runs" / "seed-0").iterdir()} == {"run.sqlite", "run.lock", "run.mark"}


def test_of_a_run_without_a_round(tmp_path: Path, fedpg: Command) -> None:
    run = write_run(tmp_path / "run", describe("CartPole-v1"), [])
    code, text, _ = fedpg("report", run)
    assert code == 0
    assert "no round has ended yet" in text
    assert json.loads((run / "summary.json").read_text())["final_return"] is None
    assert not (run / "returns.png").exists()


def test_a_server_leaves_a_summary_without_drawing_anything(tmp_path: Path) -> None:
    program = (
        "import sys; from fedpg_server.cli import main\n"
        "try:\n    main()\nfinally:\n    assert 'matplotlib' not in sys.modules"
    )
    options = ["--agents", "4", "--byzantine", "1", "--trajectories", "60", "--no-tensorboard"]
    command = [sys.executable, "-c", program, "--listen", "127.0.0.1:0", "--out", str(tmp_path / "run"), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        for line in server.stderr:
            if " from round " in line:
                break
        server.send_signal(signal.SIGTERM)
        assert server.wait(300) == 143
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["complete"], summary["failure"], summary["rounds"]) == (False, None, 0)
    assert summary == summarize(load_run(tmp_path / "run"))
    assert load_run(tmp_path / "run").federation == small_federation()
