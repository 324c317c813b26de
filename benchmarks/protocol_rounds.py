"""Rounds in which nobody computes, of the real protocol and of gRPC alone with the same messages."""

from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np
from fedpg.v1 import federation_pb2 as pb
from fedpg.v1 import federation_pb2_grpc
from fedpg_common.bootstrap import look_for_garbage_rarely, take_short_turns
from fedpg_common.descriptions import describe, federation_to_toml
from fedpg_common.learning.aggregators import Aggregate, RoundPlan, Votes
from fedpg_common.learning.parameters import ParameterSpec, TensorSpec, Vector
from fedpg_common.tasks import CARTPOLE
from fedpg_common.transport import wire
from fedpg_common.transport.channels import client_options, server_options
from fedpg_common.transport.verdicts import Verdict
from fedpg_server.learning.algorithms.adam import fresh
from fedpg_server.learning.algorithms.base import InnerReport
from fedpg_server.learning.learner import RoundResult
from fedpg_server.learning.records import Evaluation, RoundRecord
from fedpg_server.learning.state import State
from fedpg_server.run import Run
from fedpg_server.serving.grpc_server import start_listening
from fedpg_server.serving.service import FederationService
from fedpg_server.storage.seal import Seal
from fedpg_server.storage.store import STORE_NAME, Store

SIZE = 5_000
SPEC = ParameterSpec((TensorSpec("theta", (SIZE,)),))
MESSAGE_BYTES = wire.message_bytes_max(SIZE)
RUN_ID = "benchmark"
LOOPBACK = "127.0.0.1:0"
WARM_UP_ROUNDS = 3
CALL_TIMEOUT_S = 120.0

if TYPE_CHECKING:
    Stub = federation_pb2_grpc.FederationAsyncStub


@dataclass(frozen=True)
class Case:
    """A federation to time."""

    agents: int
    connections: int
    target_ms: float
    """For the median round."""


class IdleLearner:
    """Accepts everyone and changes nothing."""

    def plan(self, round_number: int) -> RoundPlan:
        """A round of one trajectory."""
        return RoundPlan(round_number, batch_size=1, inner_steps=0)

    def improve(self, state: State, plan: RoundPlan, updates: Mapping[int, Vector]) -> RoundResult:
        """The same state again."""
        votes = Votes(tuple(updates), np.zeros((len(updates), 1), np.float32), len(updates), plan, CARTPOLE)
        aggregate = Aggregate(None, "mean", dict.fromkeys(updates, 1.0))
        return RoundResult(
            state, votes, aggregate, {}, gradient_norm=0.0, inner=InnerReport(), trajectories=1, learning_rate=0.0
        )

    def evaluate(self, theta: Vector, round_number: int) -> Evaluation:
        """One episode of no steps."""
        return Evaluation(returns=(0.0,), lengths=(0,))


@dataclass
class Rounds:
    """What was measured of each round, in seconds."""

    times_s: list[float] = field(default_factory=list)
    storing_s: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    """Of the server's process, of a round on average."""

    def __iadd__(self, more: Rounds) -> Rounds:
        """These rounds and more."""
        count = len(self.times_s) + len(more.times_s)
        self.cpu_s = (self.cpu_s * len(self.times_s) + more.cpu_s * len(more.times_s)) / count
        self.times_s += more.times_s
        self.storing_s += more.storing_s
        return self


class Stopwatch:
    """An observer that notes when each round's result is in, and what that took."""

    def __init__(self) -> None:
        """Nothing noted yet."""
        self._noted: list[tuple[float, float, float]] = []
        self._storing_s = 0.0

    @contextmanager
    def storing(self) -> Iterator[None]:
        """The store writes. For its thread alone."""
        started_s = time.perf_counter()
        yield
        self._storing_s += time.perf_counter() - started_s

    def record(self, record: RoundRecord, theta: Vector) -> None:
        """Note the time."""
        self._noted.append((time.perf_counter(), time.process_time(), self._storing_s))

    def rounds(self) -> Rounds:
        """What was noted after the warm-up."""
        times_s, cpu_s, storing_s = np.diff(self._noted[WARM_UP_ROUNDS:], axis=0).T
        return Rounds(times_s.tolist(), storing_s.tolist(), float(cpu_s.mean()))

    def close(self) -> None:
        """Nothing is buffered."""


