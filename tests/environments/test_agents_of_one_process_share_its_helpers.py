"""Agents of one process have their episodes played by the same helpers: as many processes as for one of them."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest
from fedpg_client.process import AgentOptions, AgentProcess
from fedpg_common.environments import helpers
from fedpg_common.environments.helpers import Helpers
from fedpg_common.errors import ExitCode
from fedpg_common.federation import Federation
from fedpg_common.tasks import LUNAR_LANDER
from fedpg_lab.local.in_process.rounds import RunOptions, play
from fedpg_server.server import ServerOptions, serve
from support.protocol import CALL_TIMEOUT_S

TASK = replace(
    LUNAR_LANDER, hidden=(4,), horizon=4, evaluation_horizon=4, batch_size_min=4, batch_size_max=4, mini_batch_size=4,
    trajectories=8,
)  # fmt: skip
AGENTS = 3
FEDERATION = Federation(TASK, AGENTS)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Helpers]:
    """The sets of helpers that are made from now on."""
    found: list[Helpers] = []

    class Noted(Helpers):
        def __init__(self, most: int) -> None:
            super().__init__(most)
            found.append(self)

    monkeypatch.setattr(helpers, "Helpers", Noted)
    return found


def test_agents_in_threads_share_them(tmp_path: Path, made: list[Helpers]) -> None:
    addresses: Future[str] = Future()
    outcome: list[ExitCode] = []

    def take_part() -> None:
        address = addresses.result(CALL_TIMEOUT_S)
        outcome.append(AgentProcess([AgentOptions(agent, address, threads=2) for agent in range(1, AGENTS + 1)]).run())

    agents = threading.Thread(target=take_part)
    agents.start()
    options = ServerOptions(tmp_path, "127.0.0.1:0", FEDERATION, observers=(), threads=1)
    assert asyncio.run(serve(options, addresses.set_result)) is ExitCode.OK
    agents.join()
    assert outcome == [ExitCode.OK]
    assert len(made) == 1
    assert made[0].ready() == [], "the last to go has ended them"


def test_a_whole_federation_in_one_process_shares_them(tmp_path: Path, made: list[Helpers]) -> None:
    play(RunOptions(tmp_path, FEDERATION, observers=(), threads=2), lambda *_round: None)
    assert len(made) == 1
    assert made[0].ready() == []
