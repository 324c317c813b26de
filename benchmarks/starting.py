"""How long commands take to start, against the libraries that they are made of.

CPU time for those that learn nothing. For `fedpg train`, with ten agents on CartPole, the time on the clock until the
first round has closed: nothing else should run beside it.

Usage: python benchmarks/starting.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPETITIONS = 11
MODULES = {"fedpg": "fedpg_lab", "fedpg-agent": "fedpg_client", "fedpg-server": "fedpg_server"}
BASE = "python -c 'import typer, rich'"
COMMANDS = {
    BASE: [sys.executable, "-c", "import typer, rich"],
    **{
        f"{command} {argument}": [sys.executable, "-m", module, argument]
        for command, module in MODULES.items()
        for argument in ("--help", "--version")
    },
    "fedpg train --help": [sys.executable, "-m", "fedpg_lab", "train", "--help"],
    "fedpg compose": [sys.executable, "-m", "fedpg_lab", "compose"],
}


def cpu_s(command: list[str]) -> float:
    """The CPU time of a command, as a whole process, in seconds."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, used = os.wait4(process.pid, 0)
    return used.ru_utime + used.ru_stime


IMPORTS = "python -c 'import torch, gymnasium, grpc'"
FIRST_ROUNDS = 5
LOOK_EVERY_S = 0.005


def first_round_s() -> float:
    """Seconds from the start of `fedpg train` until its server's log tells of round 1."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "run" / "logs" / "server.log"
        command = [sys.executable, "-m", "fedpg_lab", "train", "--trajectories", "1", "--out", folder, "--name", "run"]
        started_s = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (log.exists() and "  round 1  " in log.read_text(encoding="utf-8")):
            if process.poll() is not None:
                raise SystemExit(f"{' '.join(command)} ended before its first round")
            time.sleep(LOOK_EVERY_S)
        taken_s = time.perf_counter() - started_s
        process.wait()
    return taken_s


def imports_s() -> float:
    """Seconds of a process that imports the large libraries."""
    started_s = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch, gymnasium, grpc"], check=True)
    return time.perf_counter() - started_s


def main() -> None:
    """Measure and print two tables."""
    taken = {name: statistics.median(cpu_s(command) for _ in range(REPETITIONS)) for name, command in COMMANDS.items()}
    print("| command | CPU time | times the first |")
    print("|---|---|---|")
    for name, seconds in taken.items():
        print(f"| `{name}` | {1e3 * seconds:.0f} ms | {seconds / taken[BASE]:.1f} |")
    base_s = statistics.median(imports_s() for _ in range(FIRST_ROUNDS))
    train_s = statistics.median(first_round_s() for _ in range(FIRST_ROUNDS))
    print("\n| | time on the clock | times the first |")
    print("|---|---|---|")
    print(f"| `{IMPORTS}` | {1e3 * base_s:.0f} ms | 1.0 |")
    print(f"| `fedpg train`, to the close of round 1 | {1e3 * train_s:.0f} ms | {train_s / base_s:.1f} |")


if __name__ == "__main__":
    main()
