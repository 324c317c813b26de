"""The options of `fedpg experiment`, and what its help says after the first sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from fedpg_common.cli.command_line import complete

from fedpg_lab.files.toml_files import names_in, package_folder

SHIPPED = names_in(package_folder("experiments"))
MATRIX = "A part of a matrix"
"""A panel of the help."""

HELP = """\
Runs go side by side, as many as there are cores. After an interruption or a failure, the same command resumes where
it stopped: complete runs are left alone. With more `--seeds` it adds runs.

The folder `runs/NAME` (with `--quick`, `runs/NAME-quick`) gets a run folder for each run, FEDERATION/seed-S, and at
the end figures (PNG and SVG), `table.md`, `table.csv`, and `report.html`, one page that holds it all.

An experiment file:

    title = "Two methods under attack"
    seeds = 3                           # or a list of seeds
    [[federation]]                      # as many as wanted
    task = "CartPole-v1"
    algorithm = ["svrpg", "fedpg-br"]   # a list: a federation for each
    agents = 10
    byzantine = 3
    attack = "sign-flipping"
    sigma = 0.1                         # any field of a task file
    [quick]                             # what --quick changes
    seeds = 1
    trajectories = 300                  # or a table by task

With `--in-process`, server and agents of a run work in one process, one after the other: the same parameters and
records, bit for bit, for a fraction of the time. Attacks on the protocol have their processes all the same.

In place of federations a file may have a matrix of rules and attacks, as `robustness` has:

    [matrix]
    task = "CartPole-v1"
    byzantine = 3
    rows = ["krum", { algorithm = "fedpg-guard" }]
    attacks = ["alie", "worst-down"]

Then there are also heat maps, and `matrix.json`. `--aggregator my_filters:Krum` runs that row alone, and reports on
it beside all others that there are.

Exit codes: 0 done; 2 bad option or file; 6 a folder or store cannot be used; 130 Ctrl-C. When runs fail, the others
go on, and the exit code is the first failure's.
"""

File = Annotated[
    str,
    typer.Argument(
        help=f"An experiment file (NAME.toml), or one that comes with FedPG: {', '.join(SHIPPED)}.",
        metavar="FILE",
        autocompletion=complete(SHIPPED),
    ),
]

Quick = Annotated[
    bool, typer.Option("--quick", help="The small size that the file describes: minutes, not days.", metavar="")
]

Jobs = Annotated[int | None, typer.Option(help="Runs at a time.", metavar="N", show_default="one for each core")]

SeedsOption = Annotated[
    int | None, typer.Option(help="Seeds 0 to N - 1 in place of the file's.", metavar="N", show_default="file's")
]

InProcess = Annotated[
    bool,
    typer.Option(
        "--in-process",
        help="Each run in one process, without a network: the same parameters, several times sooner.",
        metavar="",
    ),
]

OnlyOption = Annotated[
    str | None,
    typer.Option(
        help="Only the runs with this in their name, for example CartPole or seed-0.",
        metavar="TEXT",
        show_default="all",
    ),
]

ReportOnly = Annotated[
    bool,
    typer.Option("--report-only", help="Run nothing: report on the runs that there are, finished or not.", metavar=""),
]

Aggregator = Annotated[
    list[str] | None,
    typer.Option(
        help="Only this row, by its name; an aggregator that is not there becomes one. Repeatable.",
        metavar="NAME",
        rich_help_panel=MATRIX,
    ),
]

Algorithm = Annotated[
    list[str] | None,
    typer.Option(help="Only the row of this algorithm, likewise. Repeatable.", metavar="NAME", rich_help_panel=MATRIX),
]

Attack = Annotated[
    list[str] | None,
    typer.Option(help="Only the column of this attack, likewise. Repeatable.", metavar="NAME", rich_help_panel=MATRIX),
]

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="A setting of that aggregator, algorithm or attack, or of the task, as for train. Repeatable.",
        metavar="NAME=VALUE",
        rich_help_panel=MATRIX,
    ),
]

Out = Annotated[Path, typer.Option(help="Where the experiment's folder goes.", metavar="FOLDER")]
