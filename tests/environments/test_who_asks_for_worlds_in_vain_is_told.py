"""Evaluating in worlds that do not differ, or too rarely to happen at all, is answered with one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fedpg_common.descriptions import describe
from fedpg_common.errors import ExitCode
from fedpg_common.federation import Federation
from fedpg_common.rounds import rounds_of, why_no_worlds
from fedpg_lab.runs.folders import load_run
from support.lab import Command, run_federation


def federation(**fields: Any) -> Federation:
    return describe("CartPole-v1", **{"agents": 3, "trajectories": 60, **fields})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "fedpg: the agents of this run have no worlds of their own: all of them live in the server's\n"),
        ({"heterogeneity": {"gravity": [8, 12], "spread": 0}}, "fedpg: all agents of this run have the same world: "
         "gravity=10\n"),
        ({"heterogeneity": {"reward": {"noise": [0, 1]}}}, "fedpg: the agents' worlds differ only in how rewards are "
         "perceived there, which is not evaluated\n"),
        ({"environments": {"2": {"environment_options": {"gravity": 12}}}}, ""),
    ],
)  # fmt: skip
def test_worlds_that_do_not_differ_are_said_to_be_alike(
    tmp_path: Path, fedpg: Command, fields: dict[str, Any], words: str
) -> None:
    run_federation(federation(trajectories=10, **fields), tmp_path / "run", agents_per_process=3)
    code, output, text = fedpg("evaluate", str(tmp_path / "run"), "--worlds", "--json", "--episodes", "2")
    assert code == ExitCode.OK
    assert text == words
    assert set(json.loads(output)["returns"]) == {"1", "2", "3"}


@pytest.mark.parametrize("algorithm", ["fedpg-br", "fedpg-guard", "svrpg", "gpomdp", "byzpg"])
@pytest.mark.parametrize("agents", [1, 3])
def test_a_run_has_as_many_rounds_as_foreseen(tmp_path: Path, algorithm: str, agents: int) -> None:
    asked = federation(algorithm=algorithm, agents=agents, trajectories=200, speeds={"1": {"trajectories": 8}})
    foreseen = rounds_of(asked)
    assert foreseen is not None
    run = run_federation(asked, tmp_path / "run", agents_per_process=agents)
    assert foreseen[0] <= len(run.records) <= foreseen[1]


def test_worlds_that_a_run_never_gets_to_are_said_not_to_be_evaluated(tmp_path: Path, fedpg: Command) -> None:
    arguments = ["train", "--agents", "3", "--trajectories", "30", "--no-tensorboard", "--agents-per-process", "3",
                 "--set", "heterogeneity.gravity=[8,12]", "--out", str(tmp_path)]  # fmt: skip
    code, _, text = fedpg(*arguments, "--name", "rare", "--worlds-every", "50")
    assert code == ExitCode.OK
    begun = "worlds_every is 50, and a run of 30 trajectories has 2 to 4 rounds: policies are evaluated in the"
    assert f"fedpg: {begun} agents' worlds never\n" in text
    assert f"{begun} agents' worlds never" in (tmp_path / "rare" / "logs" / "server.log").read_text()
    assert all(record.world_returns is None for record in load_run(tmp_path / "rare").records)
    code, _, text = fedpg(*arguments, "--name", "often", "--worlds-every", "1")
    assert "worlds_every" not in text


def test_the_sentence_is_as_sure_as_can_be() -> None:
    drawn: dict[str, Any] = {"heterogeneity": {"gravity": [8, 12]}, "agents": 10, "trajectories": 1000}
    fewest, most = rounds_of(federation(**drawn)) or (0, 0)
    assert fewest < 61 < most, "which is how many there are with seed 3"
    assert why_no_worlds(federation(**drawn, worlds_every=fewest)) is None
    assert (why_no_worlds(federation(**drawn, worlds_every=fewest + 1)) or "").endswith("at the end, if at all")
    assert (why_no_worlds(federation(**drawn, worlds_every=most)) or "").endswith("at the end, if at all")
    assert (why_no_worlds(federation(**drawn, worlds_every=most + 1)) or "").endswith("worlds never")
    assert why_no_worlds(federation(**drawn)) is None
    assert why_no_worlds(federation(**drawn, worlds_every=10**6, algorithm="own_module:Own")) is None
