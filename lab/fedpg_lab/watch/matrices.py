"""The matrix of an experiment, rules against attacks, as `matrix.json` in its folder has it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from fedpg_common.errors import StorageError
from fedpg_common.files import is_file, shown

from fedpg_lab.runs.no_gradient import LONE, LONE_FROM, LONE_MEANS

NAME = "matrix.json"
FORMAT = 1
BYTES_MAX = 32 * 1024 * 1024


def matrix_folders(top: Path, runs: Iterable[Path]) -> list[Path]:
    """The folders, at `top` or between it and a run, that hold a matrix."""
    above = {top}
    for run in runs:
        above.update(place for place in run.parents if place.is_relative_to(top))
    return sorted(place for place in above if is_file(place / NAME))


def read_matrix(folder: Path, names: Mapping[Path, str]) -> dict[str, Any]:
    """The matrices of an experiment; `names` are the runs that the page knows, by folder.

    Each has `task`, `K`, `byzantine`, `trajectories`, `seeds`, `threshold`, `columns`, and `rows`: each with its
    `name`, `setting`, the cell `undisturbed`, the `cells` in the order of the columns, and the place of the `worst`
    of these; and `lone` with `lone_means`, "" where no cell is lone. A cell has `mean`, `worst`, `to_threshold`,
    `accepted_honest`, `accepted_byzantine`, `done` (complete runs), the `runs` to link to, and `is_lone`: whether
    `lone` belongs beside its return. Raises StorageError for a file that cannot be read, or is not such a matrix.
    """
    path = folder / NAME
    try:
        if path.stat().st_size > BYTES_MAX:
            raise StorageError(f"{shown(path)} is larger than {BYTES_MAX // 2**20} MB: it is not a matrix")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{shown(path)} cannot be read: {error.strerror}") from error
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise StorageError(
                f"{shown(path)} has format {content['format']!r}, and this version reads {FORMAT}: use the version "
                "that wrote it"
            )
        return {
            "title": str(content["title"]),
            "experiment": str(content["experiment"]),
            "matrices": [_matrix(one, folder, names) for one in content["matrices"]],
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StorageError(f"{shown(path)} is not a matrix of an experiment: {_why(error)}") from error


def _why(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _matrix(one: Mapping[str, Any], folder: Path, names: Mapping[Path, str]) -> dict[str, Any]:
    columns = [str(name) for name in one["columns"]]
    cells = {(str(cell["row"]), str(cell["column"])): _cell(cell, folder, names) for cell in one["cells"]}
    calm = {str(cell["row"]): _cell(cell, folder, names) for cell in one["undisturbed"]}
    settings = one.get("settings") or [""] * len(one["rows"])
    rows = []
    for name, setting in zip(map(str, one["rows"]), settings, strict=True):
        found = [cells.get((name, column)) for column in columns]
        means = [cell["mean"] if cell and cell["mean"] is not None else math.inf for cell in found]
        worst = min(range(len(means)), key=means.__getitem__, default=None)
        rows.append({
            "name": name, "setting": str(setting or ""), "undisturbed": calm.get(name), "cells": found,
            "worst": worst if worst is not None and math.isfinite(means[worst]) else None,
        })  # fmt: skip
    is_any_lone = any(cell["is_lone"] for cell in (*calm.values(), *cells.values()))
    return {
        **{name: one.get(name) for name in ("task", "K", "byzantine", "trajectories", "seeds")},
        "threshold": _number(one.get("threshold")),
        "columns": columns,
        "rows": rows,
        "lone": LONE,
        "lone_means": LONE_MEANS if is_any_lone else "",
    }


def _cell(cell: Mapping[str, Any], folder: Path, names: Mapping[Path, str]) -> dict[str, Any]:
    runs = [folder / PurePosixPath(str(run)) for run in cell["runs"] if run is not None]
    reached = [_number(count) for count in cell["to_threshold"]]
    complete = [bool(is_complete) for is_complete in cell["complete"]]
    there = [count for count, is_complete in zip(reached, complete, strict=True) if is_complete and count is not None]
    return {
        "mean": _number(cell["mean"]),
        "worst": _number(cell["worst"]),
        # Where a seed never got there, no mean can be said.
        "to_threshold": sum(there) / len(there) if there and len(there) == sum(complete) else None,
        "accepted_honest": _number(cell.get("accepted_honest")),
        "accepted_byzantine": _number(cell.get("accepted_byzantine")),
        "is_lone": any((_number(part) or 0.0) > LONE_FROM for part in cell.get("without_gradient", ())),
        "done": sum(complete),
        "runs": [names[run] for run in runs if run in names],
    }


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} stands where a number belongs")
    return float(value) if math.isfinite(value) else None
