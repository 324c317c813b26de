"""Whatever one agent sends, it gets a clear answer, and the run goes on to its end with the honest votes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg_common.descriptions import describe
from fedpg_common.transport import wire
from fedpg_common.transport.verdicts import Verdict
from fedpg_server.learning.records import RoundRecord
from fedpg_server.storage.store import STORE_NAME, Store
from support.protocol import CALL_TIMEOUT_S, SIZE, Door, idle_federation, make_submission, open_aio_channel, serving

ROUNDS = 2
HONEST = (1, 2)
BAD = 3
QUORUM_SOON_S = 0.02
"""A deadline that has passed by the time the honest votes are in: two of three are a quorum."""

Misdeed = Callable[[Door, pb.Round], Awaitable[None]]


def run_with(misdeed: Misdeed, folder: Path) -> list[RoundRecord]:
    """A run in which agent 3 does something bad each round before the others vote."""

    async def play() -> list[RoundRecord]:
        async with serving(folder, idle_federation(3, ROUNDS, QUORUM_SOON_S)) as door:
            for number in range(1, ROUNDS + 1):
                round_ = await door.open_round(HONEST[0], number - 1)
                assert round_.number == number
                await misdeed(door, round_)
                for agent in HONEST:
                    await door.vote(agent, round_)
            return await door.finish()

    return asyncio.run(play())


def assert_only_the_honest_counted(records: list[RoundRecord]) -> None:
    assert [record.round_number for record in records] == list(range(1, ROUNDS + 1))
    for record in records:
        assert record.accepted == HONEST
        assert record.absent == (BAD,)


def resigned(request: pb.SubmitUpdateRequest) -> pb.SubmitUpdateRequest:
    """The request with a gradient digest that fits its bytes."""
    request.gradient_digest = wire.tensor_digest(request.gradient)
    return request


def with_gradient(*values: float) -> Callable[[pb.SubmitUpdateRequest], None]:
    def change(request: pb.SubmitUpdateRequest) -> None:
        request.gradient.CopyFrom(wire.vector_to_tensor(np.array(values, np.float32)))
        resigned(request)

    return change


def with_shape(*shape: int) -> Callable[[pb.SubmitUpdateRequest], None]:
    def change(request: pb.SubmitUpdateRequest) -> None:
        request.gradient.shape[:] = shape

    return change


def with_fields(**fields: object) -> Callable[[pb.SubmitUpdateRequest], None]:
    def change(request: pb.SubmitUpdateRequest) -> None:
        for name, value in fields.items():
            setattr(request, name, value)

    return change


def cut_data(request: pb.SubmitUpdateRequest) -> None:
    request.gradient.data = request.gradient.data[:-1]
    resigned(request)


def flip_a_bit(request: pb.SubmitUpdateRequest) -> None:
    data = bytearray(request.gradient.data)
    data[5] ^= 0x10
    request.gradient.data = bytes(data)


def cleared(name: str) -> Callable[[pb.SubmitUpdateRequest], None]:
    return lambda request: request.ClearField(name)  # type: ignore[arg-type]


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (with_gradient(*[1.0] * (SIZE - 1)), Verdict.WRONG_SHAPE),
        (with_gradient(*[1.0] * (SIZE + 1)), Verdict.WRONG_SHAPE),
        (with_shape(2, SIZE // 2), Verdict.WRONG_SHAPE),
        (with_shape(2**63), Verdict.WRONG_SHAPE),
        (cut_data, Verdict.WRONG_SHAPE),
        (with_gradient(*[1.0] * (SIZE - 1), NAN), Verdict.NOT_FINITE),
        (with_gradient(-INF, *[1.0] * (SIZE - 1)), Verdict.NOT_FINITE),
        (with_fields(round=99), Verdict.UNKNOWN_ROUND),
        (with_fields(round=2**64 - 1), Verdict.UNKNOWN_ROUND),
        (with_fields(round=0), Verdict.STALE_ROUND),
        (with_fields(parameters_digest=bytes(32)), Verdict.WRONG_PARAMETERS),
        (cleared("parameters_digest"), Verdict.WRONG_PARAMETERS),
        (with_fields(run_id="another"), Verdict.WRONG_RUN),
        (flip_a_bit, Verdict.DAMAGED),
        (cleared("gradient_digest"), Verdict.DAMAGED),
        (cleared("gradient"), Verdict.DAMAGED),
        (with_fields(agent=4), Verdict.NOT_A_MEMBER),
        (with_fields(agent=0), Verdict.NOT_A_MEMBER),
        (with_fields(agent=2**32 - 1), Verdict.NOT_A_MEMBER),
    ],
)
def test_a_bad_submission_gets_its_verdict(
    tmp_path: Path, change: Callable[[pb.SubmitUpdateRequest], None], verdict: Verdict
) -> None:
    async def misdeed(door: Door, round_: pb.Round) -> None:
        request = make_submission(door.run.run_id, BAD, round_)
        change(request)
        reply = await door.submit(request)
        assert Verdict(reply.verdict) is verdict
        assert reply.message == verdict.sentence

    assert_only_the_honest_counted(run_with(misdeed, tmp_path))


def status_of(call: Awaitable[object]) -> Awaitable[tuple[grpc.StatusCode, str]]:
    """The status with which a call must fail."""

    async def fail() -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        return caught.value.code(), caught.value.details() or ""

    return fail()


def test_a_submission_that_is_too_large_is_not_even_read(tmp_path: Path) -> None:
    async def misdeed(door: Door, round_: pb.Round) -> None:
        request = make_submission(door.run.run_id, BAD, round_, np.zeros(1_000_000, np.float32))
        code, details = await status_of(door.submit(request))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in details

    assert_only_the_honest_counted(run_with(misdeed, tmp_path))


def test_bytes_that_are_no_message_fail_alone(tmp_path: Path) -> None:
    async def misdeed(door: Door, round_: pb.Round) -> None:
        async with open_aio_channel(door.address) as channel:
            for name in ("Join", "AwaitRound", "SubmitUpdate", "Leave"):
                call = channel.unary_unary(f"/fedpg.v1.Federation/{name}", None, None)
                code, _ = await status_of(call(b"\xff\xff\xff", timeout=CALL_TIMEOUT_S))
                assert code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INVALID_ARGUMENT)

    assert_only_the_honest_counted(run_with(misdeed, tmp_path))


def test_an_empty_message_is_refused_by_every_call_that_names_an_agent(tmp_path: Path) -> None:
    async def misdeed(door: Door, round_: pb.Round) -> None:
        for call in (
            door.stub.Join(pb.JoinRequest(), timeout=CALL_TIMEOUT_S),
            door.stub.AwaitRound(pb.AwaitRoundRequest(), timeout=CALL_TIMEOUT_S),
            door.stub.Leave(pb.LeaveRequest(), timeout=CALL_TIMEOUT_S),
        ):
            code, details = await status_of(call)
            assert code is grpc.StatusCode.PERMISSION_DENIED
            assert "agent 0 is not in this federation: its agents are 1 to 3" in details
        reply = await door.submit(pb.SubmitUpdateRequest())
        assert reply.verdict == pb.VERDICT_NOT_A_MEMBER

    assert_only_the_honest_counted(run_with(misdeed, tmp_path))


@pytest.mark.parametrize("wait_s", [NAN, INF, -1.0])
def test_an_absurd_wait_is_refused(tmp_path: Path, wait_s: float) -> None:
    async def misdeed(door: Door, round_: pb.Round) -> None:
        code, details = await status_of(door.poll(BAD, 0, wait_s))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "wait_s" in details

    assert_only_the_honest_counted(run_with(misdeed, tmp_path))


def test_a_poll_for_another_run_sends_the_agent_to_join_anew(tmp_path: Path) -> None:
    async def misdeed(door: Door, round_: pb.Round) -> None:
        request = pb.AwaitRoundRequest(run_id="another", agent=BAD)
        code, details = await status_of(door.stub.AwaitRound(request, timeout=CALL_TIMEOUT_S))
        assert code is grpc.StatusCode.NOT_FOUND
        assert "join again" in details

    assert_only_the_honest_counted(run_with(misdeed, tmp_path))


@pytest.mark.parametrize("figure", [1.7e308, -1.7e308, INF, NAN])
def test_absurd_reports_do_not_end_the_run(tmp_path: Path, figure: float) -> None:
    report = pb.WorkReport(
        trajectories=2**32 - 1, environment_steps=2**64 - 1, mean_return=figure, mean_length=figure, loss=figure,
        seconds=figure,
    )  # fmt: skip

    async def misdeed(door: Door, round_: pb.Round) -> None:
        for agent in (BAD, *HONEST):
            request = make_submission(door.run.run_id, agent, round_)
            request.report.CopyFrom(report)
            assert (await door.submit(request)).verdict == pb.VERDICT_ACCEPTED

    async def play() -> list[RoundRecord]:
        async with serving(tmp_path, idle_federation(3, ROUNDS)) as door:
            for number in range(1, ROUNDS + 1):
                await misdeed(door, await door.open_round(BAD, number - 1))
            return await door.finish()

    records = asyncio.run(play())
    limit = describe("CartPole-v1").task.horizon
    for record in records:
        assert record.accepted == (1, 2, 3)
        assert record.environment_steps["agents"] == 3 * limit, "no more steps than a round of one trajectory can have"
        assert record.training_return is not None
        assert np.isfinite(record.training_return)
        assert RoundRecord.from_json(record.to_json()) == record


def test_equivocation_is_answered_counted_and_kept_as_evidence(tmp_path: Path) -> None:
    async def play() -> None:
        async with serving(tmp_path, idle_federation(2, 1)) as door:
            round_ = await door.open_round(1, 0)
            first = make_submission(door.run.run_id, 1, round_)
            second = make_submission(door.run.run_id, 1, round_, np.full(SIZE, 7, np.float32))
            verdicts = [(await door.submit(request)).verdict for request in (first, first, second, first)]
            assert verdicts == [
                pb.VERDICT_ACCEPTED, pb.VERDICT_DUPLICATE, pb.VERDICT_CONFLICT, pb.VERDICT_DUPLICATE,
            ]  # fmt: skip
            evidence = Store.read(tmp_path / STORE_NAME).conflicts()
            assert [(row.agent, row.digest) for row in evidence] == [(1, second.gradient_digest)]
            status = await door.status()
            assert {entry.verdict: entry.count for entry in status.agents[0].verdicts} == {
                pb.VERDICT_ACCEPTED: 1, pb.VERDICT_DUPLICATE: 2, pb.VERDICT_CONFLICT: 1,
            }  # fmt: skip
            await door.vote(2, round_)
            await door.finish()

    asyncio.run(play())
