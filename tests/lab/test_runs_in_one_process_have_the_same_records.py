"""A run in one process has the records of the same run over the network, and is stopped and resumed like it."""

from __future__ import annotations

import io
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fedpg_common.descriptions import describe
from fedpg_common.errors import ExitCode, FedPGError, UnreachableError
from fedpg_common.federation import Federation
from fedpg_lab.experiments.plan import PlannedRun, read_experiment
from fedpg_lab.experiments.runner import RunsFailedError, run_missing
from fedpg_lab.local.describe import describe_wait
from fedpg_lab.local.failures import AgentsLostError, ProcessFailedError
from fedpg_lab.local.in_process.agents import fits
from fedpg_lab.local.in_process.child import InProcessFederation
from fedpg_lab.local.in_process.rounds import RunOptions, play
from fedpg_lab.runs.folders import RunData, load_run
from fedpg_server.learning.records import RoundRecord
from odd_environments import odd_task
from rich.console import Console
from support.lab import Command, digests, run_federation, small_federation


class StoppedForTheTestError(Exception):
    """Ends a run after a round."""


def ignore(_federation: Federation, _record: RoundRecord) -> None:
    """Nobody wants to know."""


def run_here(federation: Federation, folder: Path) -> RunData:
    """In this very process, without TensorBoard files."""
    play(RunOptions(folder, federation, observers=()), ignore)
    return load_run(folder)


def stop_after(federation: Federation | None, folder: Path, rounds: int) -> None:
    """Do that many rounds, and stop without a goodbye."""

    def on_round(_federation: Federation, record: RoundRecord) -> None:
        if record.round_number == rounds:
            raise StoppedForTheTestError

    with pytest.raises(StoppedForTheTestError):
        play(RunOptions(folder, federation, observers=()), on_round)


def has_done_a_round(processes: InProcessFederation) -> bool:
    """Whether the process has told of one."""
    try:
        return processes.fetch().round > 0
    except UnreachableError:
        return False


def wait_for_the_end(processes: InProcessFederation) -> None:
    """Supervise until there is nothing to supervise."""
    while processes.supervise():
        time.sleep(0.01)


def without_times(run: RunData) -> list[str]:
    """All that is kept of each round, but for how long it took."""
    return [replace(record, seconds=0.0).to_json() for record in run.records]


CARTPOLE: dict[str, Any] = {"agents": 5, "trajectories": 60}
FEDERATIONS: dict[str, dict[str, Any]] = {
    "honest": {},
    "one attack": {"byzantine": 2, "attack": "sign-flipping"},
    "attackers that pool": {"byzantine": 2, "attack": "fedpg"},
    "attackers that know all, on and off": {
        "byzantine": 2, "attack": {"name": "boundary", "starts_at": 2, "on": 1, "off": 1},
    },
    "one that knows all": {"byzantine": 1, "attack": "worst-down"},
    "attackers that follow what the rule remembers": {
        "byzantine": 2, "attack": {"name": "worst-down", "follow": True, "starts_at": 3}, "aggregator": "history",
    },
    "two groups of attackers": {"byzantine": {"1": "alie", "2": "ipm-optimised", "3": "alie"}, "agents": 8},
    "the defence, which evaluates first": {"byzantine": 2, "attack": "frame", "algorithm": "fedpg-guard"},
    "an algorithm that hands out momentum": {"byzantine": 2, "attack": "mimic", "algorithm": "res-nharpg"},
    "a rule with a gradient of the server's": {"byzantine": 1, "attack": "min-max", "aggregator": "fltrust"},
    "batches of their own sizes": {
        "byzantine": 1, "attack": "worst-down", "aggregator": {"name": "fedpg", "weighting": "trajectories"},
        "speeds": {"trajectories": [3, 16], "min_trajectories": 4, "2": {"trajectories": 2}},
    },
    "worlds of their own": {
        "byzantine": 2, "attack": "normalized", "heterogeneity": {"gravity": [6.0, 14.0]}, "worlds_every": 2,
    },
    "rewards with noise": {"byzantine": 2, "attack": "worst-angle", "heterogeneity": {"reward": {"noise": [0.1, 0.3]}}},
}  # fmt: skip


@pytest.mark.parametrize("fields", FEDERATIONS.values(), ids=FEDERATIONS)
def test_every_record_is_the_same(tmp_path: Path, fields: dict[str, Any]) -> None:
    federation = describe("CartPole-v1", **{**CARTPOLE, **fields})
    over_the_network = run_federation(federation, tmp_path / "network", agents_per_process=federation.agents)
    in_one_process = run_here(federation, tmp_path / "here")
    assert len(in_one_process.records) > 2
    assert without_times(in_one_process) == without_times(over_the_network)


