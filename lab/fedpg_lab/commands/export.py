"""The command `fedpg export`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from fedpg_common.errors import StorageError, UsageError


class ExportFormat(StrEnum):
    """How the rounds are written."""

    CSV = "csv"
    JSONL = "jsonl"


SUFFIXES = {".csv": ExportFormat.CSV, ".jsonl": ExportFormat.JSONL, ".ndjson": ExportFormat.JSONL}


def export_command(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders, or folders that hold some.", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The file to write.", metavar="FILE", show_default="standard output"),
    ] = None,
    format_: Annotated[
        ExportFormat | None,
        typer.Option("--format", help="How.", show_default="by the ending of FILE, or csv"),
    ] = None,
) -> None:
    """Write the rounds of runs, finished or not, as CSV or JSON lines, one line per round.

    docs/runs.md lists the columns. Numbers are written so that they are read back the same; what is missing is empty in
    CSV and null in JSON. The column `run` tells several runs apart.

    For example:

        fedpg export runs/my-run --out rounds.csv
        fedpg export runs/svrpg --format jsonl | jq .evaluation_return

    Exit codes: 0 done; 2 bad option; 6 no run there, or a file cannot be used.
    """
    from fedpg_common.files import Kind, look, write_whole

    from fedpg_lab.runs.export import to_csv, to_json_lines
    from fedpg_lab.runs.folders import find_run_folders, load_run

    chosen = format_ or (SUFFIXES.get(out.suffix.lower()) if out is not None else ExportFormat.CSV)
    if chosen is None:
        raise UsageError(f"--out must end in {', '.join(SUFFIXES)}, or --format say what to write")

    runs = [load_run(place) for folder in folders for place in find_run_folders(folder)]
    lines = to_csv(runs) if chosen is ExportFormat.CSV else to_json_lines(runs)
    if out is None:
        _print(lines)
        return
    if look(out) is Kind.FOLDER:
        raise StorageError(f"cannot write {out}: it is a folder")
    write_whole(out, "".join(lines))
    count = sum(len(run.records) for run in runs)
    typer.echo(f"Wrote {count} round{'s' * (count != 1)} of {len(runs)} run{'s' * (len(runs) != 1)}: {out}")


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(line)
