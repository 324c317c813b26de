"""How long a round takes when nobody computes: the protocol alone, over real gRPC on loopback.

The server is the real one (service, run, store) in a process of its own, with a learner that hands back its state.
The agents share this process; each answers at once with a vector of 5,000 numbers. A round is timed on the server, from
one round's result to the next, so everything in between counts: opening, polls, votes on disk, closing, recording.

Beside it stands what gRPC alone takes on the same machine: the same messages between processes of the same layout,
over the same asyncio server and clients, with answers that are ready. That is the floor, whatever else the machine is
doing: both are timed by turns. Beside the time on the clock stand the processor time of the server's process, all its
threads, which other processes disturb less, and the time in which the store's thread wrote transactions.

Usage: python benchmarks/protocol.py [--rounds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from protocol_rounds import Case, Rounds, time_grpc, time_protocol

REPEATS = 3
"""By turns, ours and gRPC alone."""
CASES = (Case(10, 10, target_ms=10.0), Case(100, 20, target_ms=100.0), Case(1_000, 20, target_ms=1_000.0))


@dataclass(frozen=True)
class Timing:
    """What a round of one case took."""

    agents: int
    connections: int
    rounds: int
    median_ms: float
    p90_ms: float
    target_ms: float
    cpu_ms: float
    """Of the server's process, a round."""
    storing_ms: float
    """In which the store's thread wrote, the median round."""
    grpc_median_ms: float
    """gRPC alone."""
    grpc_cpu_ms: float


def time_case(case: Case, rounds: int) -> Timing:
    """One case, the protocol and gRPC alone by turns."""
    ours, grpc_alone = Rounds(), Rounds()
    each = -(-rounds // REPEATS)
    for _ in range(REPEATS):
        ours += time_protocol(case, each)
        grpc_alone += time_grpc(case, each)
    return Timing(
        agents=case.agents,
        connections=case.connections,
        rounds=len(ours.times_s),
        median_ms=statistics.median(ours.times_s) * 1e3,
        p90_ms=statistics.quantiles(ours.times_s, n=10)[-1] * 1e3,
        target_ms=case.target_ms,
        cpu_ms=ours.cpu_s * 1e3,
        storing_ms=statistics.median(ours.storing_s) * 1e3,
        grpc_median_ms=statistics.median(grpc_alone.times_s) * 1e3,
        grpc_cpu_ms=grpc_alone.cpu_s * 1e3,
    )


def table(timings: Sequence[Timing]) -> str:
    """The timings as Markdown."""
    lines = [
        "| agents | connections | rounds | median | 90th percentile | target for the median | gRPC alone, median "
        "| over gRPC alone | server's processor time | gRPC alone's | in the store |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {timing.agents:,} | {timing.connections:,} | {timing.rounds} | {timing.median_ms:.1f} ms "
        f"| {timing.p90_ms:.1f} ms | {timing.target_ms:,.0f} ms | {timing.grpc_median_ms:.1f} ms "
        f"| {timing.median_ms / timing.grpc_median_ms:.1f} | {timing.cpu_ms:.1f} ms | {timing.grpc_cpu_ms:.1f} ms "
        f"| {timing.storing_ms:.1f} ms |"
        for timing in timings
    ]
    return "\n".join(lines)


def main() -> None:
    """Time the cases and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=30, help="timed rounds a case, in three goes (default 30)")
    parser.add_argument("--agents", type=int, action="append", help="time only the case with so many agents")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    cases = [case for case in CASES if not options.agents or case.agents in options.agents]
    timings = [time_case(case, options.rounds) for case in cases]
    print(table(timings))
    if options.json:
        options.json.write_text(json.dumps([asdict(timing) for timing in timings], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
