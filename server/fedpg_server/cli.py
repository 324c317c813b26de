"""The `fedpg-server` command."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer
from fedpg_common.bootstrap import LOG_LEVELS, log_to_stderr, use_one_thread
from fedpg_common.cli import ending
from fedpg_common.cli.command_line import VERSION, complete, judging_paths
from fedpg_common.cli.federation_options import Description, federation_options
from fedpg_common.cli.observer_options import OBSERVER, chosen_observers
from fedpg_common.cli.options import refuse_ignored_options

LOG_LEVELS_SHOWN = [level.lower() for level in LOG_LEVELS]

TAKEN_BY_RESUME = ("resume", "out", "listen", "trajectories", "tls", "insecure", "tensorboard",
                   "threads", "keep_parameters", "log_level")  # fmt: skip
"""The options that mean something to a run which has its description already."""

app = typer.Typer(pretty_exceptions_enable=False)
log = logging.getLogger(__name__)


@app.command()
@federation_options(envvars=True, file=True)
@judging_paths
def server(
    described: Description,
    *,
    out: Annotated[
        Path,
        typer.Option(
            help="Run folder: the store, checkpoints, TensorBoard files.", envvar="FEDPG_OUT", metavar="FOLDER"
        ),
    ] = Path("runs/server"),
    listen: Annotated[
        str, typer.Option(help="Address to serve on; port 0 picks one.", envvar="FEDPG_LISTEN", metavar="HOST:PORT")
    ] = "127.0.0.1:50051",
    home: Annotated[
        Path | None,
        typer.Option(
            help="In place of --out: a folder of runs. An unfinished run of this federation goes on, else one starts.",
            envvar="FEDPG_HOME",
            metavar="FOLDER",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Resume the run in --out; with --trajectories, until there.", metavar=""),
    ] = False,
    tls: Annotated[
        Path | None,
        typer.Option(help="Folder with the server's ca.pem, cert.pem and key.pem.", envvar="FEDPG_TLS", metavar="DIR"),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen beyond loopback without TLS.", metavar="")
    ] = False,
    tensorboard: Annotated[bool, typer.Option(help="Write TensorBoard files.", metavar="")] = True,
    observer: Annotated[list[str] | None, OBSERVER] = None,
    copy_hint: Annotated[
        str | None,
        typer.Option(
            help="Said at the end: the command that copies {folder} to where you are.", hidden=True, metavar="COMMAND"
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            help="Threads that share the server's own episodes, where the simulation lets them. The same parameters "
            "with any number.",
            envvar="FEDPG_THREADS",
            metavar="N",
            show_default="the cores that it may use",
            min=1,
        ),
    ] = None,
    keep_parameters: Annotated[
        int | None,
        typer.Option(
            help="Of how many latest rounds the store keeps the parameters.",
            envvar="FEDPG_KEEP_PARAMETERS",
            metavar="N",
            show_default="as many as fit in 64 MiB",
            min=1,
        ),
    ] = None,
    log_level: Annotated[
        str,
        typer.Option(help="debug, info, warning or error.", metavar="LEVEL", autocompletion=complete(LOG_LEVELS_SHOWN)),
    ] = "info",
    version: Annotated[bool, VERSION] = False,
) -> None:
    """Serve a federation: collect gradients, filter them, improve the policy, until the run ends.

    Exit codes: 0 the run ended; 2 bad option; 5 the address cannot be used; 6 the folder or store cannot be used;
    130 Ctrl-C; 143 terminated. After any of them --resume goes on where the run stopped.
    """
    log_to_stderr("server", log_level)
    import asyncio

    from fedpg_common.transport.channels import parse_address, tls_files

    from fedpg_server.server import ServerOptions, serve
    from fedpg_server.storage.run_folders import folder_for

    use_one_thread()
    parse_address(listen)
    federation, trajectories = None, None
    if resume:
        refuse_ignored_options(described.context, TAKEN_BY_RESUME)
        home = None
        trajectories = described.typed("trajectories")
    else:
        federation = described.federation()
    if home is not None and federation is not None:
        out, resume = folder_for(home, federation, any_seed=described.drew_seed)
    if described.drew_seed and federation is not None and not resume:
        log.info("seed %d, drawn at random", federation.seed)
    options = ServerOptions(
        folder=out,
        address=listen,
        federation=None if resume else federation,
        trajectories=trajectories,
        tls=tls_files(tls),
        insecure=insecure,
        threads=threads,
        keep_parameters=keep_parameters,
        observers=chosen_observers(tensorboard, observer or ()),
        copy_hint=copy_hint,
    )
    raise typer.Exit(asyncio.run(serve(options, lambda _address: None)))


def main() -> None:
    """Run the command; a FedPGError becomes one sentence and its exit code."""
    ending.run("fedpg-server", app)
