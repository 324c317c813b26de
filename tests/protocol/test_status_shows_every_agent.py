"""`fedpg status`: what a running federation is at, and each agent with its verdicts."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg_common.errors import RefusedError, UnreachableError
from fedpg_lab import cli
from fedpg_lab.local.agent_setup import free_address
from fedpg_lab.local.status import fetch_status, render, to_plain, without_control_characters
from rich.console import Console
from support.protocol import CALL_TIMEOUT_S, idle_federation, serving, serving_in_a_thread
from typer.testing import CliRunner

Presence = pb.AgentStatus


def agent(index: int, **values: object) -> pb.AgentStatus:
    fields = {"presence": Presence.PRESENCE_JOINED, "last_seen_s": 2.4, **values}
    return pb.AgentStatus(agent=index, **fields)  # type: ignore[arg-type]


def status() -> pb.GetStatusReply:
    counts = [(pb.VERDICT_ACCEPTED, 6), (pb.VERDICT_DUPLICATE, 2), (pb.VERDICT_CONFLICT, 1), (pb.VERDICT_NOT_FINITE, 3)]
    return pb.GetStatusReply(
        run_id="f00", task="CartPole-v1", algorithm="fedpg-br", seed=4, phase=pb.PHASE_COLLECTING,
        message="waiting for agents 3", round=8, trajectories=112, trajectories_target=5000, quorum=2,
        environment_steps=123456, intrusions=5,
        latest=pb.RoundSummary(round=7, evaluation_return=201.25, rule="R1", accepted=[1], filtered=[2], absent=[3]),
        agents=[
            agent(1, last_vote_round=8, last_verdict=pb.VERDICT_ACCEPTED, rounds_accepted=7),
            agent(
                2, last_vote_round=8, last_verdict=pb.VERDICT_CONFLICT, rounds_accepted=1, rounds_filtered=6,
                verdicts=[pb.VerdictCount(verdict=verdict, count=count) for verdict, count in counts],
            ),
            agent(3, presence=Presence.PRESENCE_LEFT, last_vote_round=6, last_verdict=pb.VERDICT_ACCEPTED),
            agent(4, presence=Presence.PRESENCE_NEVER_SEEN, last_seen_s=-1.0),
        ],
    )  # fmt: skip


def shown(reply: pb.GetStatusReply, width: int = 100) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(render(reply))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_round_return_and_verdicts_are_shown() -> None:
    lines = shown(status())
    assert lines[:5] == [
        "CartPole-v1, fedpg-br, seed 4, run f00",
        "round 8: waiting for agents 3",
        "112/5000 trajectories, 123,456 environment steps, quorum 2 of 4",
        "round 7 closed by R1: accepted 1, filtered 1, absent 1; return 201.2",
        "5 calls from strangers or with another's identity were refused",
    ]
    rows = {line.split()[0]: line for line in lines[6:]}
    assert list(rows) == ["1", "2", "3", "4"]
    assert rows["1"].split() == ["1", "joined", "2", "s", "8", "accepted", "accepted", "7", "0", "0"]
    assert rows["2"].split() == ["2", "joined", "2", "s", "8", "conflict", "filtered", "1", "6", "4"]
    assert rows["3"].split() == ["3", "left", "2", "s", "6", "accepted", "absent", "0", "0", "0"]
    assert rows["4"].split() == ["4", "not", "seen", "never", "none", "none", "none", "0", "0", "0"]


def test_every_agent_has_one_row_on_a_narrow_terminal_too() -> None:
    rows = [line.split() for line in shown(status(), width=80)[-4:]]
    assert rows == [line.split() for line in shown(status(), width=200)[-4:]]


def test_before_the_first_round_there_is_no_outcome() -> None:
    reply = pb.GetStatusReply(message="no round is open yet", quorum=1, agents=[agent(1)])
    assert not any("closed by" in line for line in shown(reply))
    assert shown(reply)[-1].split()[-4:] == ["none", "0", "0", "0"]


def test_the_status_of_a_running_federation(tmp_path: Path) -> None:
    with serving_in_a_thread(tmp_path, idle_federation(agents=300, rounds=5)) as address:
        result = CliRunner().invoke(cli.app, ["status", "--server", address], catch_exceptions=False)
    assert result.exit_code == 0
    assert "CartPole-v1, fedpg-br, seed 0" in result.stdout
    assert sum("not seen" in line for line in result.stdout.splitlines()) == 300


def test_the_votes_of_a_real_round_are_in_it(tmp_path: Path) -> None:
    async def vote_and_look() -> pb.GetStatusReply:
        async with serving(tmp_path, idle_federation(agents=3, rounds=2)) as door:
            for index in (1, 2, 3):
                await door.vote(index, await door.open_round(index, 0))
            await door.open_round(1, 1)
            while True:  # the round is told of once it is evaluated
                reply = await asyncio.to_thread(fetch_status, door.address, None, 30.0)
                if reply.HasField("latest"):
                    return reply

    reply = asyncio.run(asyncio.wait_for(vote_and_look(), CALL_TIMEOUT_S))
    lines = shown(reply)
    assert "round 1 closed by mean: accepted 3, filtered 0, absent 0; return 0.0" in lines
    assert [line.split()[-4:] for line in lines[-3:]] == [["accepted", "1", "0", "0"]] * 3


def test_whatever_the_aggregator_tells_is_shown() -> None:
    reply = status()
    reply.latest.figures.update({"radius": 0.251, "alarms": 2.0})
    assert "alarms 2, radius 0.251" in shown(reply)
    assert "weight" not in " ".join(shown(reply))
    reply.latest.weights.update({1: 1.0, 2: 0.25})
    lines = shown(reply)
    assert any(" weight " in line for line in lines)
    assert any(" 0.25 " in line for line in lines)
    assert to_plain(reply)["latest"]["weights"] == {"1": 1.0, "2": 0.25}


def test_a_figure_whose_name_gives_orders_is_named_without_them() -> None:
    reply = status()
    reply.latest.figures["\x1b[2Jradius"] = 1.0
    without_control_characters(reply)
    assert dict(reply.latest.figures) == {"?[2Jradius": 1.0}


def test_what_others_have_named_gives_the_terminal_no_orders() -> None:
    reply = status()
    reply.message = "waiting\x1b[2J\nfor nobody"
    reply.task = "Cart\x07Pole\r[red]"
    reply.agents[0].note = "\x1b]0;title\x07 [/b] \u202e"
    text = "\n".join(shown(reply))
    assert not set(text) & {"\x1b", "\x07", "\r", "\u202e"}
    assert "round 8: waiting\\x1b[2J for nobody" in text
    assert "Cart\\x07Pole [red], fedpg-br" in text
    assert "agent 1: \\x1b]0;title\\x07 [/b] \\u202e" in text


def test_a_newer_server_may_know_more_than_this_version() -> None:
    reply = status()
    reply.agents[0].last_verdict = 17  # type: ignore[assignment]
    reply.agents[1].presence = 9  # type: ignore[assignment]
    text = "\n".join(shown(reply, width=200))
    assert "verdict 17 (unknown to this version)" in text
    assert "state 9 (unknown to this version)" in text


def test_one_is_not_many() -> None:
    reply = pb.GetStatusReply(intrusions=1, unreadable=1, trajectories_target=1, agents=[agent(1)])
    lines = shown(reply)
    assert "1 call from strangers or with another's identity was refused" in lines
    assert "1 request did not arrive whole, in time, or was not a message" in lines
    assert any(line.startswith("0/1 trajectory, ") for line in lines)


def test_no_server_is_one_sentence() -> None:
    address = free_address()
    with pytest.raises(UnreachableError, match=f"no status from {address}: "):
        fetch_status(address, None, timeout_s=5.0)


def test_a_server_that_is_another_service_is_one_sentence() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(RefusedError, match="UNIMPLEMENTED"):
            fetch_status(f"127.0.0.1:{port}", None, timeout_s=300.0)
    finally:
        server.stop(None).wait()
