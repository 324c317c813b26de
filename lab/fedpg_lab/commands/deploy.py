"""The commands for federations beyond one process tree: `fedpg status`, `fedpg certs`, `fedpg compose`."""

from __future__ import annotations

import datetime
import shlex
from pathlib import Path
from typing import Annotated

import typer
from fedpg_common.cli.federation_options import Description, federation_options
from fedpg_common.errors import UsageError
from fedpg_common.federation import AGENTS_MAX

from fedpg_lab.commands.train import warn_of_too_many
from fedpg_lab.terminal.formats import Format

STATUS_TIMEOUT_S = 10.0


def status_command(
    server: Annotated[
        str, typer.Option(help="The aggregation server.", metavar="HOST:PORT", envvar="FEDPG_SERVER")
    ] = "127.0.0.1:50051",
    tls: Annotated[
        Path | None,
        typer.Option(
            help="Folder with ca.pem, cert.pem and key.pem: the operator's sees everything, an agent's its own row.",
            envvar="FEDPG_TLS",
            metavar="DIR",
        ),
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="For people or for programs.")] = Format.TABLE,
    use_proxy: Annotated[
        bool,
        typer.Option(
            "--use-proxy",
            help="Reach the server through the proxy that https_proxy or http_proxy names.",
            metavar="",
        ),
    ] = False,
) -> None:
    """Show a running federation: round, return, and each agent with its verdicts.

    Who was filtered is for the operator: with TLS, whoever has the folder `operator` of `fedpg certs`, or the server's;
    without TLS, whoever asks on the server's own machine. Others see where the round is.

    Exit codes: 0 shown; 2 bad option; 3 the server cannot be reached; 4 it refused.
    """
    from fedpg_common.json_text import to_json
    from fedpg_common.transport.channels import tls_files

    from fedpg_lab.local.status import fetch_status, render, to_plain
    from fedpg_lab.terminal.console import make_console

    status = fetch_status(server, tls_files(tls), STATUS_TIMEOUT_S, use_proxy)
    if format_ is Format.JSON:
        typer.echo(to_json(to_plain(status), indent=2))
    else:
        make_console().print(render(status))


