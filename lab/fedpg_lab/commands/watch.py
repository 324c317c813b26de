"""The command `fedpg watch`."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from fedpg_common.cli.ending import unwinding
from fedpg_common.errors import UsageError
from fedpg_common.files import shown

if TYPE_CHECKING:
    from fedpg_lab.watch.catalogue import Catalogue


FolderOption = Annotated[
    Path | None,
    typer.Argument(
        help="A run folder, or one that holds some at any depth.",
        show_default="runs; with --server, no folder but what that server tells",
    ),
]

Host = Annotated[str, typer.Option(help="Address of the page; 0.0.0.0 shows it to the network.", metavar="HOST")]

PortOption = Annotated[
    int | None, typer.Option(help="Port of the page.", metavar="N", show_default="8470, or the next that is free")
]

Browser = Annotated[bool, typer.Option(help="Open the page in a browser, if there is one.", metavar="")]

Save = Annotated[
    Path | None,
    typer.Option(help="Serve nothing: write the page of one run to this file, whole.", metavar="FILE"),
]

Server = Annotated[
    str | None,
    typer.Option(
        help="An aggregation server to be asked: about its live run in FOLDER, or without FOLDER for all of it.",
        metavar="HOST:PORT",
        show_default="as its log says",
    ),
]

Tls = Annotated[
    Path | None,
    typer.Option(help="Folder with ca.pem, cert.pem and key.pem to ask it with: the operator's.", metavar="DIR"),
]


def watch_command(
    folder: FolderOption = None,
    host: Host = "127.0.0.1",
    port: PortOption = None,
    browser: Browser = True,
    save: Save = None,
    server: Server = None,
    tls: Tls = None,
) -> None:
    """Serve a page on this machine that shows runs, live or finished: returns, verdicts, agents.

    The first page lists all runs below the folder; tick some to compare them. A run's page has its curves, each agent's
    verdict in each round, the table of agents, and what a live run waits for. It only reads. Its addresses give JSON as
    well, with `?format=json`. Ctrl-C ends it.

    For example:

        fedpg watch runs
        fedpg watch runs/NAME --save NAME.html
        fedpg watch --server HOST:50051 --tls certs/operator

    Exit codes: 0 saved, or ended with Ctrl-C; 2 bad option; 4 the server refuses; 5 the address cannot be used; 6 the
    folder or the file cannot be used.
    """
    if port is not None and not 0 <= port <= 65535:
        raise UsageError(f"--port must be 0 to 65535, not {port}")
    if folder is None and server is not None:
        if save is not None:
            raise UsageError(
                "--save needs a run folder: a server's run is watched, and reported on where its folder is"
            )
        watch_server(server, tls, host, port, browser)
        return
    folder = folder or Path("runs")
    from fedpg_lab.runs.folders import require_folder

    require_folder(folder)
    from fedpg_common.transport.channels import tls_files

    from fedpg_lab.watch.catalogue import Catalogue
    from fedpg_lab.watch.run_view import ServerAccess
    from fedpg_lab.watch.saving import save_page

    access = ServerAccess(server, tls_files(tls))
    if save is not None:
        save_page(folder, save, access)
        typer.echo(f"Saved the page of {shown(folder)}: {shown(save)}")
        return
    serve_page(Catalogue(folder, access), host, port, browser)


def watch_server(server: str, tls: Path | None, host: str, port: int | None, browser: bool) -> None:
    """Serve the page of a server's run. Raises RefusedError, AddressError, UsageError."""
    from fedpg_common.transport.channels import parse_address, tls_files

    from fedpg_lab.watch.remote import RemoteCatalogue
    from fedpg_lab.watch.run_view import ServerAccess

    parse_address(server)
    catalogue = RemoteCatalogue(server, ServerAccess(server, tls_files(tls)))
    catalogue.remote.check()
    serve_page(catalogue, host, port, browser)


def serve_page(catalogue: Catalogue, host: str, port: int | None, browser: bool) -> None:
    """Serve until Ctrl-C. Raises AddressError."""
    from fedpg_lab.runs.folders import how_to_make_runs
    from fedpg_lab.watch.catalogue import Catalogue
    from fedpg_lab.watch.server import open_server

    served = open_server(catalogue, host, port)
    with unwinding():
        try:
            url = first_page(catalogue, served.url)
            typer.echo(f"Watching {shown(catalogue.folder)} at {url} (Ctrl-C ends it)")
            if isinstance(catalogue, Catalogue) and not catalogue.home()["runs"]:
                typer.echo(f"There is no run yet: {how_to_make_runs(catalogue.folder)}, and the page shows it at once")
            sys.stdout.flush()
            if browser and has_browser():
                webbrowser.open(url)
            served.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            typer.echo("")
        finally:
            served.ended.set()
            served.server_close()


def first_page(catalogue: Catalogue, url: str) -> str:
    """The run's own page where the folder is a run."""
    from fedpg_lab.watch.catalogue import HERE

    runs = [line["run"] for line in catalogue.home()["runs"]]
    return f"{url}run?run={HERE}" if runs == [HERE] else url


def has_browser() -> bool:
    """Whether a window can be opened: not from a script, nor where only a browser for terminals would be found."""
    has_display = sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return sys.stdout.isatty() and has_display
