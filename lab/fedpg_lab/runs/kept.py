"""Runs kept in two small files per federation: what figures and tables are made of, without the days of computing.

`runs.toml` has the description, and for each run its seed and its summary; `rounds.csv.gz` has the rounds of all, a
line each, mostly in the columns of `fedpg export`. docs/runs.md tells what is left out.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
import tomllib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tomli_w
from fedpg_common.cli.version import version
from fedpg_common.descriptions import federation_from_fields, federation_to_toml
from fedpg_common.errors import StorageError, UsageError
from fedpg_common.federation import Federation
from fedpg_common.files import make_folder, reason, shown, write_whole
from fedpg_server.learning.make_record import score_filter
from fedpg_server.learning.records import RoundRecord

from fedpg_lab.runs.export import SAMPLED, fields_of, flat
from fedpg_lab.runs.folders import RunData, summarize

PAIRS = ("good", "byzantine", "between")
RUNS_NAME, ROUNDS_NAME = "runs.toml", "rounds.csv.gz"
PER_RUN = ("seed", "adam_after", "adam_digest")
"""The fields of a description that stand with each run."""
SUMMARY = (
    "complete", "rounds", "trajectories", "final_return", "best_return", "accepted_fraction_honest",
    "accepted_fraction_byzantine", "seconds", "parameters_digest",
)  # fmt: skip
COLUMNS = (
    "seed", "trajectories", "evaluation_return", "batch_size", "inner_steps", "inner_steps_taken", "inner_aborted",
    *(f"sampled_trajectories_{kind}" for kind in SAMPLED), "environment_steps", "rule", "has_mu", "selects",
    "accepted", "filtered", "absent", *(f"distances_{kind}" for kind in PAIRS), "skipped_steps",
)  # fmt: skip
"""Rounds follow each other from 1 on; `trajectories` are the round's own."""
DIGITS = {"evaluation_return": 2, **{f"distances_{kind}": 3 for kind in PAIRS}}
"""Decimals of the figures that are rounded."""
DAMAGE = (gzip.BadGzipFile, ValueError, KeyError, TypeError, AttributeError, EOFError, zlib.error, UsageError)
"""What reading a file raises that is not as `keep` writes it."""


# Writing --------------------------------------------------------------------------------------------------------------


def keep(groups: Sequence[Sequence[RunData]], out: Path) -> list[Path]:
    """Write the runs of each group, which differ in nothing but the seed, into a folder of its own below `out`.

    Returns the folders. Raises StorageError if they cannot be written.
    """
    places: list[Path] = []
    for runs in groups:
        name = _folder_name(runs)
        taken = {place.name for place in places}
        candidates = (name if n == 1 else f"{name}-{n}" for n in range(1, len(places) + 2))
        place = out / next(candidate for candidate in candidates if candidate not in taken)
        make_folder(place)
        write_whole(place / RUNS_NAME, _to_toml(runs))
        _write_rounds(place / ROUNDS_NAME, runs)
        places.append(place)
    return places


def _folder_name(runs: Sequence[RunData]) -> str:
    """The folder that holds all seeds, as an experiment makes it; or else the first run's own."""
    folder = runs[0].folder.absolute()
    return folder.parent.name if folder.name == f"seed-{runs[0].federation.seed}" else folder.name


def _to_toml(runs: Sequence[RunData]) -> str:
    descriptions = [tomllib.loads(federation_to_toml(run.federation)) for run in runs]
    entries = []
    for run, description in zip(runs, descriptions, strict=True):
        summary = summarize(run)
        entry = {name: description[name] for name in PER_RUN if name in description}
        entry |= {name: summary[name] for name in SUMMARY if summary[name] is not None}
        entries.append({name: round(value, 4) if isinstance(value, float) else value for name, value in entry.items()})
    shared = {name: value for name, value in descriptions[0].items() if name not in PER_RUN}
    return tomli_w.dumps({"fedpg": version(), "runs": entries, "federation": shared})


