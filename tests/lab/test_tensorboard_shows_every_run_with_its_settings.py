"""TensorBoard lists each run by its folder, with its hyperparameters, its results and, if asked for, its policy."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedpg_common.descriptions import describe
from fedpg_common.environments import make_environments
from fedpg_common.errors import ExitCode
from fedpg_common.federation import Federation
from fedpg_common.learning.checkpoints import Checkpoint, write_checkpoint
from fedpg_common.learning.parameters import ParameterSpec, TensorSpec
from fedpg_common.learning.policies import make_policy
from fedpg_lab.commands.tensorboard import named
from fedpg_lab.playback.tensorboard_videos import TAG, write_video_event
from fedpg_server.learning.records import final_return
from fedpg_server.observers.base import Observed
from fedpg_server.observers.scalar_help import DESCRIPTIONS, X_AXIS
from fedpg_server.observers.telemetry import TensorBoard, hyperparameters
from support.lab import Command, write_run
from support.protocol import make_round_record
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

THETA = np.zeros(1, np.float32)
SPEC = ParameterSpec((TensorSpec("w", (1,)),))
ROUNDS = [make_round_record(n, evaluation_returns=(float(n),), environment_steps={"agents": 10}) for n in range(1, 41)]


def write_events(folder: Path, federation: Federation) -> None:
    board = TensorBoard(Observed(folder, federation, SPEC, []))
    for record in ROUNDS:
        board.record(record, THETA)
    board.close()


def read_events(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    return events


def session_of(events: EventAccumulator) -> tuple[dict[str, Any], set[str]]:
    """The hyperparameters of a run, and the scalars that stand beside them."""
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    values = HParamsPluginData.FromString(content).session_start_info.hparams
    shown = events.summary_metadata["_hparams_/experiment"].plugin_data.content
    metrics = HParamsPluginData.FromString(shown).experiment.metric_infos
    return (
        {name: getattr(value, value.WhichOneof("kind")) for name, value in values.items()},
        {metric.name.tag for metric in metrics},
    )


def test_the_table_has_every_setting_and_the_results(tmp_path: Path) -> None:
    federation = describe("HalfCheetah-v5", byzantine=3, attack="sign-flipping", seed=4, sigma=1.5)
    write_events(tmp_path, federation)
    events = read_events(tmp_path)
    settings, metrics = session_of(events)
    assert settings == hyperparameters(federation)
    named = ("attack", "byzantine", "training_seed", "task", "task.sigma", "task.hidden")
    assert {name: settings[name] for name in named} == {
        "attack": "sign-flipping", "byzantine": 3, "training_seed": 4, "task": "HalfCheetah-v5", "task.sigma": 1.5,
        "task.hidden": "[64, 64]",
    }  # fmt: skip
    assert sorted(settings).index("task") < 5, "the page ticks the first five columns"
    assert set(hyperparameters(describe("CartPole-v1"))) == set(settings)  # one table holds all runs
    last = {tag: events.Scalars(tag)[-1].value for tag in metrics}
    assert last == {
        "summary/final_return": final_return(ROUNDS), "summary/best_return": 40, "summary/environment_steps": 400,
    }  # fmt: skip


def test_every_scalar_has_a_description_that_says_what_the_x_axis_is(tmp_path: Path) -> None:
    write_events(tmp_path, describe("CartPole-v1"))
    events = read_events(tmp_path)
    for tag in events.Tags()["scalars"]:
        text = events.SummaryMetadata(tag).summary_description
        assert tag in DESCRIPTIONS or tag.startswith("decided_by/"), tag
        assert text.endswith(X_AXIS), tag


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of TensorBoard's own thread
def test_files_that_cannot_be_written_any_more_do_not_end_the_run(tmp_path: Path) -> None:
    board = TensorBoard(Observed(tmp_path / "run", describe("CartPole-v1"), SPEC, []))
    board.record(ROUNDS[0], THETA)
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "run").write_text("in the way")
    for record in ROUNDS[1:]:
        board.record(record, THETA)
    board.close()


def test_a_single_runs_folder_has_its_name(tmp_path: Path) -> None:
    write_events(tmp_path / "my-run", describe("CartPole-v1"))
    with named(tmp_path / "my-run") as place:
        assert [path.name for path in place.iterdir()] == ["my-run"]
        assert any((place / "my-run").glob("events.*"))
    with named(tmp_path) as place:
        assert place == tmp_path


def test_a_resumed_run_goes_on_from_its_own_past(tmp_path: Path) -> None:
    federation = describe("CartPole-v1")
    write_events(tmp_path / "whole", federation)
    for part in (slice(0, 25), slice(25, 40)):
        board = TensorBoard(Observed(tmp_path / "halves", federation, SPEC, ROUNDS[: part.start]))
        for record in ROUNDS[part]:
            board.record(record, THETA)
        board.close()
    whole, halves = read_events(tmp_path / "whole"), read_events(tmp_path / "halves")
    for tag in whole.Tags()["scalars"]:
        assert [(e.step, e.value) for e in halves.Scalars(tag)] == [(e.step, e.value) for e in whole.Scalars(tag)]


def test_a_policys_episode_is_an_animated_image(tmp_path: Path) -> None:
    task = replace(describe("CartPole-v1").task, evaluation_horizon=20)
    environments = make_environments(task)
    policy = make_policy(task, environments.observation_size, environments.action_space)
    environments.close()
    theta = policy.initial_parameters(np.random.default_rng(0))
    write_checkpoint(tmp_path / "best.safetensors", Checkpoint(theta, policy.spec, task, 7, None))
    for _ in range(2):  # a second video takes the first one's place
        write_video_event(tmp_path / "best.safetensors", tmp_path / "events")
    (image,) = read_events(tmp_path / "events").Images(TAG)
    assert (image.step, image.width, image.height) == (7, 600, 400)
    assert image.encoded_image_string.startswith(b"GIF89a")
    assert max("evaluation", "filter", "summary", "time", "training") < TAG, "it sorts behind the curves"


def test_the_command_serves_every_run_by_name_until_ctrl_c(tmp_path: Path) -> None:
    write_events(tmp_path / "svrpg" / "seed-0", describe("CartPole-v1"))
    write_events(tmp_path / "svrpg" / "seed-1", describe("CartPole-v1", seed=1))
    command = [sys.executable, "-c", "from fedpg_lab.cli import main; main()", "tensorboard", str(tmp_path)]
    with subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith(f"TensorBoard shows {tmp_path} at http"), line
        url = line.split()[4]
        runs: list[str] = []
        while process.poll() is None and len(runs) < 2:  # it reads them while it serves
            with urllib.request.urlopen(f"{url}data/runs", timeout=300) as reply:
                runs = json.load(reply)
        assert runs == ["svrpg/seed-0", "svrpg/seed-1"]
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(300) == 0


def test_bad_input_is_one_sentence_and_an_exit_code(tmp_path: Path, fedpg: Command) -> None:
    write_run(tmp_path / "bare" / "run", describe("CartPole-v1"), ROUNDS)
    write_events(tmp_path / "run", describe("CartPole-v1"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for arguments, code, sentence in (
            (["nowhere"], ExitCode.STORAGE, "there is no folder nowhere"),
            ([tmp_path / "bare"], ExitCode.STORAGE, "has TensorBoard files: they are left out with --no-tensorboard"),
            ([tmp_path / "run", "--port", "70000"], ExitCode.USAGE, "--port must be 0 to 65535, not 70000"),
            ([tmp_path / "run", "--port", port, "--host", "127.0.0.1"], ExitCode.ADDRESS, "already in use"),
        ):
            ended, _, text = fedpg("tensorboard", *arguments)
            assert ended == code
            assert sentence in text.splitlines()[-1]
            assert "Traceback" not in text
