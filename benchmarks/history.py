"""How long the aggregator history takes per round, and how long its memory is.

One thread, as the server has it. Three agents in ten stand half a scale away; the first rounds are left out of the
median, as the first needs a scale and a sketch. Prints a Markdown table:

    python benchmarks/history.py [--rounds N]
"""

from __future__ import annotations

import argparse
import math
import resource
import statistics
import time
from collections.abc import Iterator

import numpy as np
from fedpg_common.bootstrap import use_one_thread
from fedpg_common.learning.aggregators import Memory, RoundPlan, Votes
from fedpg_common.learning.aggregators.history import History
from fedpg_common.tasks import CARTPOLE

CASES = ((10, 386), (10, 10_000), (100, 10_000), (1000, 10_000))
SKIPPED = 1


def rounds_of(agents: int, size: int, count: int, scale: float | None) -> Iterator[Votes]:
    """Rounds of votes."""
    rng = np.random.default_rng(0)
    for number in range(1, count + 1):
        rows = rng.standard_normal((agents, size), dtype=np.float32) / np.float32(math.sqrt(size))
        rows[: 3 * agents // 10, 0] += np.float32(0.5)
        yield Votes(tuple(range(1, agents + 1)), rows, agents, RoundPlan(number, 16, 3), CARTPOLE, server_scale=scale)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args()
    use_one_thread()
    print("| agents | numbers | scale | a round | processor time | memory | horizons × K × d would take | peak |")
    print("|---|---|---|---|---|---|---|---|")
    for (agents, size), scale in ((case, scale) for case in CASES for scale in (1.0, None)):
        wall: list[float] = []
        processor: list[float] = []
        memory: Memory = {}
        for votes in rounds_of(agents, size, arguments.rounds, scale):
            start, start_processor = time.perf_counter(), time.process_time()
            memory = History().aggregate(votes, memory).memory
            wall.append(1000 * (time.perf_counter() - start))
            processor.append(1000 * (time.process_time() - start_processor))
        kept = sum(vector.nbytes for vector in memory.values()) / 2**20
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"| {agents:,} | {size:,} | {'of the votes' if scale is None else 'given'} "
            f"| {statistics.median(wall[SKIPPED:]):,.1f} ms | {statistics.median(processor[SKIPPED:]):,.1f} ms "
            f"| {kept:,.1f} MB | {4 * agents * size * 4 / 2**20:,.1f} MB | {peak:,.0f} MB |",
            flush=True,
        )


if __name__ == "__main__":
    main()
