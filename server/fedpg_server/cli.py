"""The `fedpg-server` command."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer
from fedpg_common.bootstrap import log_to_stderr, look_for_garbage_rarely, take_short_turns, use_one_thread
from fedpg_common.cli import ending
from fedpg_common.cli.command_line import VERSION, Command, judging_paths
from fedpg_common.cli.federation_options import Description, federation_options
from fedpg_common.cli.hung import hung_calls_are_cut_off
from fedpg_common.cli.observer_options import OBSERVER, chosen_observers
from fedpg_common.cli.options import LogLevel, refuse_ignored_options
from fedpg_common.files import require_place

from fedpg_server.options import (
    CopyHint,
    Home,
    Insecure,
    KeepParameters,
    ListenOption,
    Out,
    ResumeOption,
    Tensorboard,
    ThreadsOption,
    Tls,
)

TAKEN_BY_RESUME = ("resume", "out", "listen", "trajectories", "tls", "insecure", "tensorboard",
                   "threads", "keep_parameters", "log_level")  # fmt: skip
"""The options that mean something to a run which has its description already."""

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode="markdown")
log = logging.getLogger(__name__)


@app.command(cls=Command)
@federation_options(envvars=True, file=True)
@judging_paths
def server(
    described: Description,
    *,
    out: Out = Path("runs/server"),
    listen: ListenOption = "127.0.0.1:50051",
    home: Home = None,
    resume: ResumeOption = False,
    tls: Tls = None,
    insecure: Insecure = False,
    tensorboard: Tensorboard = True,
    observer: Annotated[list[str] | None, OBSERVER] = None,
    copy_hint: CopyHint = None,
    threads: ThreadsOption = None,
    keep_parameters: KeepParameters = None,
    log_level: LogLevel = "info",
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
    take_short_turns()
    look_for_garbage_rarely()
    parse_address(listen)
    federation, trajectories = None, None
    if resume:
        refuse_ignored_options(described.context, TAKEN_BY_RESUME)
        home = None
        trajectories = described.typed("trajectories")
    else:
        federation = described.federation()
    if home is not None and federation is not None:
        require_place(home, "choose another --home")
        out, resume = folder_for(home, federation, any_seed=described.drew_seed)
    if described.drew_seed and federation is not None and not resume:
        log.info("seed %d, drawn at random", federation.seed)
    require_place(out, "choose another --out")
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
    signals: list[int] = []
    with hung_calls_are_cut_off(signals, lambda: ending.code_of(signals)):
        raise typer.Exit(asyncio.run(serve(options, lambda _address: None, signals=signals)))


def main() -> None:
    """Run the command; a FedPGError becomes one sentence and its exit code."""
    ending.run("fedpg-server", app)