class TimedStore(Store):
    """A store whose transactions are timed."""

    stopwatch: Stopwatch

    @contextmanager
    def _transaction(self, finished: int | None = None) -> Iterator[tuple[sqlite3.Connection, Seal]]:
        with self.stopwatch.storing(), super()._transaction(finished) as open_one:
            yield open_one


# The server's process -------------------------------------------------------------------------------------------------


def serve_protocol(agents: int, rounds: int, folder: Path, pipe: Connection) -> None:
    """Serve a run of that many rounds: sends its address, then what was measured of its rounds."""

    async def serve() -> Rounds:
        federation = describe("CartPole-v1", agents=agents, trajectories=rounds)
        start = fresh(np.zeros(SIZE, np.float32))
        store = TimedStore.create(folder / STORE_NAME, RUN_ID, federation_to_toml(federation), start)
        assert isinstance(store, TimedStore)
        stopwatch = store.stopwatch = Stopwatch()
        run = Run(federation, SPEC, store, IdleLearner(), [stopwatch], time.monotonic)
        service = FederationService(authenticated=False)
        service.serve(run.calls)
        endpoint = await start_listening(LOOPBACK, None, service, MESSAGE_BYTES, agents)
        pipe.send(endpoint.address)
        await run.serve()
        await endpoint.stop(1.0)
        store.close()
        return stopwatch.rounds()

    take_short_turns()  # as a server's process does
    look_for_garbage_rarely()
    pipe.send(asyncio.run(serve()))


class ReadyAnswers(federation_pb2_grpc.FederationServicer):
    """Answers of the usual size that are ready: what is left is gRPC."""

    def __init__(self) -> None:
        """Make the answers."""
        parameters = wire.vector_to_tensor(np.zeros(SIZE, np.float32))
        round_ = pb.Round(
            number=1, batch_size=1, parameters=parameters, parameters_digest=wire.tensor_digest(parameters)
        )
        self._round = pb.AwaitRoundReply(state=pb.AwaitRoundReply.STATE_OPEN, round=round_, time_left_s=100.0)

    async def AwaitRound(self, request: pb.AwaitRoundRequest, context: object) -> pb.AwaitRoundReply:  # noqa: N802
        """A round."""
        return self._round

    async def SubmitUpdate(self, request: pb.SubmitUpdateRequest, context: object) -> pb.SubmitUpdateReply:  # noqa: N802
        """Accepted."""
        return pb.SubmitUpdateReply(verdict=pb.VERDICT_ACCEPTED, message=Verdict.ACCEPTED.sentence)


def serve_ready_answers(pipe: Connection) -> None:
    """Serve until told to stop: sends its address, and its processor time in seconds whenever asked for it."""

    async def serve() -> None:
        server = grpc.aio.server(options=server_options(MESSAGE_BYTES))
        federation_pb2_grpc.add_FederationServicer_to_server(ReadyAnswers(), server)  # type: ignore[abstract]
        port = server.add_insecure_port(LOOPBACK)
        await server.start()
        pipe.send(f"127.0.0.1:{port}")
        while await asyncio.to_thread(pipe.recv) != "stop":
            pipe.send(time.process_time())
        await server.stop(None)

    asyncio.run(serve())


# The agents -----------------------------------------------------------------------------------------------------------


def make_submission(agent: int, run_id: str) -> pb.SubmitUpdateRequest:
    """An agent's vector for every round."""
    gradient = wire.vector_to_tensor(np.random.default_rng(agent).standard_normal(SIZE, np.float32))
    return pb.SubmitUpdateRequest(
        run_id=run_id, agent=agent, gradient=gradient, gradient_digest=wire.tensor_digest(gradient)
    )


