"""What the protocol's tests share: a learner without work, its records, and a real server on loopback."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from fedpg.v1 import federation_pb2 as pb
from fedpg.v1 import federation_pb2_grpc
from fedpg_common.descriptions import describe, federation_to_toml
from fedpg_common.federation import Federation
from fedpg_common.learning.aggregators import Aggregate, RoundPlan, Votes
from fedpg_common.learning.parameters import ParameterSpec, TensorSpec, Vector
from fedpg_common.tasks import CARTPOLE
from fedpg_common.transport import wire
from fedpg_common.transport.channels import TlsFiles
from fedpg_server.learning.algorithms.adam import fresh
from fedpg_server.learning.algorithms.base import InnerReport
from fedpg_server.learning.learner import RoundResult
from fedpg_server.learning.records import Evaluation, RoundRecord
from fedpg_server.learning.state import THETA, State
from fedpg_server.protocol.coordinator import Phase
from fedpg_server.run import Run
from fedpg_server.serving.grpc_server import start_listening
from fedpg_server.serving.request_guard import ARRIVAL_MAX_S
from fedpg_server.serving.service import FederationService
from fedpg_server.storage.store import STORE_NAME, Store

DESCRIPTION = federation_to_toml(describe("CartPole-v1", agents=5))
SIZE = 8
SPEC = ParameterSpec((TensorSpec("w", (SIZE,)),))
CALL_TIMEOUT_S = 120.0
"""No test expects to wait that long; it ends one that would otherwise hang."""


def digest_of_vector(vector: Vector) -> bytes:
    """SHA-256 of the vector's bytes, as submissions and rounds carry it."""
    return hashlib.sha256(np.ascontiguousarray(vector, "<f4").tobytes()).digest()


def make_round_record(round_number: int, **changes: Any) -> RoundRecord:
    """A plausible record of a closed round."""
    values: dict[str, Any] = {
        "round_number": round_number, "parameters_digest": "00" * 32, "batch_size": 16, "inner_steps": 3,
        "inner_steps_taken": 2, "inner_aborted": True, "trajectories_total": 16 * round_number,
        "sampled_trajectories": {"agents": 80, "inner": 8}, "environment_steps": {"agents": 1600, "inner": 160},
        "rule": "R1", "has_mu": True, "weights": {1: 1.0, 2: 1.0, 3: 1.0, 4: 0.0}, "figures": {"radius": 0.05},
        "accepted": (1, 2, 3), "filtered": (4,), "absent": (5,), "median_agent": 2,
        "distances": {"good": 0.02}, "centre_distances": {1: 0.01, 2: 0.0, 3: 0.02, 4: 7.5},
        "detection": {"precision": 1.0}, "evaluation_returns": (20.0, 30.0), "evaluation_lengths": (20.0, 30.0),
        "training_return": 21.5, "training_length": 21.5, "loss": -0.1, "gradient_norm": 0.03,
        "inner_gradient_norms": (0.02, 0.03), "importance_ratios": (1.0, 1.01), "learning_rate": 1e-3,
        "skipped_steps": 0, "seconds": 0.5,
    }  # fmt: skip
    return RoundRecord(**{**values, **changes})


class IdleLearner:
    """Accepts everyone. Each round counts as one trajectory and moves θ by the mean of the gradients."""

    def plan(self, round_number: int) -> RoundPlan:
        """A round of one trajectory an agent."""
        return RoundPlan(round_number, batch_size=1, inner_steps=0)

    def improve(self, state: State, plan: RoundPlan, updates: Mapping[int, Vector]) -> RoundResult:
        """Take the mean."""
        theta = state.theta + np.mean(list(updates.values()), axis=0, dtype=np.float32)
        votes = Votes(tuple(updates), np.stack(list(updates.values())), len(updates), plan, CARTPOLE)
        aggregate = Aggregate(None, rule="mean", weights=dict.fromkeys(updates, 1.0))
        return RoundResult(
            state.with_vectors({THETA: theta}, state.steps + 1), votes, aggregate, {}, gradient_norm=0.0,
            inner=InnerReport(), trajectories=1, learning_rate=0.0,
        )  # fmt: skip

    def evaluate(self, theta: Vector, round_number: int) -> Evaluation:
        """One episode of no steps."""
        return Evaluation(returns=(0.0,), lengths=(0,))


def initial_state(size: int = SIZE) -> State:
    """Zeros."""
    return fresh(np.zeros(size, np.float32))


def idle_federation(agents: int, rounds: int, round_timeout_s: float = 1000.0) -> Federation:
    """A federation that ends after `rounds` rounds of the IdleLearner."""
    return describe("CartPole-v1", agents=agents, trajectories=rounds, round_timeout_s=round_timeout_s)


def make_submission(
    run_id: str, agent: int, round_: pb.Round, gradient: Vector | None = None
) -> pb.SubmitUpdateRequest:
    """A flawless submission; by default of a vector full of the agent's index."""
    vector = np.full(SIZE, agent, np.float32) if gradient is None else gradient
    tensor = wire.vector_to_tensor(vector)
    return pb.SubmitUpdateRequest(
        run_id=run_id,
        agent=agent,
        round=round_.number,
        parameters_digest=round_.parameters_digest,
        gradient=tensor,
        gradient_digest=wire.tensor_digest(tensor),
    )


