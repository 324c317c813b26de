"""How much CPU time a command's start takes, against the libraries that every command is made of.

Usage: python benchmarks/starting.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

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


def main() -> None:
    """Measure and print a table."""
    taken = {name: statistics.median(cpu_s(command) for _ in range(REPETITIONS)) for name, command in COMMANDS.items()}
    print("| command | CPU time | times the first |")
    print("|---|---|---|")
    for name, seconds in taken.items():
        print(f"| `{name}` | {1e3 * seconds:.0f} ms | {seconds / taken[BASE]:.1f} |")


if __name__ == "__main__":
    main()