def _write_rounds(path: Path, runs: Sequence[RunData]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for run in runs:
        count = 0
        for record in run.records:
            row = flat(fields_of(run, record)) | {
                "seed": str(run.federation.seed),
                "trajectories": str(record.trajectories_total - count),
                "environment_steps": str(sum(record.environment_steps.values())),
                "selects": "" if record.weights is None else "true",
            }
            count = record.trajectories_total
            for name, digits in DIGITS.items():
                if row.get(name):
                    row[name] = repr(round(float(row[name]), digits))
            writer.writerow(row)
    write_whole(path, gzip.compress(text.getvalue().encode(), mtime=0))  # the same rounds have the same bytes


# Reading --------------------------------------------------------------------------------------------------------------


def kept_folders(folder: Path) -> list[Path]:
    """The folders at or below `folder` that hold kept runs, in order. What cannot be searched is left out."""
    return sorted(Path(place) for place, _, files in os.walk(folder) if {RUNS_NAME, ROUNDS_NAME} <= set(files))


def load_kept(folder: Path) -> list[RunData]:
    """The runs kept in a folder, each as if it lay in a folder seed-S there. Raises StorageError."""
    try:
        fields = tomllib.loads((folder / RUNS_NAME).read_text(encoding="utf-8"))
        text = gzip.decompress((folder / ROUNDS_NAME).read_bytes()).decode()
        rows: dict[int, list[dict[str, str]]] = {}
        for row in csv.DictReader(io.StringIO(text)):
            rows.setdefault(int(row["seed"]), []).append(row)
        return [_run(folder, fields["federation"], entry, rows.get(entry["seed"], [])) for entry in fields["runs"]]
    except DAMAGE as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise StorageError(f"the runs kept in {shown(folder)} are damaged: {what}") from error
    except OSError as error:
        raise StorageError(f"the runs kept in {shown(folder)} cannot be read: {reason(error)}") from error


def _run(
    folder: Path, shared: Mapping[str, Any], entry: Mapping[str, Any], rows: Sequence[Mapping[str, str]]
) -> RunData:
    own = {name: entry[name] for name in PER_RUN if name in entry}
    federation = federation_from_fields({**shared, **own}, "the description")
    if len(rows) != entry["rounds"]:
        raise ValueError(f"seed {federation.seed} has {len(rows)} of {entry['rounds']} rounds")
    records: list[RoundRecord] = []
    for row in rows:
        records.append(_record(row, federation, records, entry["seconds"] / len(rows)))
    if records:
        records[-1] = replace(records[-1], parameters_digest=entry["parameters_digest"])
    return RunData(folder / f"seed-{federation.seed}", federation, records)


def _record(
    row: Mapping[str, str], federation: Federation, before: Sequence[RoundRecord], seconds: float
) -> RoundRecord:
    """A round as far as it was kept, after those `before` it: the rest is empty, or not a number."""
    accepted, filtered, absent = (tuple(json.loads(row[name])) for name in ("accepted", "filtered", "absent"))
    selects = row["selects"] == "true"
    value = _number(row["evaluation_return"])
    return RoundRecord(
        round_number=len(before) + 1,
        parameters_digest="",
        batch_size=int(row["batch_size"]),
        inner_steps=int(row["inner_steps"]),
        inner_steps_taken=int(row["inner_steps_taken"]),
        inner_aborted=row["inner_aborted"] == "true",
        trajectories_total=int(row["trajectories"]) + (before[-1].trajectories_total if before else 0),
        sampled_trajectories={kind: int(row[f"sampled_trajectories_{kind}"] or 0) for kind in SAMPLED},
        environment_steps={"all": int(row["environment_steps"])},
        rule=row["rule"],
        has_mu=row["has_mu"] == "true",
        accepted=accepted,
        filtered=filtered,
        absent=absent,
        median_agent=None,
        weights={agent: float(agent in accepted) for agent in sorted(accepted + filtered)} if selects else None,
        figures={},
        distances={kind: _number(row[f"distances_{kind}"]) for kind in PAIRS if row[f"distances_{kind}"]},
        centre_distances={},
        detection=score_filter(accepted, filtered, federation) if selects else {},
        evaluation_returns=(value,),
        evaluation_lengths=(math.nan,),
        training_return=None,
        training_length=None,
        loss=None,
        gradient_norm=math.nan,
        inner_gradient_norms=(),
        importance_ratios=(),
        learning_rate=federation.task.learning_rate,
        skipped_steps=int(row["skipped_steps"]),
        seconds=seconds,
    )


def _number(text: str) -> float:
    return float(text) if text else math.nan