def test_an_environment_that_draws_from_shared_generators_draws_the_same(tmp_path: Path) -> None:
    federation = describe(odd_task("draws"), agents=4, byzantine=2, attack="boundary")
    over_the_network = run_federation(federation, tmp_path / "network", agents_per_process=4)
    assert without_times(run_here(federation, tmp_path / "here")) == without_times(over_the_network)


def test_a_run_that_was_stopped_is_resumed_where_it_stopped(tmp_path: Path) -> None:
    federation = small_federation(byzantine=2, attack="fedpg")
    whole = run_here(federation, tmp_path / "whole")
    stop_after(federation, tmp_path / "stopped", 1)
    stop_after(None, tmp_path / "stopped", 2)
    play(RunOptions(tmp_path / "stopped", None, observers=()), ignore)
    assert without_times(load_run(tmp_path / "stopped")) == without_times(whole)


def test_a_run_begun_in_one_process_ends_over_the_network(tmp_path: Path, fedpg: Command) -> None:
    federation = small_federation(byzantine=2, attack="fedpg")
    whole = run_here(federation, tmp_path / "whole")
    stop_after(federation, tmp_path / "run", 1)
    assert fedpg("train", "--resume", str(tmp_path / "run"))[0] == ExitCode.OK
    assert digests(load_run(tmp_path / "run")) == digests(whole)


def test_a_run_leaves_its_summary_also_when_it_is_stopped(tmp_path: Path) -> None:
    stop_after(small_federation(), tmp_path / "run", 1)
    assert '"complete": false' in (tmp_path / "run" / "summary.json").read_text()


def test_a_failing_environment_ends_the_run_with_its_sentence(tmp_path: Path) -> None:
    with pytest.raises(FedPGError, match=r"agent 1: task odd: .* failed in step") as failed:
        run_here(describe(odd_task("fails_late"), agents=3), tmp_path / "run")
    assert failed.value.exit_code == ExitCode.ENVIRONMENT


SPOILING = """
from dataclasses import replace
import numpy as np
from fedpg_client.attacks import Attack, Knowledge
NAN = np.float32("nan")
class Gradient(Attack):
    def tamper_gradient(self, gradient, context):
        return gradient * NAN
class Rewards(Attack):
    def tamper_trajectories(self, trajectories, context):
        return replace(trajectories, rewards=trajectories.rewards * NAN)
class Agreed(Attack):
    knowledge = Knowledge.COLLUDERS
    def collude(self, pooled, context):
        return pooled[context.agent] * NAN
class Huge(Attack):
    def tamper_gradient(self, gradient, context):
        return gradient.astype(np.float64) * 1e60
class Wide(Attack):
    def tamper_gradient(self, gradient, context):
        return -gradient.astype(np.float64).reshape(-1, 1) / 3
class Short(Attack):
    def tamper_gradient(self, gradient, context):
        return gradient[:3]
class Sly(Attack):
    def choose(self, actor, action_space, context):
        return lambda observations: np.full(len(observations), 17)
"""


@pytest.mark.parametrize("attack", ["Gradient", "Rewards", "Agreed", "Huge"])
def test_a_gradient_that_a_server_would_refuse_ends_the_run_and_its_attack_is_to_blame(
    tmp_path: Path, attack: str
) -> None:
    (tmp_path / "spoiling.py").write_text(SPOILING)
    federation = describe("CartPole-v1", folder=tmp_path, byzantine={"2": f"spoiling:{attack}"}, **CARTPOLE)
    sentence = "agent 2 has no vote in round 1: gradient refused, not finite: its attack has made it so"
    with pytest.raises(AgentsLostError, match=sentence):
        run_here(federation, tmp_path / "run")


def test_a_gradient_of_more_digits_than_are_sent_counts_as_over_the_network(tmp_path: Path) -> None:
    (tmp_path / "spoiling.py").write_text(SPOILING)
    federation = describe("CartPole-v1", folder=tmp_path, byzantine={"2": "spoiling:Wide"}, **CARTPOLE)
    here = run_here(federation, tmp_path / "here")
    assert without_times(here) == without_times(run_federation(federation, tmp_path / "network"))


def test_a_gradient_of_another_shape_ends_the_run_and_both_shapes_are_told(tmp_path: Path) -> None:
    (tmp_path / "spoiling.py").write_text(SPOILING)
    federation = describe("CartPole-v1", folder=tmp_path, byzantine={"2": "spoiling:Short"}, **CARTPOLE)
    with pytest.raises(AgentsLostError, match=r"gradient refused, wrong shape: \(3,\), not \(\d+,\)$"):
        run_here(federation, tmp_path / "run")


