"""Run one schedule of the simulator and print what happened: `python tests/simulate.py SEED`.

A test that fails names the seed; the same seed gives the same trace.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from support.simulated_faults import draw_schedule
from support.simulated_federation import simulate
from support.simulation_history import check


def main() -> int:
    """Print the schedule, the trace, and what was broken. 1 if anything was."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("seed", type=int, help="which schedule, from 0")
    schedule = draw_schedule(parser.parse_args().seed)
    with tempfile.TemporaryDirectory() as folder:
        simulation = simulate(schedule, Path(folder))
        failures = check(simulation)
    print(schedule)
    print("\n".join(simulation.history.lines()))
    print("\n".join(failures) or "every promise was kept")
    return bool(failures)


if __name__ == "__main__":
    raise SystemExit(main())
