"""A run's rounds for other programs: a table (CSV), or one JSON object on each line. docs/runs.md lists the columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fedpg_common.files import shown
from fedpg_common.json_text import to_json
from fedpg_server.learning.records import RoundRecord

from fedpg_lab.runs.folders import RunData

SAMPLED = ("agents", "inner", "aborted", "evaluation")
KEYS: Mapping[str, Sequence[str]] = {
    "sampled_trajectories": SAMPLED,
    "environment_steps": SAMPLED,
    "distances": ("good", "byzantine", "between"),
    "detection": ("precision", "recall", "f1"),
    "figures": ("radius",),
}
"""The keys of a record's tables, which have columns of their own even where no round has such a figure."""


def fields_of(run: RunData, record: RoundRecord) -> dict[str, Any]:
    """Everything that is known of a round, nested as in the record, under the record's names."""
    record_fields = asdict(record)
    agents = range(1, run.federation.agents + 1)
    for name, values in (("centre_distances", record.centre_distances), ("weights", record.weights or {})):
        record_fields[name] = {str(agent): values.get(agent) for agent in agents}
    return {
        "run": shown(run.folder),
        "round": record_fields.pop("round_number"),
        "evaluation_return": record.evaluation_return,
        "evaluation_length": record.evaluation_length,
        **record_fields,
        "verdicts": {str(agent): verdict_of(record, agent) for agent in agents},
    }


def verdict_of(record: RoundRecord, agent: int) -> str:
    """What became of an agent in a round: "voted" where the rule selects nobody in particular."""
    if agent in record.accepted:
        return "accepted" if record.is_selective else "voted"
    return "filtered" if agent in record.filtered else "absent"


def to_json_lines(runs: Sequence[RunData]) -> Iterator[str]:
    """A line for each round. What is missing, and numbers that are not finite, are null."""
    for run in runs:
        for record in run.records:
            yield to_json(fields_of(run, record)) + "\n"


def to_csv(runs: Sequence[RunData]) -> Iterator[str]:
    """A header, and a line for each round. What is missing is empty; numbers are read back the same.

    Tables of a record are columns `table_key`; its lists are JSON.
    """
    rows = [flat(fields_of(run, record)) for run in runs for record in run.records]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    if columns:
        writer.writeheader()
        yield _taken(text)
    for row in rows:
        writer.writerow(row)
        yield _taken(text)


def flat(fields: Mapping[str, Any]) -> dict[str, str]:
    """The fields as columns of text."""
    row: dict[str, str] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            entries = {**dict.fromkeys(KEYS.get(name, ())), **{str(key): entry for key, entry in value.items()}}
            row |= {f"{name}_{key}": _cell(entry) for key, entry in entries.items()}
        else:
            row[name] = _cell(value)
    return row


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return to_json(value)
    return repr(value) if isinstance(value, float) else str(value)


def _taken(text: io.StringIO) -> str:
    line = text.getvalue()
    text.seek(0)
    text.truncate()
    return line