async def take_part(agent: int, stub: Stub) -> None:
    """One agent that submits the same vector in every round, until the run ends."""
    joined = await stub.Join(pb.JoinRequest(agent=agent), timeout=CALL_TIMEOUT_S, wait_for_ready=True)
    submission = make_submission(agent, joined.run_id)
    poll = pb.AwaitRoundRequest(run_id=joined.run_id, agent=agent, wait_s=30.0)
    while True:
        reply = await stub.AwaitRound(poll, timeout=CALL_TIMEOUT_S)
        if reply.state == pb.AwaitRoundReply.STATE_ENDED:
            break
        if reply.state == pb.AwaitRoundReply.STATE_OPEN:
            submission.round = poll.after_round = reply.round.number
            submission.parameters_digest = reply.round.parameters_digest
            judged = await stub.SubmitUpdate(submission, timeout=CALL_TIMEOUT_S)
            assert judged.verdict == pb.VERDICT_ACCEPTED, judged.message
    await stub.Leave(pb.LeaveRequest(run_id=joined.run_id, agent=agent), timeout=CALL_TIMEOUT_S)


@asynccontextmanager
async def connected(case: Case, address: str) -> AsyncIterator[dict[int, Stub]]:
    """A stub an agent, over the case's number of connections."""
    async with AsyncExitStack() as stack:
        stubs = []
        for _ in range(case.connections):
            channel = grpc.aio.insecure_channel(address, options=client_options(MESSAGE_BYTES))
            stubs.append(federation_pb2_grpc.FederationStub(await stack.enter_async_context(channel)))
        yield {agent: stubs[agent % case.connections] for agent in range(1, case.agents + 1)}


async def take_part_in_all(case: Case, address: str) -> None:
    """All agents, to the end of the run."""
    async with connected(case, address) as stubs:
        await asyncio.gather(*(take_part(agent, stub) for agent, stub in stubs.items()))


async def exchange_messages(case: Case, address: str, rounds: int, pipe: Connection) -> Rounds:
    """A poll and a submission an agent and round, and nothing else. `pipe` leads to the server."""

    def cpu_s() -> float:
        pipe.send("processor time")
        told: float = pipe.recv()
        return told

    times_s = []
    async with connected(case, address) as stubs:

        async def exchange(stub: Stub, submission: pb.SubmitUpdateRequest) -> None:
            poll = pb.AwaitRoundRequest(run_id=RUN_ID, agent=submission.agent, after_round=1, wait_s=30.0)
            reply = await stub.AwaitRound(poll, timeout=CALL_TIMEOUT_S)
            submission.round, submission.parameters_digest = reply.round.number, reply.round.parameters_digest
            await stub.SubmitUpdate(submission, timeout=CALL_TIMEOUT_S)

        submissions = {agent: make_submission(agent, RUN_ID) for agent in stubs}
        started_cpu_s = 0.0
        for number in range(WARM_UP_ROUNDS + rounds):
            if number == WARM_UP_ROUNDS:
                started_cpu_s = cpu_s()
            started_s = time.perf_counter()
            await asyncio.gather(*(exchange(stub, submissions[agent]) for agent, stub in stubs.items()))
            times_s.append(time.perf_counter() - started_s)
        return Rounds(times_s[WARM_UP_ROUNDS:], cpu_s=(cpu_s() - started_cpu_s) / rounds)


# The timing -----------------------------------------------------------------------------------------------------------


def beside(target: Callable[..., None], *arguments: object) -> tuple[BaseProcess, Connection]:
    """A process with the other end of the pipe as its last argument."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(*arguments, theirs))
    process.start()
    theirs.close()  # so that a process that dies is noticed here
    return process, ours


def time_protocol(case: Case, rounds: int) -> Rounds:
    """The real protocol, after a warm-up."""
    with tempfile.TemporaryDirectory() as folder:
        server, pipe = beside(serve_protocol, case.agents, rounds + WARM_UP_ROUNDS + 1, Path(folder))
        asyncio.run(take_part_in_all(case, pipe.recv()))
        measured: Rounds = pipe.recv()
        server.join()
    return measured


def time_grpc(case: Case, rounds: int) -> Rounds:
    """The same of gRPC alone."""
    server, pipe = beside(serve_ready_answers)
    measured = asyncio.run(exchange_messages(case, pipe.recv(), rounds, pipe))
    pipe.send("stop")
    server.join()
    return measured
