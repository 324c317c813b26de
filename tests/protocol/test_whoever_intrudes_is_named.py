"""A call in another's name is put down to the certificate that made it, and what callers say does not steer a log."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg_common.transport.verdicts import Verdict
from fedpg_lab.local.status import render, without_control_characters
from fedpg_server.protocol.restoring import restore_coordinator
from fedpg_server.sparse_log import ALL_UP_TO, KEYS_MAX, SparseLog
from fedpg_server.storage.store import STORE_NAME, Store
from protocol.test_tls_gives_each_agent_one_vote_of_its_own import AGENT_2, calling_as, failure, secured
from rich.console import Console
from support.protocol import CALL_TIMEOUT_S

ESCAPE = "\x1b[31mred\x1b[0m\nsecond line"


def test_the_row_of_the_certificate_shows_it_also_after_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def intrude() -> None:
        async with secured(tmp_path) as door, calling_as(door, AGENT_2) as second:
            await door.open_round(1, 0)
            for _ in range(5):
                await failure(second.Join(pb.JoinRequest(agent=1), timeout=CALL_TIMEOUT_S))  # type: ignore[arg-type]
            await failure(second.Join(pb.JoinRequest(agent=99), timeout=CALL_TIMEOUT_S))  # type: ignore[arg-type]
            members = door.run.coordinator.members
            assert members[2].verdicts == {Verdict.NOT_A_MEMBER: 6}
            assert members[2].calls == 6
            assert not members[1].verdicts
            while True:  # nobody waits for it, so that nobody hears of it
                with Store.read(tmp_path / STORE_NAME) as store:
                    if store.verdict_counts().get(2, {}).get(Verdict.NOT_A_MEMBER) == 6:
                        break
                await asyncio.sleep(0.01)

    with caplog.at_level(logging.WARNING):
        asyncio.run(asyncio.wait_for(intrude(), 300))
    assert "with the certificate of agent-2: the certificate is agent 2's, the message agent 1's" in caplog.text
    with Store.open(tmp_path / STORE_NAME) as store:
        coordinator = restore_coordinator(store.federation, store, store.records())
    assert coordinator.intrusions == 6
    assert coordinator.members[2].verdicts == {Verdict.NOT_A_MEMBER: 6}


def test_the_version_of_an_agent_is_logged_and_does_nothing_to_a_terminal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def join() -> None:
        async with secured(tmp_path) as door, calling_as(door, AGENT_2) as second:
            await second.Join(pb.JoinRequest(agent=2, version=ESCAPE + 1000 * "x"), timeout=CALL_TIMEOUT_S)

    with caplog.at_level(logging.INFO):
        asyncio.run(join())
    (line,) = [record.getMessage() for record in caplog.records if "agent 2 joined" in record.getMessage()]
    assert "version ?[31mred?[0m?second line" in line
    assert line.isprintable()
    assert len(line) < 200


def test_one_caller_keeps_nobody_else_out_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    sparse = SparseLog(logging.getLogger("sparse"))
    with caplog.at_level(logging.INFO):
        for _ in range(1000):
            sparse.write(logging.INFO, "refused agent-1", "agent 1")
        sparse.write(logging.INFO, "refused agent-2", "agent 2")
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) < ALL_UP_TO + 10
    assert lines[-1] == "agent 2"


def test_a_crowd_of_callers_does_not_fill_it_either(caplog: pytest.LogCaptureFixture) -> None:
    sparse = SparseLog(logging.getLogger("sparse"))
    with caplog.at_level(logging.CRITICAL):
        for number in range(3 * KEYS_MAX):
            sparse.write(logging.INFO, str(number), "somebody else")
    assert len(sparse._counts) == KEYS_MAX + 1


def test_a_server_cannot_steer_the_terminal_that_shows_its_status() -> None:
    status = pb.GetStatusReply(
        run_id=ESCAPE, task=ESCAPE, message=ESCAPE, algorithm=ESCAPE,
        latest=pb.RoundSummary(round=1, rule=ESCAPE), agents=[pb.AgentStatus(agent=1, last_verdict=77)],  # type: ignore[arg-type]
    )  # fmt: skip
    without_control_characters(status)
    console = Console(width=200, force_terminal=False)
    with console.capture() as shown:
        console.print(render(status))
    assert "\x1b" not in shown.get()
    assert "?[31mred?[0m?second line" in shown.get()
    assert "verdict 77" in shown.get()
