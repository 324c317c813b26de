"""An agent that is told to stop gives up the call that it waits in, and still says goodbye."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import grpc
import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg.v1 import federation_pb2_grpc
from fedpg_client.interruptible import InterruptibleChannel
from fedpg_client.process import AgentOptions, AgentProcess
from fedpg_common.descriptions import describe
from fedpg_common.environments import make_environments
from fedpg_common.errors import ExitCode
from fedpg_common.learning.policies import make_policy
from fedpg_common.transport import wire
from fedpg_common.transport.channels import open_channel

LONG_S = 60.0


class NoRoundYet(federation_pb2_grpc.FederationServicer):
    """A server that admits everybody and never opens a round."""

    def __init__(self) -> None:
        self.polls = threading.Semaphore(0)
        self.is_over = threading.Event()
        self.goodbyes: list[int] = []

    def Join(self, request: pb.JoinRequest, context: object) -> pb.JoinReply:  # noqa: N802
        federation = describe("CartPole-v1", agents=1, seed=1)
        environments = make_environments(federation.task)
        policy = make_policy(federation.task, environments.observation_size, environments.action_space)
        return pb.JoinReply(
            run_id="run",
            task=wire.task_to_message(federation.task),
            parameters=wire.spec_to_messages(policy.spec),
            seed=1,
            agents=1,
            message_bytes_max=wire.message_bytes_max(policy.spec.size),
        )

    def AwaitRound(self, request: pb.AwaitRoundRequest, context: object) -> pb.AwaitRoundReply:  # noqa: N802
        self.polls.release()
        self.is_over.wait(LONG_S)
        return pb.AwaitRoundReply(state=pb.AwaitRoundReply.STATE_NOT_YET)

    def Leave(self, request: pb.LeaveRequest, context: object) -> pb.LeaveReply:  # noqa: N802
        self.goodbyes.append(request.reason)
        return pb.LeaveReply()


@pytest.fixture
def served() -> Iterator[tuple[NoRoundYet, str]]:
    service = NoRoundYet()  # type: ignore[abstract]
    server = grpc.server(ThreadPoolExecutor(4))
    federation_pb2_grpc.add_FederationServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield service, f"127.0.0.1:{port}"
    service.is_over.set()
    server.stop(None).wait()


def test_an_agent_process_ends_in_the_middle_of_a_long_poll(served: tuple[NoRoundYet, str]) -> None:
    service, address = served
    process = AgentProcess([AgentOptions(index=1, server=address)])
    codes: list[ExitCode] = []
    running = threading.Thread(target=lambda: codes.append(process.run()), daemon=True)
    running.start()
    assert service.polls.acquire(timeout=LONG_S)
    process.stop.set()
    running.join(LONG_S / 2)
    assert codes == [ExitCode.TERMINATED]
    assert service.goodbyes == [pb.LeaveRequest.REASON_STOPPED]


def test_an_interruption_cancels_what_is_waited_for_now_and_later(served: tuple[NoRoundYet, str]) -> None:
    service, address = served
    channel = InterruptibleChannel(partial(open_channel, address, 1 << 20, None))
    stub = federation_pb2_grpc.FederationStub(channel)

    def interrupt() -> None:
        assert service.polls.acquire(timeout=LONG_S)
        channel.interrupt()

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    for _ in range(2):
        with pytest.raises(grpc.FutureCancelledError):
            stub.AwaitRound.future(pb.AwaitRoundRequest(), timeout=LONG_S).result()
    interrupting.join()
    channel.interrupt()
    stub.Leave(pb.LeaveRequest(), timeout=LONG_S)
    stub.Leave(pb.LeaveRequest(), timeout=LONG_S)
    assert len(service.goodbyes) == 2
    channel.close()


def test_a_failure_without_an_interruption_is_told_as_it_is() -> None:
    channel = InterruptibleChannel(partial(open_channel, "127.0.0.1:1", 1 << 20, None))
    stub = federation_pb2_grpc.FederationStub(channel)
    with pytest.raises(grpc.RpcError) as failure:
        stub.Leave.future(pb.LeaveRequest(), timeout=5.0).result()
    assert failure.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    channel.close()
