"""The examples of docs/extending.md, as printed there, train from a folder that is not FedPG's."""

from __future__ import annotations

import csv
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import matplotlib.image
import pytest
from fedpg_common.choices import Choice
from fedpg_common.descriptions import describe
from fedpg_common.errors import ExitCode
from fedpg_lab.figures.comparison import draw_filter, draw_returns
from fedpg_lab.figures.curves import group_runs
from fedpg_lab.figures.distances import draw_distances
from fedpg_lab.figures.one_run import plot_run, rule_colours
from fedpg_lab.local.processes import LocalFederation
from fedpg_lab.runs.folders import PLOT_NAME, load_run
from fedpg_server.learning.state import AGGREGATOR, ALGORITHM
from fedpg_server.storage.store import STORE_NAME, Store
from support.lab import Command, digests, run_federation
from support.protocol import CALL_TIMEOUT_S, wait_until

ROOT = Path(__file__).parents[2]
EXAMPLES = ("geometric_median", "clipping", "bucketing", "heavy_ball", "csv_log")
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("module", EXAMPLES)
def test_the_page_prints_the_whole_example(module: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert (ROOT / "examples" / "extending" / f"{module}.py").read_text(encoding="utf-8") in blocks


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the examples, in which one works."""
    for module in EXAMPLES:
        (tmp_path / f"{module}.py").write_text((ROOT / "examples" / "extending" / f"{module}.py").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for module in EXAMPLES:
        sys.modules.pop(module, None)


TRAIN = ("train", "--agents", "4", "--byzantine", "1", "--agents-per-process", "4", "--no-tensorboard", "--name", "run")


def test_an_aggregator_trains_from_the_command_line(elsewhere: Path, fedpg: Command) -> None:
    chosen = ("--aggregator", "geometric_median:GeometricMedian", "--set", "steps=20", "--trajectories", "60")
    code, _, text = fedpg(*TRAIN, *chosen)
    assert code == ExitCode.OK, text
    run = load_run(elsewhere / "runs" / "run")
    assert run.federation.aggregator == Choice("geometric_median:GeometricMedian", {"steps": 20})
    assert len(run.records) > 1
    for record in run.records:
        assert (record.rule, record.weights, record.filtered, record.detection) == ("geometric median", None, (), {})
        assert record.figures["spread"] > 0
        assert set(record.centre_distances) == {1, 2, 3, 4}
    assert matplotlib.image.imread(run.folder / PLOT_NAME).std() > 0.05
    (axes, *_) = draw_returns(group_runs([run]), honest=False, window=1).axes
    assert "CartPole-v1" in axes.get_title()
    assert "GeometricMedian steps=20" in group_runs([run])[0].label
    assert draw_distances(group_runs([run]), honest=False).axes


def test_a_stateful_aggregator_survives_kill_9(elsewhere: Path) -> None:
    chosen = {"name": "clipping:CentredClipping", "radius": 0.05}
    federation = describe(
        "CartPole-v1",
        agents=3,
        byzantine=1,
        aggregator=chosen,
        trajectories=1200,
        round_timeout_s=1e5,
        folder=elsewhere,
    )
    undisturbed = run_federation(federation, elsewhere / "undisturbed", agents_per_process=3)
    killed = LocalFederation(federation, elsewhere / "killed", agents_per_process=3, observers=())
    with killed:
        for round_number in (3, 7):
            wait_until(partial(_has_come_to, killed, round_number), 4 * CALL_TIMEOUT_S)
            os.kill(killed.server_pid, signal.SIGKILL)
        while killed.supervise():
            time.sleep(0.05)
    assert killed.restarts == 2
    run = load_run(elsewhere / "killed")
    assert digests(run) == digests(undisturbed)
    assert [record.figures for record in run.records] == [record.figures for record in undisturbed.records]
    assert any(0 < weight < 1 for record in run.records for weight in (record.weights or {}).values())
    with Store.read(elsewhere / "killed" / STORE_NAME) as store:
        assert set(store.latest_state()[1].memory(AGGREGATOR)) == {"centre"}
    assert rule_colours(record.rule for record in run.records).keys() == {"clipping"}
    plot_run(run, elsewhere / "picture.png")
    assert draw_filter(group_runs([run]), honest=False, window=1).axes


def _has_come_to(federation: LocalFederation, round_number: int) -> bool:
    assert federation.supervise(), "it ended before it was killed"
    if not (federation.folder / STORE_NAME).is_file():
        return False
    with Store.read(federation.folder / STORE_NAME) as store:
        return len(store.records()) >= round_number


DESCRIPTION = """
task = "CartPole-v1"
agents = 6
trajectories = 40
algorithm = { name = "heavy_ball:HeavyBall", beta = 0.8 }
aggregator = { name = "krum", faulty = 1, after = [{ name = "bucketing:Bucketing", size = 2 }, "nnm"] }
byzantine = { 2 = "random-noise" }
"""


def test_a_composed_aggregator_and_an_algorithm_train_from_a_description_elsewhere(
    elsewhere: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, fedpg: Command
) -> None:
    (elsewhere / "federation.toml").write_text(DESCRIPTION)
    monkeypatch.chdir(tmp_path_factory.mktemp("working-folder"))
    code, _, text = fedpg("train", "--federation", str(elsewhere / "federation.toml"), "--name", "run",
                          "--agents-per-process", "6", "--no-tensorboard")  # fmt: skip
    assert code == ExitCode.OK, text
    run = load_run(Path("runs/run"))
    assert set(run.federation.modules) == {"bucketing", "heavy_ball"}
    assert run.federation.module_folder == str(elsewhere.resolve())
    for record in run.records:
        assert record.figures["buckets"] == 3
        # Krum took one row of two neighbouring buckets of two: as many votes are in it.
        assert len(record.accepted) in (2, 4, 6)
    with Store.read(run.folder / STORE_NAME) as store:
        assert set(store.latest_state()[1].memory(ALGORITHM)) == {"m"}


def test_an_observer_watches_beside_the_shipped_ones(elsewhere: Path, fedpg: Command) -> None:
    code, _, text = fedpg(*TRAIN, "--trajectories", "60", "--observer", "csv_log:CsvLog file=mine.csv")
    assert code == ExitCode.OK, text
    run = load_run(elsewhere / "runs" / "run")
    with (run.folder / "mine.csv").open() as file:
        header, *lines = csv.reader(file)
    assert header[:3] == ["round", "trajectories", "return"]
    assert [int(line[0]) for line in lines] == [record.round_number for record in run.records]
    assert (run.folder / "checkpoints" / "latest.safetensors").is_file()


def test_a_run_is_not_resumed_with_another_version_of_a_module(elsewhere: Path, fedpg: Command) -> None:
    code, _, text = fedpg(*TRAIN, "--trajectories", "30", "--aggregator", "clipping:CentredClipping")
    assert code == ExitCode.OK, text
    with (elsewhere / "clipping.py").open("a") as file:
        file.write("# changed\n")
    code, _, text = fedpg("train", "--resume", "runs/run", "--trajectories", "900")
    assert code == ExitCode.USAGE, text
    assert "the module clipping has changed since the run began" in text
    assert "Traceback" not in text
