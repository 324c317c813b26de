"""Stepped by hand: the agent joins, does each round once, bears what a network does to it, and leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import grpc
import numpy as np
import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg_client.agent import Agent
from fedpg_client.retry import ServerRefusedError, StoppedError
from fedpg_client.worker import Update, Worker
from fedpg_common.errors import RefusedError, UnreachableError
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.recursion import Kind, Recursion
from fedpg_common.transport import wire
from fedpg_common.transport.verdicts import Verdict
from support.agent_stubs import ENDED, JOINED, NOT_YET, StubWorker, open_reply
from support.protocol import SIZE, digest_of_vector

Reply = pb.AwaitRoundReply | Exception


class Script:
    """A server that answers polls from a list, and notes all calls in order."""

    def __init__(self, *replies: Reply, verdict: int = pb.VERDICT_ACCEPTED) -> None:
        self.replies = list(replies)
        self.verdict = verdict
        self.calls: list[str] = []
        self.farewells: list[tuple[int, str]] = []
        self.submissions: list[tuple[pb.Round, pb.Tensor, pb.WorkReport]] = []

    def join(self) -> pb.JoinReply:
        self.calls.append("join")
        return JOINED

    def await_round(self, after_round: int) -> pb.AwaitRoundReply:
        self.calls.append(f"await {after_round}")
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def submit(self, round_: pb.Round, gradient: pb.Tensor, report: pb.WorkReport) -> pb.SubmitUpdateReply:
        self.calls.append(f"submit {round_.number}")
        self.submissions.append((round_, gradient, report))
        return pb.SubmitUpdateReply(verdict=cast(pb.Verdict.ValueType, self.verdict))

    def leave(self, reason: pb.LeaveRequest.Reason.ValueType = pb.LeaveRequest.REASON_DONE, detail: str = "") -> None:
        self.calls.append("leave")
        self.farewells.append((reason, detail))

    def ask_why(self) -> str:
        self.calls.append("ask why")
        return "round 1 waits"


class Stepped:
    """An agent on that script, its workers, and a clock that ticks half a second a reading."""

    def __init__(self, script: Script) -> None:
        self.workers: list[StubWorker] = []
        self.time_s = 0.0
        self.agent = Agent(2, script, self.make_worker, self.clock)

    def make_worker(self, joined: pb.JoinReply) -> Worker:
        assert joined == JOINED
        self.workers.append(StubWorker())
        return cast(Worker, self.workers[-1])

    def clock(self) -> float:
        self.time_s += 0.5
        return self.time_s


def test_a_whole_run() -> None:
    script = Script(open_reply(1, 0.0), NOT_YET, open_reply(2, 5.0), ENDED)
    stepped = Stepped(script)
    stepped.agent.run()
    assert script.calls == ["join", "await 0", "submit 1", "await 1", "await 1", "submit 2", "await 2", "leave"]
    assert stepped.workers[0].asked == [(1, 4, [0.0] * SIZE), (2, 4, [5.0] * SIZE)]
    gradients = [wire.tensor_to_vector(gradient, SIZE).tolist() for _, gradient, _ in script.submissions]
    assert gradients == [[1.0] * SIZE, [6.0] * SIZE]
    assert script.submissions[0][2] == pb.WorkReport(
        trajectories=4, environment_steps=40, mean_return=10.0, mean_length=9.0, loss=0.5, seconds=0.5
    )


def test_a_step_waits_for_one_poll_at_most() -> None:
    script = Script(NOT_YET, open_reply(1), ENDED)
    stepped = Stepped(script)
    assert stepped.agent.step()
    assert not script.submissions
    assert stepped.agent.step()
    assert len(script.submissions) == 1
    assert not stepped.agent.step()


@pytest.mark.parametrize("damage", ["parameters", "digest"])
def test_parameters_that_came_damaged_are_fetched_again_and_never_worked_with(damage: str) -> None:
    damaged = open_reply(1)
    if damage == "parameters":
        damaged.round.parameters.data = b"\x01" + damaged.round.parameters.data[1:]
    else:
        damaged.round.parameters_digest = b"\x01" * 32
    script = Script(damaged, open_reply(1), ENDED)
    stepped = Stepped(script)
    stepped.agent.run()
    assert script.calls == ["join", "await 0", "await 0", "submit 1", "await 1", "leave"]
    assert stepped.workers[0].asked == [(1, 4, [0.0] * SIZE)]


def reply_with_recursion() -> pb.AwaitRoundReply:
    reply = open_reply(1)
    recursion = Recursion(Kind.DIFFERENCE, np.ones(SIZE, np.float32), np.zeros(SIZE, np.float32))
    reply.round.recursion.CopyFrom(wire.recursion_to_message(recursion))
    return reply


class AskedWorker(StubWorker):
    def __init__(self) -> None:
        super().__init__()
        self.recursions: list[Recursion | None] = []

    def work(self, round_number: int, batch_size: int, theta: Vector, recursion: Recursion | None = None) -> Update:
        self.recursions.append(recursion)
        return super().work(round_number, batch_size, theta)


@pytest.mark.parametrize("field", ["previous_parameters", "previous_estimate", "digest"])
def test_what_comes_damaged_beside_the_parameters_is_fetched_again(field: str) -> None:
    damaged = reply_with_recursion()
    if field == "digest":
        damaged.round.recursion.digest = bytes(32)
    else:
        tensor = getattr(damaged.round.recursion, field)
        tensor.data = b"\x01" + tensor.data[1:]
    script = Script(damaged, reply_with_recursion(), ENDED)
    worker = AskedWorker()
    Agent(2, script, lambda joined: cast(Worker, worker), lambda: 0.0).run()
    assert script.calls == ["join", "await 0", "await 0", "submit 1", "await 1", "leave"]
    (recursion,) = worker.recursions
    assert recursion is not None
    assert (recursion.kind, recursion.previous.tolist()) == (Kind.DIFFERENCE, [1.0] * SIZE)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_parameters_that_are_no_numbers_are_the_servers_fault(value: float) -> None:
    script = Script(open_reply(1, value))
    with pytest.raises(wire.NotFiniteError):
        Stepped(script).agent.run()
    assert script.calls[-1] == "leave"


def test_another_run_at_the_same_address_is_joined_anew() -> None:
    gone = ServerRefusedError(grpc.StatusCode.NOT_FOUND, "this server's run is another: join again")
    script = Script(open_reply(5), gone, open_reply(1, 2.0), ENDED)
    stepped = Stepped(script)
    stepped.agent.run()
    assert script.calls == [
        "join", "await 0", "submit 5", "await 5", "join", "await 0", "submit 1", "await 1", "leave",
    ]  # fmt: skip
    assert [worker.asked[0][0] for worker in stepped.workers] == [5, 1], "with a worker of its own"


def test_a_submission_that_meets_another_run_joins_it_anew() -> None:
    script = Script(open_reply(5), ENDED, verdict=pb.VERDICT_WRONG_RUN)
    Stepped(script).agent.run()
    assert script.calls == ["join", "await 0", "submit 5", "join", "await 0", "leave"]


GOES_ON = set(Verdict) - {Verdict.NOT_A_MEMBER, Verdict.WRONG_RUN}


@pytest.mark.parametrize("verdict", sorted(GOES_ON), ids=lambda verdict: verdict.name)
def test_whatever_the_verdict_the_round_is_done_and_the_agent_goes_on(verdict: Verdict) -> None:
    script = Script(open_reply(3), ENDED, verdict=verdict)
    Stepped(script).agent.run()
    assert script.calls == ["join", "await 0", "submit 3", "await 3", "leave"]


def test_an_agent_that_is_no_member_stops() -> None:
    script = Script(open_reply(1), verdict=pb.VERDICT_NOT_A_MEMBER)
    with pytest.raises(RefusedError, match="not one of the federation's"):
        Stepped(script).agent.run()


@pytest.mark.parametrize("verdict", [pb.VERDICT_UNSPECIFIED, 99])
def test_a_verdict_that_it_does_not_know_stops_it(verdict: int) -> None:
    with pytest.raises(wire.WireError, match=f"verdict {verdict}"):
        Stepped(Script(open_reply(1), verdict=verdict)).agent.run()


@pytest.mark.parametrize(
    "make",
    [
        lambda: UnreachableError("no answer"),
        lambda: StoppedError(),
        lambda: ServerRefusedError(grpc.StatusCode.PERMISSION_DENIED, "not you"),
        lambda: ServerRefusedError(grpc.StatusCode.UNAUTHENTICATED, "who are you"),
    ],
)
def test_a_failure_ends_the_agent_with_a_goodbye(make: Callable[[], Exception]) -> None:
    failure = make()
    script = Script(open_reply(1), failure)
    with pytest.raises(type(failure)):
        Stepped(script).agent.run()
    assert script.calls[-1] == "leave"


def test_the_digest_of_a_round_is_that_of_its_bytes() -> None:
    round_ = open_reply(1, 1.5).round
    assert wire.tensor_digest(round_.parameters) == digest_of_vector(np.full(SIZE, 1.5, np.float32))
