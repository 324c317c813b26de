"""A hundred thousand mutated messages at the service: it answers each, the run goes on, and memory does not grow.

A fifth of them goes over the wire. The rest is handed to the same handlers behind the same gate in process, which is
some times as fast: what is left out there is gRPC itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import grpc
import numpy as np
import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg.v1 import federation_pb2_grpc
from fedpg_common.learning.aggregators import RoundPlan
from fedpg_common.learning.parameters import digest
from fedpg_server import run as server_run
from fedpg_server.serving import connections
from fedpg_server.serving.grpc_server import SERVICE_NAME
from fedpg_server.serving.request_guard import Gate
from fedpg_server.serving.service import FederationService
from support.memory import resident_bytes
from support.mutations import mutate
from support.protocol import (
    CALL_TIMEOUT_S,
    SIZE,
    Door,
    IdleLearner,
    idle_federation,
    initial_state,
    make_submission,
    open_aio_channel,
    serving,
)

SEED = 20211110
ROUNDS = 10
AGENTS = 4
HOSTILE = 4
IN_PROCESS_PER_ROUND = 8_000
OVER_THE_WIRE_PER_ROUND = 2_000
AT_ONCE_IN_PROCESS = 400
AT_ONCE_OVER_THE_WIRE = 80
GIVE_UP_S = 2.0
"""A mutated poll may well be a good one that the server holds."""
GROWTH_MAX_BYTES = 64 * 1024 * 1024

EXPECTED_CODES = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}

Outcomes = Counter[grpc.StatusCode]


class AbortedError(Exception):
    """What a handler raises when it refuses."""


class Context:
    """As much of a call's context as the service and its gate look at."""

    def __init__(self, request: bytes) -> None:
        """Of a call with this request."""
        self._request = request

    async def read(self) -> bytes:
        """The request."""
        return self._request

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        """Refuse."""
        raise AbortedError(code)

    def auth_context(self) -> dict[str, list[bytes]]:
        """Nobody in particular."""
        return {}

    def peer(self) -> str:
        """Somebody."""
        return "in process"


class Handlers:
    """The service's handlers by method, behind a gate of their own."""

    def __init__(self, door: Door) -> None:
        """Of the door's run."""
        service = FederationService(authenticated=False)
        service.serve(door.run.calls)
        self._gate = Gate(SERVICE_NAME, service.count_unreadable, lambda _peer, _name: None, arrival_max_s=GIVE_UP_S)
        self._handlers: dict[str, Any] = {}
        federation_pb2_grpc.add_FederationServicer_to_server(service, self)  # type: ignore[arg-type]  # no more of a server is needed

    def add_generic_rpc_handlers(self, _handlers: object) -> None:
        """Not needed beside the next."""

    def add_registered_method_handlers(self, _service: str, handlers: Mapping[str, Any]) -> None:
        """Take the handlers from the generated code."""
        self._handlers = dict(handlers)

    async def call(self, name: str, data: bytes) -> grpc.StatusCode:
        """What becomes of these bytes. Whatever is raised but a refusal goes on."""

        class Details:
            method = f"/{SERVICE_NAME}/{name}"

        async def handler(_details: object) -> Any:
            return self._handlers[name]

        guarded: Any = await self._gate.intercept_service(handler, Details)  # type: ignore[arg-type]
        try:
            async with asyncio.timeout(GIVE_UP_S):
                reply = await guarded.stream_unary(None, Context(data))
            assert guarded.response_serializer(reply) is not None
        except AbortedError as aborted:
            return aborted.args[0]  # type: ignore[no-any-return]
        except TimeoutError:
            return grpc.StatusCode.DEADLINE_EXCEEDED
        return grpc.StatusCode.OK


async def at_once(pending: list[Any], limit: int) -> list[grpc.StatusCode]:
    """The calls' outcomes, so many at a time."""
    outcomes: list[grpc.StatusCode] = []
    for start in range(0, len(pending), limit):
        outcomes += await asyncio.gather(*pending[start : start + limit])
    return outcomes


async def over_the_wire(channel: grpc.aio.Channel, name: str, data: bytes) -> grpc.StatusCode:
    """What becomes of these bytes."""
    call = channel.unary_unary(f"/{SERVICE_NAME}/{name}", None, None)(data, timeout=GIVE_UP_S)
    code: grpc.StatusCode = await call.code()
    return code


