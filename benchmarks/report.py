"""Run every benchmark and write what they print into one page.

Usage: python benchmarks/report.py PAGE.md
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
SECTIONS = (
    (
        "starting.py",
        "Starting a command",
        "CPU time of whole processes, user and system, median of several; what learns nothing imports no torch.",
    ),
    (
        "sampling.py",
        "An agent's sampling",
        "Environment steps per second of an agent, acting, sampling, advantages and gradient included, against the "
        "bare simulator replaying the same episodes with the actions drawn beforehand, on one core.",
    ),
    (
        "protocol.py",
        "The protocol alone",
        "A round over gRPC on loopback, with agents that answer at once with 5,000 numbers and a learner that does "
        "nothing. Every vote is in the store before it is answered.",
    ),
    (
        "aggregation.py",
        "The filter",
        "FedPG-Aggregate on one core, against a plain loop that subtracts every pair of vectors.",
    ),
)
LIBRARIES = ("numpy", "torch", "mujoco", "gymnasium", "grpcio")


def main() -> None:
    """Run the benchmarks one after the other; nothing else should run beside them."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    parts = ["# Benchmarks", f"Written by `make bench`. {machine()} {load()}"]
    for script, title, text in SECTIONS:
        print(f"{script} …", file=sys.stderr, flush=True)
        table = subprocess.run(
            [sys.executable, str(FOLDER / script)],
            env={**os.environ, **ONE_THREAD},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout.strip()
        parts += [f"## {title}", text, table]
    Path(sys.argv[1]).write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def load() -> str:
    """How busy the machine was beforehand, so that a reader can tell a quiet measurement from another."""
    return f"Load before the first one: {os.getloadavg()[0]:.1f}."


def machine() -> str:
    """What the figures were measured on, in one sentence."""
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return (
        f"Measured on {os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, {libraries}."
    )


if __name__ == "__main__":
    main()