@dataclass
class Door:
    """A served run, and calls to it over one connection."""

    address: str
    run: Run
    stub: federation_pb2_grpc.FederationAsyncStub
    callers: set[int] = field(default_factory=set)
    rounds: asyncio.Task[None] | None = None

    def start_rounds(self) -> None:
        """Begin with the rounds."""
        self.rounds = asyncio.create_task(self.run.serve())

    async def stop_rounds(self) -> None:
        """Stop where they are, if they have begun."""
        if self.rounds is not None:
            self.rounds.cancel()
            await asyncio.gather(self.rounds, return_exceptions=True)

    async def open_round(self, agent: int, after_round: int) -> pb.Round:
        """The first open round after a round, as that agent gets it."""
        self.callers.add(agent)
        while True:
            reply = await self.poll(agent, after_round, wait_s=10.0)
            if reply.state == pb.AwaitRoundReply.STATE_OPEN:
                return reply.round
            assert reply.state == pb.AwaitRoundReply.STATE_NOT_YET

    async def poll(self, agent: int, after_round: int, wait_s: float = 0.0) -> pb.AwaitRoundReply:
        """One poll."""
        request = pb.AwaitRoundRequest(run_id=self.run.run_id, agent=agent, after_round=after_round, wait_s=wait_s)
        return await self.stub.AwaitRound(request, timeout=CALL_TIMEOUT_S)

    async def submit(self, request: pb.SubmitUpdateRequest) -> pb.SubmitUpdateReply:
        """One submission."""
        self.callers.add(request.agent)
        return await self.stub.SubmitUpdate(request, timeout=CALL_TIMEOUT_S)

    async def vote(self, agent: int, round_: pb.Round) -> None:
        """A flawless submission, which must be accepted."""
        reply = await self.submit(make_submission(self.run.run_id, agent, round_))
        assert reply.verdict == pb.VERDICT_ACCEPTED, reply.message

    async def status(self) -> pb.GetStatusReply:
        """The run's status."""
        return await self.stub.GetStatus(pb.GetStatusRequest(), timeout=CALL_TIMEOUT_S)

    async def finish(self) -> list[RoundRecord]:
        """See the run to its end, which must have come, and return its records."""
        while self.run.coordinator.phase is not Phase.ENDED:
            await asyncio.sleep(0.005)
        for agent in sorted(self.callers & set(self.run.calls.members)):
            assert (await self.poll(agent, 0)).state == pb.AwaitRoundReply.STATE_ENDED
            await self.stub.Leave(pb.LeaveRequest(run_id=self.run.run_id, agent=agent), timeout=CALL_TIMEOUT_S)
        assert self.rounds is not None
        await self.rounds
        return self.run.records


@asynccontextmanager
async def serving(
    folder: Path,
    federation: Federation,
    tls: TlsFiles | None = None,
    client_tls: grpc.ChannelCredentials | None = None,
    listen: str = "127.0.0.1:0",
    start_rounds: bool = True,
    arrival_max_s: float = ARRIVAL_MAX_S,
    size: int = SIZE,
    joining_grace_s: float = 0.1,
) -> AsyncIterator[Door]:
    """A real run, service and store on a loopback port, with an IdleLearner and a policy of `size` parameters."""
    path = folder / STORE_NAME
    if path.exists():
        store = Store.open(path)
    else:
        store = Store.create(path, "run-1", federation_to_toml(federation), initial_state(size))
    spec = ParameterSpec((TensorSpec("w", (size,)),))
    run = Run(federation, spec, store, IdleLearner(), [], time.monotonic, joining_grace_s=joining_grace_s)
    service = FederationService(authenticated=tls is not None)
    service.serve(run.calls)
    limit = wire.message_bytes_max(size)
    endpoint = await start_listening(listen, tls, service, limit, federation.agents, arrival_max_s)
    channel = open_aio_channel(endpoint.address, client_tls)
    try:
        door = Door(endpoint.address, run, federation_pb2_grpc.FederationStub(channel))
        if start_rounds:
            door.start_rounds()
        yield door
    finally:
        await channel.close(None)
        await door.stop_rounds()
        await endpoint.stop(None)
        store.close()


def open_aio_channel(address: str, tls: grpc.ChannelCredentials | None = None) -> grpc.aio.Channel:
    """A connection of its own, without a limit on what it sends."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    if tls is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, tls, options=options)


@contextmanager
def serving_in_a_thread(folder: Path, federation: Federation) -> Iterator[str]:
    """As `serving`, beside this thread; gives the address."""
    address: list[str] = []
    ready, done = threading.Event(), threading.Event()

    async def serve() -> None:
        async with serving(folder, federation) as door:
            address.append(door.address)
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(CALL_TIMEOUT_S)
        yield address[0]
    finally:
        done.set()
        thread.join()


def wait_until(condition: Callable[[], bool], timeout_s: float = CALL_TIMEOUT_S) -> None:
    """Wait for a condition; the time limit only ends a test that would otherwise hang."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.005)
