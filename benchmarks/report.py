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
        "CPU time of whole processes, user and system, median of several; what learns nothing imports no torch. Below, "
        "the time on the clock until ten agents have closed a round.",
    ),
    (
        "sampling.py",
        "An agent's sampling",
        "Environment steps per second of an agent, acting, sampling, advantages and gradient included, against the "
        "bare simulator replaying the same episodes with the actions drawn beforehand, on one core.",
    ),
    (
        "critical_path.py",
        "What a round waits for",
        "With each agent on a machine of its own: one agent, and then the server's inner loop. CPU time on one core. "
        "The ten evaluation episodes decide nothing in the published algorithms, and are played while the agents work. "
        "The inner loop samples N_t b trajectories, on average 20 against an agent's 16 on CartPole, 40 against 32 on "
        "LunarLander, 64 against 48 on HalfCheetah, in batches of b, and computes two gradients of each but those of "
        "its first step. The last column is its time over the agent's if all that cost it what it costs the agent, "
        "which steps several times as many episodes at once: the floor of a loop that is made of the agent's parts. "
        "CartPole's is compiled as a whole, keeps for one gradient what acting has computed, and lies below it. The "
        "second table has the time on the clock, with one core for the agent and all cores for the server.",
    ),
    (
        "alternatives.py",
        "What else samples",
        "Environment steps per second on one core, acting with the task's network as it starts. FedPG's figure "
        "includes the gradient. A dash: not installed, or it does not run here.",
    ),
    (
        "whole_run.py",
        "A whole run",
        "`fedpg train` on CartPole with ten agents, against the same learner and workers in a plain loop, without "
        "network, store, telemetry or picture, on one core; both with their imports.",
    ),
    (
        "memory.py",
        "Memory",
        "By the size of the federation and of the policy, while a run of CartPole goes on. Processes of one machine "
        "share the libraries; what is a process's own comes on top for each.",
    ),
    (
        "protocol.py",
        "The protocol alone",
        "A round over gRPC on loopback, with agents that answer at once with 5,000 numbers and a learner that does "
        "nothing. Every vote is in the store before it is answered. Beyond gRPC's messages a round costs one "
        "transaction, of the votes that close it and of the state that they lead to, with two writes that wait for the "
        "disk one after the other; the rest is processor time of the server. Pieces of it that were timed by "
        "themselves, at ten agents: the transaction, without the disk, 0.5 ms; the gate, for twenty calls, 0.3 ms; "
        "checking and judging ten votes 0.3 ms, a third of that for SHA-256; record and announcement 0.1 ms. What "
        "remains lies in none of these: threads and the event loop are woken more often than by gRPC alone.",
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
