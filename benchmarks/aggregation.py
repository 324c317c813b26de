"""How long FedPG-Aggregate takes, and how much memory it needs beyond the updates.

One thread, as the server has it; each case in a process of its own. Seven agents in ten are honest. The others are
scattered, or collude and send the same vector, or all ten are nearly equal. Both rules are tried each time. The plain
loop takes the distances alone, one pair after the other. Prints a Markdown table of medians of wall time:

    python benchmarks/aggregation.py [--repeats N] [--json FILE]
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from fedpg_common.bootstrap import use_one_thread
from fedpg_common.learning.aggregators import RoundPlan, Votes
from fedpg_common.learning.aggregators.fedpg import FedPG
from fedpg_common.learning.parameters import Vector
from fedpg_common.tasks import CARTPOLE

SIZE = 10_000
KINDS = ("scattered", "colluding", "nearly equal")
TARGET_MS = 1000.0
"""For a thousand agents."""


@dataclasses.dataclass(frozen=True)
class Figures:
    """What a case measured."""

    agents: int
    size: int
    updates: str
    aggregate_ms: float
    plain_loop_ms: float
    speedup: float
    extra_memory_mb: float
    """Growth of the process's peak memory while aggregating."""
    all_differences_mb: float
    """What an array of all differences, K×K×d, would take."""


def make_updates(agents: int, kind: str) -> dict[int, Vector]:
    """Gradients of that kind."""
    rng = np.random.default_rng(0)
    updates = {}
    for agent in range(1, agents + 1):
        vector = rng.standard_normal(SIZE, dtype=np.float32)
        is_far = agent % 10 in (1, 4, 7)
        if kind == "nearly equal":
            vector = np.float32(1e-5 * (100 if is_far else 1)) * vector + np.float32(1)
        elif is_far:
            vector = np.full_like(vector, 100) if kind == "colluding" else 100 * vector
        updates[agent] = vector
    return updates


def filter_all(updates: Mapping[int, Vector], kind: str) -> None:
    """One aggregation in which R1 leaves too few, so that R2 decides."""
    sigma = 90e-5 if kind == "nearly equal" else 90.0
    task = dataclasses.replace(CARTPOLE, alpha=0.2)
    votes = Votes(tuple(updates), np.stack(list(updates.values())), len(updates), RoundPlan(1, 32, 1), task)
    result = FedPG(sigma=sigma, delta=0.6).aggregate(votes, {})
    accepted = len(result.weights or {})
    if result.rule != "R2" or accepted != len(updates) * 7 // 10:
        raise RuntimeError(f"the case is not what it should be: {result.rule} accepted {accepted}")


def plain_loop(updates: Mapping[int, Vector]) -> None:
    """All distances, pair by pair."""
    rows = [vector.astype(np.float64) for vector in updates.values()]
    for number, row in enumerate(rows):
        for other in rows[number + 1 :]:
            np.linalg.norm(row - other)


def peak_mb() -> float:
    """The most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(agents: int, kind: str, repeats: int) -> Figures:
    """Time one case, in this process."""
    use_one_thread()
    filter_all(make_updates(10, kind), kind)
    updates = make_updates(agents, kind)
    before_mb = peak_mb()
    filter_all(updates, kind)
    extra_mb = peak_mb() - before_mb
    aggregate_ms = statistics.median(elapsed_ms(lambda: filter_all(updates, kind)) for _ in range(repeats))
    plain_ms = statistics.median(
        elapsed_ms(lambda: plain_loop(updates)) for _ in range(repeats if agents < 1000 else 1)
    )
    return Figures(
        agents, SIZE, kind, aggregate_ms, plain_ms, plain_ms / aggregate_ms, extra_mb, agents**2 * SIZE * 8 / 2**20
    )


def elapsed_ms(work: Callable[[], None]) -> float:
    """How long `work` takes."""
    start_s = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start_s)


def table_row(row: Figures) -> str:
    """A line of the Markdown table."""
    target = f"{TARGET_MS:,.0f} ms" if row.agents == 1000 else ""
    return (
        f"| {row.agents:,} | {row.size:,} | {row.updates} | {row.aggregate_ms:,.1f} ms | {row.plain_loop_ms:,.1f} ms "
        f"| {row.speedup:.1f} | {row.extra_memory_mb:,.0f} MB | {row.all_differences_mb:,.0f} MB | {target} |"
    )


def main() -> None:
    """Measure all cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="timings, of which the median counts")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    print("| agents | numbers | updates | filter | plain loop | speed-up | extra memory | K×K×d would take | target |")
    print("|---|---|---|---|---|---|---|---|---|")
    results = []
    for agents, kind in itertools.product((10, 100, 1000), KINDS):
        with multiprocessing.get_context("spawn").Pool(1) as process:
            row = process.apply(measure, (agents, kind, arguments.repeats))
        results.append(row)
        print(table_row(row), flush=True)
    if arguments.json:
        arguments.json.write_text(
            json.dumps([dataclasses.asdict(row) for row in results], indent=2) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
