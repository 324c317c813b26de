"""The options of `fedpg faults`, and what its help says after the first sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from fedpg_common.cli.command_line import complete

from fedpg_lab.files.toml_files import names_in, package_folder

SHIPPED = names_in(package_folder("faults", "scenarios"))

HELP = """\
The run folder gets what every run has, and faults.png (return, faults, who was absent, time lost), faults.json and
faults.html, one page that holds it all. Invariants are checked from the store, the logs and what was seen: one vote
per agent and round, no round below the quorum, no gaps, nothing told that is not stored, and, for as long as nobody
was absent, the same parameters as a run without faults, bit for bit.

A scenario file:

    title = "A majority is cut off"
    seed = 0                        # who is hit follows from it
    [federation]                    # the options of `fedpg train`
    task = "CartPole-v1"
    agents = 10
    trajectories = 600
    round_timeout_s = 5.0
    [[fault]]                       # as many as wanted
    kind = "partition"              # or kill, stop, restart, pause,
                                    # black-hole, latency, bandwidth,
                                    # loss, corruption, reset, slow-cpu
    split = "majority"              # or isolate-one, minority, server-alone
    at_round = 5                    # or at_s = 10.0, since round 1 opened
    for_s = 20.0                    # or for_rounds = 3, for at_most_s = 60 s
    [[fault]]
    kind = "latency"
    on = "2 agents"                 # or "server", [3, 4], "1 honest",
                                    # "all byzantine"
    delay_s = 0.2                   # and jitter_s; bandwidth: bytes_per_s;
                                    # loss, corruption, slow-cpu: fraction
    at_s = 5.0
    for_s = 2.0
    times = 3                       # again, on the same targets
    every_s = 8.0                   # or every_rounds

Whatever happens, every fault is healed at the end, and the scenario ends after `at_most_s` (1800 s).

Exit codes: 0 the run ended and what was checked holds; 2 bad option or file, or a fault that cannot be made here;
3 the Docker engine failed; 6 a folder or store cannot be used; 8 an invariant is violated, or the run did not end;
130 Ctrl-C; 143 terminated.
"""

File = Annotated[
    str,
    typer.Argument(
        help=f"A scenario file (NAME.toml), or one that comes with FedPG: {', '.join(SHIPPED)}.",
        metavar="FILE",
        autocompletion=complete(SHIPPED),
    ),
]

BackendOption = Annotated[
    str,
    typer.Option(
        help="local: processes on this machine; docker: containers; or MODULE:NAME.",
        metavar="NAME",
        autocompletion=complete(("local", "docker")),
    ),
]

DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what will happen to whom, and do nothing.", metavar="")]

Reference = Annotated[
    bool,
    typer.Option("--reference/--no-reference", help="Run the federation without faults too, and compare.", metavar=""),
]

Seed = Annotated[
    int | None,
    typer.Option(help="Of the federation and of who is hit.", metavar="N", show_default="file's"),
]

NameOption = Annotated[
    str | None, typer.Option(help="Name of the run folder.", metavar="NAME", show_default="the scenario's")
]

Out = Annotated[Path, typer.Option(help="Where run folders go.", metavar="FOLDER")]
