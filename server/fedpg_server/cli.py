"""The `fedpg-server` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from fedpg_common import ending
from fedpg_common.command_line import VERSION, complete, judging_paths
from fedpg_common.federation import Algorithm, Attack, Hostility, describe, read_federation
from fedpg_common.options import is_given, refuse_ignored_options
from fedpg_common.process import LOG_LEVELS, log_to_stderr, use_one_thread
from fedpg_common.tasks import TASKS

ALGORITHMS = [algorithm.value for algorithm in Algorithm]
LOG_LEVELS_SHOWN = [level.lower() for level in LOG_LEVELS]
ATTACKS = [member.value for kind in (Attack, Hostility) for member in kind]

TAKEN_BY_RESUME = ("resume", "out", "listen", "trajectories", "tls", "insecure", "tensorboard", "log_level")
"""The options that mean something to a run which has its description already."""

app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
@judging_paths
def server(
    context: typer.Context,
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
    federation: Annotated[
        Path | None,
        typer.Option(help="Description of the federation (TOML); replaces the options below.", metavar="FILE"),
    ] = None,
    task: Annotated[
        str,
        typer.Option(
            help="CartPole-v1, LunarLander-v3, HalfCheetah-v5 or a task file.",
            envvar="FEDPG_TASK",
            metavar="TASK",
            autocompletion=complete(TASKS),
        ),
    ] = "CartPole-v1",
    agents: Annotated[int, typer.Option(help="K.", envvar="FEDPG_AGENTS", metavar="K")] = 10,
    algorithm: Annotated[
        str,
        typer.Option(
            help="fedpg-br, svrpg or gpomdp.",
            envvar="FEDPG_ALGORITHM",
            metavar="NAME",
            autocompletion=complete(ALGORITHMS),
        ),
    ] = "fedpg-br",
    trajectories: Annotated[
        int | None,
        typer.Option(
            help="Trajectory count at which the run ends.",
            envvar="FEDPG_TRAJECTORIES",
            metavar="N",
            show_default="task's",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Every random draw follows from it.", envvar="FEDPG_SEED", metavar="N")] = 0,
    sigma: Annotated[
        float | None, typer.Option(help="σ of the filter.", envvar="FEDPG_SIGMA", metavar="X", show_default="task's")
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(help="Tolerated faulty fraction.", envvar="FEDPG_ALPHA", metavar="X", show_default="task's"),
    ] = None,
    byzantine: Annotated[
        int,
        typer.Option(
            help="Agents 1 to N are known to attack: only scores the filter in the telemetry.",
            envvar="FEDPG_BYZANTINE",
            metavar="N",
        ),
    ] = 0,
    attack: Annotated[
        str,
        typer.Option(help="Their attack.", envvar="FEDPG_ATTACK", metavar="ATTACK", autocompletion=complete(ATTACKS)),
    ] = "random-noise",
    round_timeout: Annotated[
        float,
        typer.Option(
            help="Seconds after which a round closes with a quorum.", envvar="FEDPG_ROUND_TIMEOUT", metavar="S"
        ),
    ] = 120.0,
    tls: Annotated[
        Path | None,
        typer.Option(help="Folder with the server's ca.pem, cert.pem and key.pem.", envvar="FEDPG_TLS", metavar="DIR"),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen beyond loopback without TLS.", metavar="")
    ] = False,
    tensorboard: Annotated[bool, typer.Option(help="Write TensorBoard files.", metavar="")] = True,
    copy_hint: Annotated[
        str | None,
        typer.Option(
            help="Said at the end: the command that copies {folder} to where you are.", hidden=True, metavar="COMMAND"
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

    from fedpg_common.channels import parse_address, tls_files

    from fedpg_server.home import folder_for
    from fedpg_server.server import ServerOptions, serve

    use_one_thread()
    parse_address(listen)
    if resume:
        refuse_ignored_options(context, TAKEN_BY_RESUME)
        home, described = None, None
        trajectories = trajectories if is_given(context, "trajectories") else None
    elif federation is not None:
        described = read_federation(federation)
    else:
        described = describe(
            task, agents=agents, byzantine=byzantine, attack=attack, algorithm=algorithm, seed=seed,
            round_timeout_s=round_timeout, trajectories=trajectories, sigma=sigma, alpha=alpha,
        )  # fmt: skip
    if home is not None and described is not None:
        out, resume = folder_for(home, described)
    options = ServerOptions(
        folder=out,
        address=listen,
        federation=None if resume else described,
        trajectories=trajectories if resume else None,
        tls=tls_files(tls),
        insecure=insecure,
        tensorboard=tensorboard,
        copy_hint=copy_hint,
    )
    raise typer.Exit(asyncio.run(serve(options, lambda _address: None)))


def main() -> None:
    """Run the command; a FedPGError becomes one sentence and its exit code."""
    ending.run("fedpg-server", app)