def flawless(door: Door, round_: pb.Round) -> list[tuple[str, bytes]]:
    """Good messages of the hostile agent, by call.

    Its gradient is the same in all rounds: a vote made by mutation, if there ever is one, is its own.
    """
    run_id = door.run.run_id
    submission = make_submission(run_id, HOSTILE, round_)
    submission.report.CopyFrom(pb.WorkReport(trajectories=3, environment_steps=100, mean_return=1.5, seconds=0.1))
    messages = [
        ("Join", pb.JoinRequest(agent=HOSTILE, version="0.1.0")),
        ("AwaitRound", pb.AwaitRoundRequest(run_id=run_id, agent=HOSTILE, after_round=round_.number - 1)),
        ("AwaitRound", pb.AwaitRoundRequest(run_id=run_id, agent=HOSTILE, after_round=round_.number, wait_s=0.001)),
        *[("SubmitUpdate", submission)] * 4,
        ("Leave", pb.LeaveRequest(run_id=run_id, agent=HOSTILE)),
        ("GetStatus", pb.GetStatusRequest()),
    ]
    return [(name, message.SerializeToString()) for name, message in messages]


async def attack(
    door: Door, handlers: Handlers, channel: grpc.aio.Channel, rng: Random, seeds: list[tuple[str, bytes]]
) -> Outcomes:
    """One round's share of mutated messages."""
    messages = [data for _, data in seeds]

    def draw() -> tuple[str, bytes]:
        name, message = rng.choice(seeds)
        return name, mutate(rng, message, messages)

    outcomes = await at_once([handlers.call(*draw()) for _ in range(IN_PROCESS_PER_ROUND)], AT_ONCE_IN_PROCESS)
    outcomes += await at_once(
        [over_the_wire(channel, *draw()) for _ in range(OVER_THE_WIRE_PER_ROUND)], AT_ONCE_OVER_THE_WIRE
    )
    return Counter(outcomes)


def expected_digests() -> list[str]:
    """What the rounds come to if everybody's vote is its own."""
    state, digests = initial_state(), []
    updates = {agent: np.full(SIZE, agent, np.float32) for agent in range(1, AGENTS + 1)}
    for number in range(1, ROUNDS + 1):
        state = IdleLearner().improve(state, RoundPlan(number, 1, 0), updates).state
        digests.append(digest(state.theta))
    return digests


def test_mutated_messages_are_answered_and_change_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So many messages on one connection are a flood, which the server would end; that is another promise.
    monkeypatch.setattr(connections, "FLOOD_MESSAGES_PER_S", 10**6)
    # A mutated vote may be a good one, and close the last round while there are messages still to come.
    monkeypatch.setattr(server_run, "LINGER_MAX_S", CALL_TIMEOUT_S)
    rng = Random(SEED)
    outcomes: Outcomes = Counter()
    resident: list[int] = []

    async def play() -> list[str]:
        async with (
            serving(tmp_path, idle_federation(AGENTS, ROUNDS)) as door,
            open_aio_channel(door.address) as channel,
        ):
            handlers = Handlers(door)
            seeds: list[tuple[str, bytes]] = []
            for number in range(1, ROUNDS + 1):
                round_ = await door.open_round(1, number - 1)
                for agent in range(1, AGENTS):
                    await door.vote(agent, round_)
                seeds = seeds[-30:] + flawless(door, round_)
                outcomes.update(await attack(door, handlers, channel, rng, seeds))
                resident.append(resident_bytes())
                final = await door.submit(make_submission(door.run.run_id, HOSTILE, round_))
                assert final.verdict in (pb.VERDICT_ACCEPTED, pb.VERDICT_DUPLICATE)
            door.callers.update(door.run.calls.members)
            records = await door.finish()
            assert all(record.accepted == tuple(range(1, AGENTS + 1)) for record in records)
            return [record.parameters_digest for record in records]

    assert asyncio.run(asyncio.wait_for(play(), 20 * CALL_TIMEOUT_S)) == expected_digests()
    assert outcomes.total() == ROUNDS * (IN_PROCESS_PER_ROUND + OVER_THE_WIRE_PER_ROUND) == 100_000
    assert set(outcomes) <= EXPECTED_CODES
    assert all(outcomes[code] > 100 for code in EXPECTED_CODES - {grpc.StatusCode.DEADLINE_EXCEEDED})
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info]
    assert len(caplog.records) < 100
    growth_bytes = resident[-1] - resident[ROUNDS // 3]
    assert growth_bytes < GROWTH_MAX_BYTES
