"""A small experiment with a matrix, and its parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedpg_lab.experiments.matrix import Plan
from fedpg_lab.experiments.plan import Experiment, read_experiment

MATRIX = """
title = "Rules and attacks"
seeds = 2
[matrix]
task = "CartPole-v1"
agents = 4
byzantine = 1
trajectories = 16
threshold = 300
rows = ["fedpg", { name = "two krums", aggregator = ["krum", { name = "krum", faulty = 1 }] }]
attacks = ["sign-flipping", { name = "random-noise", starts_at = 3 }]
[quick]
seeds = 1
rows = ["fedpg"]
attacks = ["sign-flipping"]
"""
FEDPG, KRUM, KRUM_1 = "CartPole-v1_fedpg-br_fedpg", "CartPole-v1_fedpg-br_krum", "CartPole-v1_fedpg-br_krum-faulty=1"
UNDISTURBED, FLIPPING, NOISE = "_K4", "_K4_B1_sign-flipping", "_K4_B1_random-noise-starts_at=3"


def described(tmp_path: Path, text: str = MATRIX, **options: Any) -> Experiment:
    path = tmp_path / "rules.toml"
    path.write_text(text)
    return read_experiment(str(path), **options)


def plan_of(experiment: Experiment) -> Plan:
    assert experiment.plan is not None
    return experiment.plan


def federations(experiment: Experiment) -> list[str]:
    return [planned.name.removesuffix("/seed-0") for planned in experiment.runs if planned.name.endswith("/seed-0")]
