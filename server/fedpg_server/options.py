"""The options of `fedpg-server`, beside those that describe a federation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from fedpg_common.cli.options import ADVANCED, NETWORK, OUTPUT

Out = Annotated[
    Path,
    typer.Option(help="Run folder: the store, checkpoints, TensorBoard files.", envvar="FEDPG_OUT", metavar="FOLDER"),
]

ListenOption = Annotated[
    str, typer.Option(help="Address to serve on; port 0 picks one.", envvar="FEDPG_LISTEN", metavar="HOST:PORT")
]

Home = Annotated[
    Path | None,
    typer.Option(
        help="In place of --out: a folder of runs. An unfinished run of this federation goes on, else one starts.",
        envvar="FEDPG_HOME",
        metavar="FOLDER",
        rich_help_panel=OUTPUT,
    ),
]

ResumeOption = Annotated[
    bool,
    typer.Option("--resume", help="Resume the run in --out; with --trajectories, until there.", metavar=""),
]

Tls = Annotated[
    Path | None,
    typer.Option(
        help="Folder with the server's ca.pem, cert.pem and key.pem.",
        envvar="FEDPG_TLS",
        metavar="DIR",
        rich_help_panel=NETWORK,
    ),
]

Insecure = Annotated[
    bool,
    typer.Option("--insecure", help="Listen beyond loopback without TLS.", metavar="", rich_help_panel=NETWORK),
]

Tensorboard = Annotated[bool, typer.Option(help="Write TensorBoard files.", metavar="", rich_help_panel=OUTPUT)]

CopyHint = Annotated[
    str | None,
    typer.Option(
        help="Said at the end: the command that copies {folder} to where you are.", hidden=True, metavar="COMMAND"
    ),
]

ThreadsOption = Annotated[
    int | None,
    typer.Option(
        help="Threads or processes that share the server's own episodes, where they can. The same parameters "
        "with any number.",
        envvar="FEDPG_THREADS",
        metavar="N",
        show_default="the cores that it may use",
        min=1,
        rich_help_panel=ADVANCED,
    ),
]

KeepParameters = Annotated[
    int | None,
    typer.Option(
        help="Of how many latest rounds the store keeps the parameters.",
        envvar="FEDPG_KEEP_PARAMETERS",
        metavar="N",
        show_default="as many as fit in 64 MiB",
        min=1,
        rich_help_panel=ADVANCED,
    ),
]
