"""A local run whose agents fail, end or are refused until no quorum is left ends at once, with one sentence and a code.

The sentence names the agents, what happened to them, and where their log is; nobody waits for who will not come back.
"""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from failing_environments import failing_task
from fedpg_common.descriptions import describe
from fedpg_common.errors import ExitCode, FedPGError, QuorumLostError
from fedpg_common.federation import Federation
from fedpg_lab.experiments.plan import PlannedRun
from fedpg_lab.experiments.runner import RunsFailedError, run_missing
from fedpg_lab.local.failures import ProcessFailedError
from fedpg_lab.local.processes import LocalFederation
from fedpg_lab.local.train import TrainOptions, train
from fedpg_lab.runs.folders import load_run
from rich.console import Console

DAY_S = 86_400.0
"""As an experiment has it: whoever waits for a round to time out waits for too long for any test."""


def failing(folder: Path, how: str, agents: int = 2, **options: Any) -> Federation:
    folder.mkdir(exist_ok=True)
    return Federation(task=failing_task(folder, how, **options), agents=agents, round_timeout_s=DAY_S)


def failure(federation: Federation, folder: Path, agents_per_process: int = 1) -> FedPGError:
    options = TrainOptions(agents_per_process=agents_per_process, observers=())
    with pytest.raises(FedPGError) as caught:
        train(federation, folder / "run", options, Console(file=io.StringIO()))
    sentence = str(caught.value)
    assert "\n" not in sentence
    return caught.value


@pytest.mark.parametrize(
    ("how", "reason", "codes"),
    [
        ("nan", "", (ExitCode.ENVIRONMENT, ExitCode.QUORUM_LOST)),  # found at the environment, or at the server
        ("infinite", "", (ExitCode.ENVIRONMENT, ExitCode.QUORUM_LOST)),
        ("raise", "the simulator crashed", (ExitCode.ENVIRONMENT, ExitCode.BUG)),
        ("SystemExit", "SystemExit", (ExitCode.ENVIRONMENT,)),
        ("exit-0", "ended with exit status 0 before the run had ended", (ExitCode.ENVIRONMENT,)),
        ("exit-3", "ended with exit status 3 before the run had ended", (ExitCode.ENVIRONMENT,)),
        ("segfault", "was killed by SIGSEGV 6 times", (ExitCode.QUORUM_LOST,)),
    ],
)
def test_agents_whose_environment_fails(tmp_path: Path, how: str, reason: str, codes: tuple[ExitCode, ...]) -> None:
    error = failure(failing(tmp_path / "claims", how), tmp_path)
    assert re.match(r"round 1 cannot reach its quorum of 2: agents? [12]", str(error)), error
    assert reason in str(error)
    assert f"; see {tmp_path / 'run' / 'logs' / 'agent-'}" in str(error)
    assert error.exit_code in codes


@pytest.mark.parametrize("attack", ["silence", "not-finite", "wrong-shape", "garbage"])
def test_more_attackers_that_do_not_vote_than_the_quorum_bears(tmp_path: Path, attack: str) -> None:
    federation = describe("CartPole-v1", agents=5, byzantine=3, attack=attack, round_timeout_s=DAY_S)
    error = failure(federation, tmp_path)
    assert str(error) == f"round 1 cannot reach its quorum of 3: agents 1, 2, 3: {attack} does not vote"
    assert error.exit_code == ExitCode.QUORUM_LOST


def test_attackers_and_failures_together(tmp_path: Path) -> None:
    """Two silent attackers of five are borne; with one failure more, of the three here, there is no quorum."""
    federation = dataclasses.replace(
        failing(tmp_path / "claims", "exit-0", agents=5, count=3),
        byzantine=describe("CartPole-v1", agents=5, byzantine=2, attack="silence").byzantine,
    )
    error = failure(federation, tmp_path)
    assert "silence does not vote" in str(error)
    assert "ended with exit status 0" in str(error)


