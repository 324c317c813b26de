"""An agent without an environment: its worker, and a server that plays a script."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import cast

import grpc
import numpy as np
from fedpg.v1 import federation_pb2 as pb
from fedpg.v1 import federation_pb2_grpc
from fedpg_client.calls import FederationCalls
from fedpg_client.retry import Caller
from fedpg_client.worker import Update, Worker
from fedpg_common.learning.parameters import ParameterSpec, Vector
from fedpg_common.speeds import Speed
from fedpg_common.transport import wire
from fedpg_common.transport.channels import server_options
from support.protocol import SIZE, SPEC, digest_of_vector


class StubPolicy:
    """As much of a policy as an agent looks at."""

    spec: ParameterSpec = SPEC


class StubWorker:
    """Answers with θ + 1 and notes what it was asked."""

    def __init__(self) -> None:
        """Asked nothing yet."""
        self.policy = StubPolicy()
        self.speed = Speed()
        self.asked: list[tuple[int, int, list[float]]] = []

    def work(self, round_number: int, batch_size: int, theta: Vector) -> Update:
        """The update."""
        self.asked.append((round_number, batch_size, theta.tolist()))
        gradient = (theta + 1).astype(np.float32)
        return Update(
            gradient, batch_size, environment_steps=10 * batch_size, mean_return=10.0, mean_length=9.0, loss=0.5
        )


def make_stub_worker(_joined: pb.JoinReply) -> Worker:
    """A fresh one, as an agent makes it at Join."""
    return cast(Worker, StubWorker())


def open_reply(number: int, value: float = 0.0) -> pb.AwaitRoundReply:
    """An open round with constant parameters."""
    theta = np.full(SIZE, value, np.float32)
    round_ = pb.Round(
        number=number,
        batch_size=4,
        parameters=wire.vector_to_tensor(theta),
        parameters_digest=digest_of_vector(theta),
    )
    return pb.AwaitRoundReply(state=pb.AwaitRoundReply.STATE_OPEN, round=round_)


NOT_YET = pb.AwaitRoundReply(state=pb.AwaitRoundReply.STATE_NOT_YET)
ENDED = pb.AwaitRoundReply(state=pb.AwaitRoundReply.STATE_ENDED)
JOINED = pb.JoinReply(run_id="run-1", seed=3, agents=2, message_bytes_max=wire.message_bytes_max(SIZE))


class ScriptedServer(federation_pb2_grpc.FederationServicer):
    """Answers SubmitUpdate with one verdict after the other and notes the requests."""

    def __init__(self, verdicts: Sequence[pb.Verdict.ValueType]) -> None:
        """The verdicts to give, in order."""
        self.verdicts = list(verdicts)
        self.submissions: list[bytes] = []

    def Join(self, request: pb.JoinRequest, context: grpc.ServicerContext) -> pb.JoinReply:  # noqa: N802
        """Admit everyone."""
        return JOINED

    def SubmitUpdate(  # noqa: N802
        self, request: pb.SubmitUpdateRequest, context: grpc.ServicerContext
    ) -> pb.SubmitUpdateReply:
        """The next verdict."""
        self.submissions.append(request.SerializeToString(deterministic=True))
        return pb.SubmitUpdateReply(verdict=self.verdicts.pop(0))

    def AwaitRound(  # noqa: N802
        self, request: pb.AwaitRoundRequest, context: grpc.ServicerContext
    ) -> pb.AwaitRoundReply:
        """The run has ended."""
        return ENDED

    def Leave(self, request: pb.LeaveRequest, context: grpc.ServicerContext) -> pb.LeaveReply:  # noqa: N802
        """Goodbye."""
        return pb.LeaveReply()

    def GetStatus(  # noqa: N802
        self, request: pb.GetStatusRequest, context: grpc.ServicerContext
    ) -> pb.GetStatusReply:
        """Nothing to tell."""
        return pb.GetStatusReply()


@contextmanager
def scripted(server: ScriptedServer) -> Iterator[str]:
    """Serve it on loopback; gives the address."""
    grpc_server = grpc.server(ThreadPoolExecutor(2), options=server_options(wire.message_bytes_max(SIZE)))
    federation_pb2_grpc.add_FederationServicer_to_server(server, grpc_server)
    port = grpc_server.add_insecure_port("127.0.0.1:0")
    grpc_server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        grpc_server.stop(None).wait()


def make_calls(
    index: int, address: str, stop: threading.Event | None = None, make_caller: Callable[..., Caller] = Caller
) -> FederationCalls:
    """An agent's real line to a server."""
    caller = make_caller(address, np.random.default_rng(index), stop or threading.Event())
    return FederationCalls(index, caller, None, connect_patience_s=30.0, patience_s=30.0)
