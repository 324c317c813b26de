"""The command `fedpg export`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from fedpg_common.errors import StorageError, UsageError
from fedpg_common.files import require_place, shown, why_no_file, write_whole
from fedpg_common.words import count

if TYPE_CHECKING:
    from fedpg_lab.runs.folders import RunData


class ExportFormat(StrEnum):
    """How the rounds are written."""

    CSV = "csv"
    JSONL = "jsonl"
    FIGURES = "figures"


SUFFIXES = {".csv": ExportFormat.CSV, ".jsonl": ExportFormat.JSONL, ".ndjson": ExportFormat.JSONL}


def export_command(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders, or folders that hold some.", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The file to write; for figures a folder.", metavar="FILE", show_default="standard output"),
    ] = None,
    format_: Annotated[
        ExportFormat | None,
        typer.Option("--format", help="How.", show_default="by the ending of FILE, or csv"),
    ] = None,
) -> None:
    """Write the rounds of runs, finished or not, as CSV or JSON lines, one line per round.

    docs/runs.md lists the columns. Numbers are written so that they are read back the same; what is missing is empty in
    CSV and null in JSON. The column `run` tells several runs apart. Without --out they go to standard output, which
    must be a pipe or a file then: a round is thousands of characters.

    `--format figures` keeps what figures are made of: for each federation a folder in --out with two small files, which
    `fedpg figure` reads like run folders.

    For example:

        fedpg export runs/my-run --out rounds.csv
        fedpg export runs/svrpg --format jsonl | jq .evaluation_return
        fedpg export runs/figure-1 --format figures --out data/figure-1

    Exit codes: 0 done; 2 bad option; 6 no run there, or a file cannot be used.
    """
    if out is None and format_ is not ExportFormat.FIGURES and sys.stdout.isatty():
        raise UsageError(
            "a round is thousands of characters, which would fill the terminal: name a file, as in --out rounds.csv, "
            "or pipe them, as in fedpg export RUN | less -S"
        )
    from fedpg_lab.runs.export import to_csv, to_json_lines
    from fedpg_lab.runs.folders import find_run_folders, load_run

    chosen = format_ or (SUFFIXES.get(out.suffix.lower()) if out is not None else ExportFormat.CSV)
    if chosen is None:
        raise UsageError(f"--out must end in {', '.join(SUFFIXES)}, or --format say what to write")

    runs = [load_run(place) for folder in folders for place in find_run_folders(folder)]
    if chosen is ExportFormat.FIGURES:
        _keep(runs, out)
        return
    lines = to_csv(runs) if chosen is ExportFormat.CSV else to_json_lines(runs)
    if out is None:
        _print(lines)
        return
    if why := why_no_file(out):
        raise StorageError(f"cannot write {shown(out)}: {why}")
    write_whole(out, "".join(lines))
    rounds = sum(len(run.records) for run in runs)
    typer.echo(f"Wrote {count(rounds, 'round')} of {count(len(runs), 'run')}: {out}")


def _keep(runs: Sequence[RunData], out: Path | None) -> None:
    if out is None:
        raise UsageError("--format figures writes a folder: name it with --out")
    require_place(out, "choose another --out")
    from fedpg_lab.figures.curves import group_runs
    from fedpg_lab.runs.kept import keep

    groups = [group.runs for group in group_runs([run for run in runs if run.records])]
    places = keep(groups, out)
    kept = sum(map(len, groups))
    typer.echo(f"Kept {count(kept, 'run')} of {count(len(places), 'federation')}: {shown(out)}")


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(line)
