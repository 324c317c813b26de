"""The command `fedpg report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedpg_lab.terminal.formats import Format


def report_command(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders, or folders that hold some.", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write there; with several runs, a folder in it for each.", metavar="DIR", show_default="in each run"
        ),
    ] = None,
    format_: Annotated[
        Format, typer.Option("--format", help="json: print the summaries as well, as a list.")
    ] = Format.TABLE,
) -> None:
    """Write summary.json, returns.png and report.html of runs, finished or not.

    `fedpg train` leaves the first two in its run folders. This makes them for runs of `fedpg-server`, of containers,
    for copies, and again for a run that is live. The picture has the return curve, the rule that decided each round,
    and each agent's verdicts; the page is the run's of `fedpg watch` in one file, which needs no network. Seeds of one
    federation, in folders seed-S, get their mean and interval in the folder above.

    Exit codes: 0 done; 2 bad option; 6 no run there, or a folder cannot be written: choose another with --out.
    """
    from fedpg_common.files import require_place
    from fedpg_common.json_text import to_json

    from fedpg_lab.watch.report import report_runs, sentence

    if out is not None:
        require_place(out, "choose another --out")
    reported = report_runs(folders, out)
    if format_ is Format.JSON:
        typer.echo(to_json([summary for _, summary in reported], indent=2))
        return
    for place, summary in reported:
        typer.echo(sentence(place, summary))