@pytest.mark.parametrize("how", ["raise", "SystemExit", "exit-0"])
def test_one_agent_of_five_is_borne_and_said(tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture) -> None:
    """Of agents that share a process, too: one that fails is known at once, while the others go on."""
    federation = dataclasses.replace(failing(tmp_path / "claims", how, agents=5, count=1), round_timeout_s=1.0)
    per_process = 1 if how == "exit-0" else 3
    with caplog.at_level(logging.WARNING):
        run = train(federation, tmp_path / "run", TrainOptions(per_process, observers=()), Console(file=io.StringIO()))
    assert run.is_complete
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    (agent,) = summary["failed_agents"]
    assert all(int(agent) in record.absent for record in run.records)
    said = [record.getMessage() for record in caplog.records if f"agent {agent}" in record.getMessage()]
    assert len(said) == 1
    assert said[0].endswith(".log")


def test_the_server_is_told_why_an_agent_failed(tmp_path: Path) -> None:
    federation = dataclasses.replace(failing(tmp_path / "claims", "raise", agents=5, count=1), round_timeout_s=1.0)
    train(federation, tmp_path / "run", TrainOptions(5, observers=()), Console(file=io.StringIO()))
    log = (tmp_path / "run" / "logs" / "server.log").read_text()
    assert len(re.findall(r"agent \d has failed: .*the simulator crashed", log)) == 1


@pytest.mark.parametrize("how", ["exit-0", "exit-3", "SystemExit", "raise"])
def test_a_server_whose_environment_fails(tmp_path: Path, how: str) -> None:
    """Whatever the exit status: a server that ends before the run does has failed. What was answered stays stored."""
    error = failure(failing(tmp_path / "claims", how, where="server"), tmp_path)
    assert isinstance(error, ProcessFailedError)
    assert error.exit_code != ExitCode.OK
    if how.startswith("exit"):
        assert f"exit status {how[-1]} before the run had ended: most likely an environment" in str(error)
        assert error.exit_code == ExitCode.ENVIRONMENT
        assert str(tmp_path / "run" / "logs" / "server.log") in str(error)
    assert not load_run(tmp_path / "run").is_complete


def test_an_experiment_fails_a_run_at_once_and_goes_on_with_the_others(tmp_path: Path) -> None:
    """It promises complete rounds: one agent is enough, though a quorum is there and the deadline a day away."""
    good = PlannedRun("good/seed-0", failing(tmp_path / "none", ""))
    bad = PlannedRun("bad/seed-0", failing(tmp_path / "claims", "raise", agents=5, count=1))
    output = io.StringIO()
    with pytest.raises(
        RunsFailedError, match=r"1 of 2 runs failed, first bad/seed-0: .*the simulator crashed"
    ) as caught:
        run_missing([bad, good], tmp_path / "out", jobs=1, console=Console(file=output))
    assert caught.value.exit_code != ExitCode.OK
    assert "failed bad/seed-0" in output.getvalue()
    assert load_run(tmp_path / "out" / "good/seed-0").is_complete
    assert json.loads((tmp_path / "out" / "bad/seed-0" / "summary.json").read_text())["failed_agents"]


def test_an_agent_that_is_started_again_is_not_gone(tmp_path: Path) -> None:
    """Killed by a signal once, it is started again; of its process, those that have not ended."""
    federation = failing(tmp_path / "claims", "segfault", agents=3, count=1)
    with LocalFederation(federation, tmp_path / "run", agents_per_process=3, observers=()) as processes:
        while processes.supervise():
            pass
        assert processes.failed_agents == {}
        assert processes.restarts == 1
    assert all(record.absent == () for record in load_run(tmp_path / "run").records)


def test_the_error_of_a_lost_quorum_is_one_of_the_documented_kind(tmp_path: Path) -> None:
    assert isinstance(failure(failing(tmp_path / "claims", "exit-0", agents=1), tmp_path), QuorumLostError)
