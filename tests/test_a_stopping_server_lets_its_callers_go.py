"""A server that is told to stop answers those who wait on it, so that they try again, and none of them is an error."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg.v1 import federation_pb2_grpc
from fedpg_common.errors import ExitCode
from fedpg_common.federation import describe
from fedpg_server.board import RoundBoard
from fedpg_server.server import ServerOptions, serve
from fedpg_server.service import STOPS
from support import CALL_TIMEOUT_S, open_aio_channel

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
        options = ServerOptions(tmp_path, "127.0.0.1:0", describe("CartPole-v1", agents=AGENTS), tensorboard=False)
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