def test_an_attack_that_takes_an_action_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "spoiling.py").write_text(SPOILING)
    federation = describe("CartPole-v1", folder=tmp_path, byzantine={"2": "spoiling:Sly"}, **CARTPOLE)
    sentence = "agent 2: attack spoiling:Sly failed in choose: an action must be from 0 to 1, not 17"
    with pytest.raises(FedPGError, match=sentence) as failed:
        run_here(federation, tmp_path / "run")
    assert failed.value.exit_code == ExitCode.USAGE


def test_an_attack_on_the_protocol_has_a_network_all_the_same(tmp_path: Path) -> None:
    assert fits(small_federation(attack="fedpg"))
    federation = small_federation(attack="equivocation")
    assert not fits(federation)
    run_missing([PlannedRun("hostile", federation)], tmp_path, 1, Console(file=io.StringIO()), in_process=True)
    assert (tmp_path / "hostile" / "logs" / "server.log").exists()
    assert load_run(tmp_path / "hostile").is_complete


def test_a_killed_process_fails_its_run_and_loses_nothing(tmp_path: Path) -> None:
    federation, folder = describe("CartPole-v1", agents=3, trajectories=100_000), tmp_path / "run"
    with InProcessFederation(federation, RunOptions(folder, federation, observers=())) as processes:
        with pytest.raises(UnreachableError):
            processes.fetch()
        while processes.supervise() and not has_done_a_round(processes):
            time.sleep(0.01)
        os.kill(processes.pid, signal.SIGKILL)
        with pytest.raises(ProcessFailedError, match="was killed by SIGKILL"):
            wait_for_the_end(processes)
        assert describe_wait(processes.fetch()) == "all in one process"
    done = len(load_run(folder).records)
    stop_after(None, folder, done + 1)
    stop_after(federation, tmp_path / "other", done + 1)
    assert without_times(load_run(folder)) == without_times(load_run(tmp_path / "other"))


def test_a_failed_run_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    runs = [PlannedRun("bad", describe(odd_task("fails_late"), agents=3)), PlannedRun("good", small_federation())]
    with pytest.raises(RunsFailedError, match="1 of 2 runs failed, first bad: agent 1: task odd"):
        run_missing(runs, tmp_path, 2, Console(file=io.StringIO()), in_process=True)
    assert load_run(tmp_path / "good").is_complete


def test_train_shows_and_leaves_what_it_always_does(tmp_path: Path, fedpg: Command) -> None:
    command = ("train", "--agents", "4", "--trajectories", "60", "--out", str(tmp_path), "--byzantine", "1")
    code, _, shown = fedpg(*command, "--name", "here", "--in-process")
    assert code == ExitCode.OK, shown
    assert "Done: final return" in shown
    assert fedpg(*command, "--name", "network")[0] == ExitCode.OK
    here, network = load_run(tmp_path / "here"), load_run(tmp_path / "network")
    assert without_times(here) == without_times(network)
    kinds = [{path.name.partition(".out.")[0] for path in run.folder.iterdir()} for run in (here, network)]
    assert kinds[0] == kinds[1]
    copy = tmp_path / "copy"
    shutil.copytree(here.folder, copy)
    assert fedpg("train", "--resume", here.folder, "--trajectories", "90", "--in-process")[0] == ExitCode.OK
    code, _, shown = fedpg("train", "--resume", copy, "--trajectories", "90")
    assert code == ExitCode.OK, shown
    assert "starting the agents" in shown, "over the network, as nothing else was asked for"
    extended = load_run(here.folder)
    assert extended.records[-1].trajectories_total >= 90
    assert without_times(extended) == without_times(load_run(copy))


def test_train_refuses_an_attack_that_needs_a_network(tmp_path: Path, fedpg: Command) -> None:
    code, _, shown = fedpg(
        "train",
        "--agents",
        "4",
        "--byzantine",
        "1",
        "--attack",
        "flood",
        "--in-process",
        "--out",
        str(tmp_path / "runs"),
    )
    assert code == ExitCode.USAGE
    assert "the attack flood is on the protocol, which needs a network: leave out --in-process" in shown
    assert not (tmp_path / "runs").exists()


def test_the_command_reports_as_ever(tmp_path: Path, fedpg: Command) -> None:
    path = tmp_path / "small.toml"
    path.write_text('title = "Small"\nseeds = 2\n[[federation]]\ntask = "CartPole-v1"\nagents = 3\ntrajectories = 60\n')
    code, _, errors = fedpg("experiment", str(path), "--in-process", "--out", str(tmp_path / "runs"))
    assert code == ExitCode.OK, errors
    page = (tmp_path / "runs" / "small" / "report.html").read_text()
    assert "--in-process" in page
    for planned in read_experiment(str(path)).runs:
        there = load_run(tmp_path / "runs" / "small" / planned.name)
        over_the_network = run_federation(planned.federation, tmp_path / planned.name, agents_per_process=3)
        assert digests(there) == digests(over_the_network)
