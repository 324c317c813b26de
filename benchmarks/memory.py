"""How much memory a server and an agent take, by the size of the federation and of the policy.

Each is measured in a process of its own while a run of CartPole goes on: PSS, which counts pages that several processes
share once in all, and what is the process's own. On another machine an agent takes its PSS and what it shares.

Usage: python benchmarks/memory.py
"""

from __future__ import annotations

import itertools
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from fedpg_common.descriptions import describe
from fedpg_common.federation import Federation
from fedpg_lab.local.processes import LocalFederation
from fedpg_lab.runs.folders import load_run
from fedpg_server.storage.store import STORE_NAME

ROUNDS = 3
CASES = ((10, (16, 16), 1), (100, (16, 16), 10), (1000, (16, 16), 100), (10, (300, 300), 1))
"""Agents, hidden layers, agents per process."""


def memory_mb(pid: int) -> tuple[float, float]:
    """PSS and unshared memory of a process in MB."""
    kilobytes = {"Pss:": 0, "Private_Dirty:": 0, "Private_Clean:": 0}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]:
        name, value, *_ = line.split()
        if name in kilobytes:
            kilobytes[name] = int(value)
    return kilobytes["Pss:"] / 1e3, (kilobytes["Private_Dirty:"] + kilobytes["Private_Clean:"]) / 1e3


def rounds_of(folder: Path) -> int:
    """How many rounds the run has; 0 as long as its server has not made the store."""
    return len(load_run(folder).records) if (folder / STORE_NAME).exists() else 0


def measure(federation: Federation, agents_per_process: int, folder: Path) -> tuple[tuple[float, float], list[float]]:
    """The server's PSS and own memory, and the own memory of the agents' processes, after a few rounds."""
    with LocalFederation(federation, folder, agents_per_process=agents_per_process, observers=()) as processes:
        while processes.supervise() and rounds_of(folder) < ROUNDS:
            time.sleep(0.2)
        return memory_mb(processes.server_pid), [memory_mb(pid)[1] for pid in processes.agent_pids]


def main() -> None:
    """Measure all cases and print the table."""
    print("| agents | d | server, PSS | server, own | agents per process | own memory per agent |")
    print("|---:|---:|---:|---:|---:|---:|")
    for agents, hidden, together in CASES:
        federation = describe("CartPole-v1", agents=agents, trajectories=1_000_000)
        federation = replace(federation, task=replace(federation.task, hidden=hidden))
        with tempfile.TemporaryDirectory() as folder:
            (pss, own), others = measure(federation, together, Path(folder) / "run")
        sizes = (4, *hidden, 2)
        d = sum(a * b + b for a, b in itertools.pairwise(sizes))
        each = sum(others) / agents
        print(f"| {agents:,} | {d:,} | {pss:.0f} MB | {own:.0f} MB | {together} | {each:.1f} MB |", flush=True)


if __name__ == "__main__":
    main()
