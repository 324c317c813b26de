"""An attack of one's own that fails ends a local run at once, with the sentence and the code that it has in process.

Without the attack the run would be another one than was asked for, and would wait for its vote in every round.
"""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import re
from pathlib import Path

import pytest
from fedpg_common.descriptions import describe
from fedpg_common.errors import ExitCode, FedPGError
from fedpg_common.federation import Federation
from fedpg_common.modules import make_importable
from fedpg_common.worlds import World
from fedpg_lab.local.failures import ProcessFailedError
from fedpg_lab.local.processes import LocalFederation
from fedpg_lab.local.train import TrainOptions, train
from rich.console import Console

DAY_S = 86_400.0
"""Whoever waits for a round to time out waits for too long for any test."""
ATTACKS = """
import sys
from fedpg_client.attacks import Attack, Knowledge
class Raising(Attack):
    def tamper_gradient(self, gradient, context):
        return gradient / len(context.nothing)
class Later(Attack):
    def tamper_gradient(self, gradient, context):
        return gradient if context.round_number < 3 else None
class Meeting(Attack):
    knowledge = Knowledge.COLLUDERS
    def collude(self, pooled, context):
        raise KeyError("lost")
class Leaving(Attack):
    def choose(self, actor, action_space, context):
        sys.exit(0)
class Short(Attack):
    def tamper_gradient(self, gradient, context):
        return gradient[:3]
"""
SENTENCES = {
    "Raising": r"failed in tamper_gradient: AttributeError: .*'nothing' \(mine_that_fail\.py, line 6\)",
    "Later": r"failed in tamper_gradient: it must return a vector of numbers, not NoneType",
    "Meeting": r"failed in collude: KeyError: 'lost' \(mine_that_fail\.py, line 13\)",
    "Leaving": r"failed in choose: it ended the process \(SystemExit: 0\) \(mine_that_fail\.py, line 16\)",
}


def attacked(folder: Path, attack: str, timeout_s: float = DAY_S) -> Federation:
    """Five agents, of which one may be faulty as far as the quorum goes."""
    (folder / "mine_that_fail.py").write_text(ATTACKS)
    federation = describe(
        "CartPole-v1", folder=folder, agents=5, byzantine={"2": f"mine_that_fail:{attack}"}, trajectories=150,
        round_timeout_s=timeout_s,
    )  # fmt: skip
    make_importable(federation)  # as every command does
    return federation


def failure(federation: Federation, folder: Path, options: TrainOptions) -> FedPGError:
    with pytest.raises(FedPGError) as caught:
        train(federation, folder, options, Console(file=io.StringIO()))
    return caught.value


@pytest.mark.parametrize(("attack", "sentence"), SENTENCES.items())
def test_over_the_network_it_ends_as_in_process(attack: str, sentence: str, tmp_path: Path) -> None:
    federation = attacked(tmp_path, attack)
    error = failure(federation, tmp_path / "run", TrainOptions(observers=()))
    assert re.fullmatch(f"agent 2: attack mine_that_fail:{attack} {sentence}", str(error))
    assert error.exit_code == ExitCode.USAGE
    alone = failure(federation, tmp_path / "alone", TrainOptions(observers=(), in_process=True))
    assert (str(alone), alone.exit_code) == (str(error), error.exit_code)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["failed_agents"] == {"2": str(error).removeprefix("agent 2: ")}
    assert summary["failure"] == str(error)


def test_it_is_not_started_again_where_others_are(tmp_path: Path) -> None:
    processes = LocalFederation(attacked(tmp_path, "Raising"), tmp_path / "run", observers=(), restarts_failures=True)

    def follow() -> None:
        while processes.supervise():
            processes.wait_for_end(0.05)

    with processes, pytest.raises(ProcessFailedError, match="failed in tamper_gradient"):
        follow()
    assert processes.restarts == 0


def test_a_world_of_ones_own_that_cannot_be_made_ends_it_too(tmp_path: Path) -> None:
    """The server leaves the making of such worlds to their agents."""
    federation = attacked(tmp_path, "Short")
    (tmp_path / "mine_that_wrap.py").write_text("def wrap(environment):\n    raise ValueError('no such sensor')\n")
    world = World(wrappers=("mine_that_wrap:wrap",))
    federation = dataclasses.replace(federation, byzantine={}, environments={3: world})
    error = failure(federation, tmp_path / "run", TrainOptions(observers=()))
    assert error.exit_code == ExitCode.USAGE
    assert str(error).startswith("agent 3: ")
    assert "no such sensor" in str(error)


def test_a_vote_that_is_refused_is_borne_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Attackers may try what the server makes of it: that costs its rounds their whole time, which is to be known."""
    federation = attacked(tmp_path, "Short", timeout_s=1.0)
    with caplog.at_level(logging.WARNING):
        run = train(federation, tmp_path / "run", TrainOptions(observers=()), Console(file=io.StringIO()))
    assert run.is_complete
    assert len(run.records) > 1
    assert all(record.absent == (2,) for record in run.records)
    (said,) = [message for message in caplog.messages if "no vote" in message]
    assert re.fullmatch(
        r"agent 2 has no vote: gradient refused, wrong shape: \(3,\), not \(\d+,\); a round in which that is so waits "
        r"1 s \(said once\); see .*agent-2\.log",
        said,
    )