def certs_command(
    agents: Annotated[
        int, typer.Option(help="How many agents get a certificate.", metavar="K", min=1, max=AGENTS_MAX)
    ] = 10,
    server_name: Annotated[
        list[str] | None,
        typer.Option(help="Host name or address by which agents reach the server; repeat for several.", metavar="NAME"),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the folders go.", metavar="FOLDER")] = Path("certs"),
    days: Annotated[int, typer.Option(help="How long they last.", metavar="N", min=1, max=36500)] = 365,
    authority: Annotated[
        Path | None,
        typer.Option(
            help="Folder with ca.pem and ca.key, if they are kept elsewhere.",
            metavar="FOLDER",
            show_default="authority in --out",
        ),
    ] = None,
    new_authority: Annotated[
        bool,
        typer.Option("--new-authority", help="Replace the authority, and every certificate with it.", metavar=""),
    ] = False,
    revoke: Annotated[
        list[str] | None,
        typer.Option(
            help="Revoke the certificate in that folder (agent-3), and make another; repeat for several.",
            metavar="NAME",
        ),
    ] = None,
) -> None:
    """Make an authority, and certificates for the server, the operator and each agent.

    What is there and lasts is kept, so repeating the command is safe, also to add agents or renew. Hand each machine
    its own folder; the folders `authority` and `operator` stay with you: the latter is for `fedpg status`. The
    authority's key may be kept elsewhere: it is asked for when it is needed, with --authority.

    Revoked certificates are listed in crl.pem, in the folder `server`: bring it into the server's own folder, and a
    server that runs heeds it within seconds.

    Exit codes: 0 done; 2 bad option; 6 the folder cannot be used, or the authority's key is needed.
    """
    from fedpg_common.files import require_place
    from fedpg_common.transport.channels import REVOCATION_LIST, SERVER_NAME

    from fedpg_lab.deploy.authority import shortened
    from fedpg_lab.deploy.certificates import make_certificates

    require_place(out, "choose another --out")
    names = ["localhost", "127.0.0.1", *(server_name or [])]
    now = datetime.datetime.now(datetime.UTC)
    made = make_certificates(
        out,
        agents,
        names,
        days,
        now,
        authority,
        new_authority,
        lambda sentence: typer.echo(sentence, err=True),
        revoke or [],
    )
    if revoke:
        place = out / SERVER_NAME / REVOCATION_LIST
        typer.echo(f"{out}: revoked the certificate of {shortened(revoke)}; a server that has {place} refuses it")
    typer.echo(f"{out}: {'made ' + shortened(made) if made else 'everything is there already'}")


SwarmOption = Annotated[bool, typer.Option("--swarm", help="Write a stack file for Docker Swarm instead.", metavar="")]

Certs = Annotated[
    str,
    typer.Option(help="For --swarm: the folder of `fedpg certs`, as seen from the stack file.", metavar="FOLDER"),
]

Out = Annotated[
    Path | None,
    typer.Option(
        help="Folder for docker-compose.yml and the settings, .env.", metavar="DIR", show_default="standard output"
    ),
]

NameOption = Annotated[
    str | None,
    typer.Option(
        help="Name of the Compose project, its own on this machine.",
        metavar="NAME",
        show_default="from the federation",
    ),
]

Modules = Annotated[
    Path | None,
    typer.Option(help="Folder with Python modules of your own, such as the environment's.", metavar="DIR"),
]

ReplaceOption = Annotated[bool, typer.Option("--replace", help="Write over files in --out that differ.", metavar="")]


@federation_options()
def compose_command(
    described: Description,
    *,
    swarm: SwarmOption = False,
    certs: Certs = "certs",
    out: Out = None,
    name: NameOption = None,
    modules: Modules = None,
    replace: ReplaceOption = False,
) -> None:
    """Write a federation's Compose file, and beside it the settings that `docker compose` reads, .env.

    Example: fedpg compose --agents 30 --byzantine 9 --attack fedpg --out federations/colluding

    Without --out the Compose file goes to standard output, without its settings, which are then those written in it.

    Exit codes: 0 written; 2 bad option; 6 the folder cannot be used.
    """
    from fedpg_common.modules import make_folders_importable, make_importable

    from fedpg_lab.deploy.clone import repository
    from fedpg_lab.deploy.compose import compose_file
    from fedpg_lab.deploy.compose_folder import COMPOSE_NAME, SETTINGS_NAME, check_modules, write_compose_folder
    from fedpg_lab.deploy.own_modules import check_own_modules
    from fedpg_lab.deploy.swarm import stack_file

    federation = described.federation()
    make_importable(federation)
    if described.drew_seed:
        typer.echo(f"Seed {federation.seed}, drawn at random.", err=True)
    warn_of_too_many(federation)
    folder = check_modules(modules) if modules else None
    make_folders_importable(*([str(folder.absolute())] if folder else []))
    check_own_modules(federation, folder, lambda sentence: typer.echo(f"fedpg: {sentence}", err=True))
    task_file = described.task if described.task.endswith(".toml") else None
    if swarm:
        if out or name or modules:
            raise UsageError("--swarm writes to standard output: leave out --out, --name and --modules")
        typer.echo(stack_file(federation, certs, task_file), nl=False)
    elif out is None:
        seen = str(folder.absolute()) if folder else None
        typer.echo(compose_file(federation, task_file, name=name, modules=seen), nl=False)
    else:
        write_compose_folder(
            out,
            federation,
            task_file=Path(task_file) if task_file else None,
            name=name,
            modules=modules,
            replace=replace,
        )
        up = "docker compose up --build" if repository() else "docker compose up, with images built elsewhere"
        typer.echo(f"{out}: wrote {COMPOSE_NAME} and {SETTINGS_NAME}; next: cd {shlex.quote(str(out))}; {up}")
