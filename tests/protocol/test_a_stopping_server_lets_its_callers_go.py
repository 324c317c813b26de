"""A server that is told to stop sends away those who wait on it, or keep it waiting, and none of them is its error."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg.v1 import federation_pb2_grpc
from fedpg_common.descriptions import describe
from fedpg_common.errors import ExitCode
from fedpg_server.protocol.board import RoundBoard
from fedpg_server.server import ServerOptions, serve
from fedpg_server.serving.grpc_server import SERVICE_NAME, start_listening
from fedpg_server.serving.request_guard import STOPS, Gate
from fedpg_server.serving.service import FederationService
from support.protocol import CALL_TIMEOUT_S, idle_federation, make_submission, open_aio_channel, serving

AGENTS = 5
WAIT_S = 30.0


async def polls_of(stub: federation_pb2_grpc.FederationAsyncStub) -> list[asyncio.Task[object]]:
    """Every agent has seen round 1 and waits for the next one, which nobody's vote brings nearer."""
    joined = [await stub.Join(pb.JoinRequest(agent=agent), timeout=CALL_TIMEOUT_S) for agent in range(1, AGENTS + 1)]
    run_id = joined[0].run_id

    async def poll(agent: int) -> object:
        request = pb.AwaitRoundRequest(agent=agent, run_id=run_id, after_round=1, wait_s=WAIT_S)
        return await stub.AwaitRound(request, timeout=WAIT_S)

    return [asyncio.create_task(poll(agent)) for agent in range(1, AGENTS + 1)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_whoever_waits_for_a_round_is_sent_away_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    held = asyncio.Semaphore(0)
    wait = RoundBoard.wait

    async def noted_wait(board: RoundBoard, after_round: int, wait_s: float) -> pb.AwaitRoundReply:
        held.release()
        return await wait(board, after_round, wait_s)

    monkeypatch.setattr(RoundBoard, "wait", noted_wait)

    async def play() -> tuple[ExitCode, list[object]]:
        bound: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        options = ServerOptions(tmp_path, "127.0.0.1:0", describe("CartPole-v1", agents=AGENTS), observers=())
        served = asyncio.create_task(serve(options, bound.set_result))
        async with open_aio_channel(await bound) as channel:
            stub = federation_pb2_grpc.FederationStub(channel)
            polls: list[asyncio.Task[object]] = []
            while not polls:
                with suppress(grpc.aio.AioRpcError):  # until it has taken up the run
                    polls = await polls_of(stub)
            for _ in polls:
                await asyncio.wait_for(held.acquire(), CALL_TIMEOUT_S)
            os.kill(os.getpid(), number)
            return await served, await asyncio.gather(*polls, return_exceptions=True)

    with caplog.at_level(logging.WARNING):
        code, answers = asyncio.run(play())
    assert code in (ExitCode.TERMINATED, ExitCode.INTERRUPTED)
    for answer in answers:
        assert isinstance(answer, grpc.aio.AioRpcError)
        assert (answer.code(), answer.details()) == (grpc.StatusCode.UNAVAILABLE, STOPS)
    assert not [record for record in caplog.records if record.exc_info]


def test_whoever_keeps_it_waiting_for_a_request_is_sent_away_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun = asyncio.Semaphore(0)
    arrival = Gate._arrival

    async def noted_arrival(gate: Gate, *call: Any) -> object | None:
        begun.release()
        return await arrival(gate, *call)

    monkeypatch.setattr(Gate, "_arrival", noted_arrival)

    async def play() -> grpc.aio.AioRpcError:
        endpoint = await start_listening("127.0.0.1:0", None, FederationService(authenticated=False), 1_000_000, 1)
        async with open_aio_channel(endpoint.address) as channel:
            call = channel.stream_unary(f"/{SERVICE_NAME}/Join", None, None)(None, timeout=WAIT_S)  # sends nothing
            await call.wait_for_connection()
            await asyncio.wait_for(begun.acquire(), CALL_TIMEOUT_S)
            await endpoint.stop(CALL_TIMEOUT_S)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            return caught.value

    with caplog.at_level(logging.WARNING):
        error = asyncio.run(play())
    assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, STOPS)
    assert not [record for record in caplog.records if record.exc_info]


def test_a_gate_may_be_closed_again_while_callers_are_on_their_way_out() -> None:
    class Context:
        async def read(self) -> None:
            await asyncio.Event().wait()

    async def play() -> object:
        gate = Gate(SERVICE_NAME, lambda: None, lambda _peer, _name: None, WAIT_S)
        arrival = asyncio.create_task(gate._arrival(cast(Any, Context()), "agent-1", bytes))
        await asyncio.sleep(0)
        for _ in range(5):  # once for each step of the way
            gate.close()
            await asyncio.sleep(0)
        return (await asyncio.gather(arrival, return_exceptions=True))[0]

    assert isinstance(asyncio.run(play()), TimeoutError)


def test_who_votes_for_an_earlier_round_after_the_end_is_sent_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The store is closed by then, in which its earlier vote would be looked up, and the service may still answer."""

    async def play() -> grpc.aio.AioRpcError:
        async with serving(tmp_path, idle_federation(1, 2)) as door:
            first = await door.open_round(1, 0)
            await door.vote(1, first)
            await door.vote(1, await door.open_round(1, 1))
            await door.finish()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await door.submit(make_submission(door.run.run_id, 1, first))
            return caught.value

    with caplog.at_level(logging.WARNING):
        error = asyncio.run(play())
    assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, STOPS)
    assert not [record for record in caplog.records if record.exc_info]
