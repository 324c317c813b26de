"""Res-NHARPG and ByzPG learn over the network, with and without attackers, and have the same parameters however their
processes are laid out, and when both ends were started again in the middle.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from fedpg_common.choices import Choice
from fedpg_common.descriptions import describe
from fedpg_lab.runs.folders import load_run
from support.lab import Command, digests, run_federation, small_federation

SETTINGS: dict[str, dict[str, Any]] = {"res-nharpg": {"batch": 6}, "byzpg": {"large": 12, "small": 4}}
LEARNS: dict[str, dict[str, Any]] = {"res-nharpg": {"batch": 4}, "byzpg": {"large": 16, "small": 4}}


@pytest.mark.parametrize("algorithm", SETTINGS)
@pytest.mark.parametrize("attack", ["random-noise", "worst-down"])
def test_a_federation_trains_the_same_however_its_processes_are_laid_out(
    tmp_path: Path, algorithm: str, attack: str
) -> None:
    federation = dataclasses.replace(small_federation(attack=attack), algorithm=Choice(algorithm, SETTINGS[algorithm]))
    run = run_federation(federation, tmp_path / "apart")
    assert len(run.records) > 3
    assert len(set(digests(run))) == len(run.records)
    assert digests(run_federation(federation, tmp_path / "together", agents_per_process=4)) == digests(run)


@pytest.mark.parametrize("algorithm", SETTINGS)
def test_attackers_know_what_honest_agents_submit_in_every_round(tmp_path: Path, algorithm: str) -> None:
    federation = dataclasses.replace(
        small_federation(agents=5, byzantine=2, attack="mimic"), algorithm=Choice(algorithm, SETTINGS[algorithm])
    )
    run = run_federation(federation, tmp_path / "run")
    assert len(run.records) > 3
    for record in run.records:
        assert record.distances["byzantine"] == 0.0
        assert record.centre_distances[1] == record.centre_distances[2] == record.centre_distances[3]
        assert record.centre_distances[3] != record.centre_distances[4]


@pytest.mark.parametrize("algorithm", SETTINGS)
def test_a_resumed_run_is_the_run_that_was_never_interrupted(tmp_path: Path, fedpg: Command, algorithm: str) -> None:
    chosen = [part for name, value in SETTINGS[algorithm].items() for part in ("--set", f"algorithm.{name}={value}")]
    arguments = ["train", "--algorithm", algorithm, *chosen, "--agents", 3, "--no-tensorboard", "--out", tmp_path]
    for name, trajectories in (("whole", 80), ("resumed", 40)):
        code, _, text = fedpg(*arguments, "--trajectories", trajectories, "--name", name)
        assert code == 0, text
    code, _, text = fedpg("train", "--resume", tmp_path / "resumed", "--trajectories", 80, "--no-tensorboard")
    assert code == 0, text
    resumed, whole = (digests(load_run(tmp_path / name)) for name in ("resumed", "whole"))
    assert resumed == whole
    assert len(whole) > 6


@pytest.mark.parametrize("algorithm", LEARNS)
@pytest.mark.parametrize("byzantine", [0, 3])
def test_it_learns_cartpole(tmp_path: Path, algorithm: str, byzantine: int) -> None:
    federation = dataclasses.replace(
        describe(
            "CartPole-v1", agents=10, byzantine=byzantine, attack="sign-flipping", trajectories=400, learning_rate=0.005
        ),
        algorithm=Choice(algorithm, LEARNS[algorithm]),
    )
    records = run_federation(federation, tmp_path / "run", agents_per_process=10).records
    first = fmean(record.evaluation_return for record in records[:5])
    last = fmean(record.evaluation_return for record in records[-10:])
    assert first < 60
    assert last > 150
