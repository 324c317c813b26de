"""How long a round takes when nobody computes: the protocol alone, over real gRPC on loopback.

The server is the real one (service, run, store) in a process of its own, with a learner that hands back its state.
The agents share this process; each answers at once with a vector of 5,000 numbers. A round is timed on the server, from
one round's result to the next, so everything in between counts: opening, polls, votes on disk, closing, recording.

Usage: python benchmarks/protocol.py [--rounds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import grpc
import numpy as np
from fedpg.v1 import federation_pb2 as pb
from fedpg.v1 import federation_pb2_grpc
from fedpg_common import wire
from fedpg_common.channels import client_options
from fedpg_common.federation import Federation, describe, federation_to_toml
from fedpg_common.parameters import ParameterSpec, TensorSpec, Vector
from fedpg_server.aggregation import Aggregate, Rule
from fedpg_server.learner import InnerReport, LearnerState, RoundPlan, RoundResult
from fedpg_server.records import RoundRecord
from fedpg_server.run import Run
from fedpg_server.server import start_listening
from fedpg_server.service import FederationService
from fedpg_server.store import Store

SIZE = 5_000
SPEC = ParameterSpec((TensorSpec("theta", (SIZE,)),))
WARM_UP_ROUNDS = 3
CALL_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Case:
    """A federation to time."""

    agents: int
    agents_per_channel: int
    target_ms: float
    """For the median round."""


@dataclass(frozen=True)
class Timing:
    """What one case took."""

    agents: int
    channels: int
    rounds: int
    median_ms: float
    p90_ms: float
    target_ms: float


CASES = (Case(10, 1, target_ms=10.0), Case(1_000, 50, target_ms=1_000.0))


class IdleLearner:
    """Accepts everyone and changes nothing."""

    def plan(self, round_number: int) -> RoundPlan:
        """A round of one trajectory."""
        return RoundPlan(round_number, batch_size=1, inner_steps=0)

    def improve(self, state: LearnerState, plan: RoundPlan, updates: Mapping[int, Vector]) -> RoundResult:
        """The same state again."""
        voters = tuple(updates)
        distances = np.zeros((len(voters), len(voters)))
        aggregate = Aggregate(None, Rule.MEAN, voters, voters, distances, radius=0.0, median_agent=None)
        return RoundResult(
            state, aggregate, gradient_norm=0.0, inner=InnerReport(), trajectories=1, evaluation_returns=(0.0,),
            evaluation_lengths=(0,), learning_rate=0.0,
        )  # fmt: skip


class Stopwatch:
    """An observer that notes when each round's result is in."""

    def __init__(self) -> None:
        """Nothing noted yet."""
        self.times_s: list[float] = []

    def record(self, record: RoundRecord, theta: Vector) -> None:
        """Note the time."""
        self.times_s.append(time.perf_counter())

    def close(self) -> None:
        """Nothing is buffered."""


def federation_of(agents: int, rounds: int) -> Federation:
    """A federation that ends after `rounds` rounds of the idle learner."""
    return describe("CartPole-v1", agents=agents, trajectories=rounds)


def serve_case(agents: int, rounds: int, folder: Path, pipe: Connection) -> None:
    """The server process: sends its address, then the round times in seconds."""
    asyncio.run(_serve_case(federation_of(agents, rounds), folder, pipe))


async def _serve_case(federation: Federation, folder: Path, pipe: Connection) -> None:
    zeros = np.zeros(SIZE, np.float32)
    start = LearnerState(zeros, zeros, zeros, adam_steps=0)
    store = Store.create(folder / "run.sqlite", "benchmark", federation_to_toml(federation), start)
    stopwatch = Stopwatch()
    run = Run(federation, SPEC, store, IdleLearner(), [stopwatch], time.monotonic)
    service = FederationService(authenticated=False)
    service.serve(run)
    server, _, address = await start_listening(
        "127.0.0.1:0", None, service, wire.message_bytes_max(SIZE), federation.agents
    )
    pipe.send(address)
    await run.serve()
    await server.stop(1.0)
    store.close()
    pipe.send(np.diff(stopwatch.times_s).tolist())


async def take_part(agents: Sequence[int], address: str) -> None:
    """Some agents on one channel, until the run ends."""
    async with grpc.aio.insecure_channel(address, options=client_options(wire.message_bytes_max(SIZE))) as channel:
        stub = federation_pb2_grpc.FederationStub(channel)
        await asyncio.gather(*(answer_at_once(agent, stub) for agent in agents))


async def answer_at_once(agent: int, stub: federation_pb2_grpc.FederationAsyncStub) -> None:
    """One agent that submits the same vector in every round."""
    joined = await stub.Join(pb.JoinRequest(agent=agent), timeout=CALL_TIMEOUT_S, wait_for_ready=True)
    gradient = wire.vector_to_tensor(np.random.default_rng(agent).standard_normal(SIZE, np.float32))
    submission = pb.SubmitUpdateRequest(
        run_id=joined.run_id, agent=agent, gradient=gradient, gradient_digest=wire.tensor_digest(gradient)
    )
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


async def _all_agents(case: Case, address: str) -> None:
    indices = range(1, case.agents + 1)
    groups = [
        indices[start : start + case.agents_per_channel] for start in range(0, case.agents, case.agents_per_channel)
    ]
    await asyncio.gather(*(take_part(group, address) for group in groups))


def time_case(case: Case, rounds: int) -> Timing:
    """Run one case and time its rounds after a warm-up."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = context.Pipe()
        arguments = (case.agents, rounds + WARM_UP_ROUNDS + 1, Path(folder), theirs)
        server = context.Process(target=serve_case, args=arguments)
        server.start()
        theirs.close()  # so that a server that dies is noticed here
        asyncio.run(_all_agents(case, ours.recv()))
        times_ms = [seconds * 1e3 for seconds in ours.recv()[WARM_UP_ROUNDS:]]
        server.join()
    return Timing(
        agents=case.agents,
        channels=-(-case.agents // case.agents_per_channel),
        rounds=len(times_ms),
        median_ms=statistics.median(times_ms),
        p90_ms=statistics.quantiles(times_ms, n=10)[-1],
        target_ms=case.target_ms,
    )


def table(timings: Sequence[Timing]) -> str:
    """The timings as Markdown."""
    rows = [
        f"| {timing.agents:,} | {timing.channels:,} | {timing.rounds} | {timing.median_ms:.1f} | {timing.p90_ms:.1f} "
        f"| {timing.target_ms:,.0f} |"
        for timing in timings
    ]
    head = "| agents | connections | rounds | median round, ms | 90th percentile, ms | target for the median, ms |"
    return "\n".join([head, "|---:|---:|---:|---:|---:|---:|", *rows])


def main() -> None:
    """Time the cases and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20, help="timed rounds a case (default 20)")
    parser.add_argument("--agents", type=int, action="append", help="time only this case (may be repeated)")
    parser.add_argument("--agents-per-channel", type=int, help="agents that share a connection (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    cases = [case for case in CASES if not options.agents or case.agents in options.agents]
    if options.agents_per_channel:
        cases = [replace(case, agents_per_channel=options.agents_per_channel) for case in cases]
    timings = [time_case(case, options.rounds) for case in cases]
    print(table(timings))
    if options.json:
        options.json.write_text(json.dumps([asdict(timing) for timing in timings], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
