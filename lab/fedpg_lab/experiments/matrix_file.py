"""matrix.json: an experiment's matrix for programs, kept up to date while it runs (docs/robustness.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedpg_common.errors import StorageError
from fedpg_common.files import Kind, look, reason, shown, write_whole
from fedpg_common.json_text import to_json

from fedpg_lab.experiments.matrix import Additions, Plan
from fedpg_lab.experiments.matrix_results import FORMAT, MatrixResult, Outcome, outcome_of, result_of, to_plain
from fedpg_lab.experiments.plan import Experiment, PlannedRun
from fedpg_lab.runs.folders import RunData

MATRIX_NAME = "matrix.json"


def earlier_additions(folder: Path) -> Additions:
    """The rows and attacks that commands before this one have added to the experiment in this folder.

    Raises StorageError for a file that is not ours.
    """
    path = folder / MATRIX_NAME
    if look(path) is Kind.MISSING:
        return Additions()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageError(f"{shown(path)} cannot be read: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{shown(path)} is damaged: {error}; remove it, and it is written again") from error
    added = found.get("added") if isinstance(found, Mapping) and found.get("format") == FORMAT else None
    rows, attacks = (added.get("rows"), added.get("attacks")) if isinstance(added, Mapping) else (None, None)
    is_whole = isinstance(rows, list) and isinstance(attacks, list) and all(isinstance(row, Mapping) for row in rows)
    if not is_whole:
        raise StorageError(f"{shown(path)} is not of this version: remove it, and it is written again")
    return Additions(tuple(rows), tuple(attacks))  # type: ignore[arg-type]


class MatrixFile:
    """The file, and what it is made of: the outcomes of the runs that there are."""

    def __init__(self, experiment: Experiment, plan: Plan, folder: Path) -> None:
        """Nothing is written yet. `folder` is the experiment's."""
        self._experiment = experiment
        self._plan = plan
        self._folder = folder
        self._outcomes: dict[str, Outcome] = {}
        self._thresholds = {
            name: matrix.threshold for matrix in plan.matrices for name in matrix.federations(None, None)
        }

    def note(self, planned: PlannedRun, run: RunData) -> None:
        """Take down what a run came to."""
        threshold = self._thresholds[planned.name.rpartition("/")[0]]
        self._outcomes[planned.name] = outcome_of(run, self._folder, threshold)

    def results(self) -> list[MatrixResult]:
        """The matrices with what has been noted."""
        seeds = tuple(dict.fromkeys(planned.federation.seed for planned in self._experiment.runs))
        return [result_of(matrix, seeds, self._outcomes) for matrix in self._plan.matrices]

    def write(self) -> None:
        """Write it whole, in place of the one before. Raises StorageError."""
        text: dict[str, Any] = {
            "format": FORMAT,
            "experiment": self._experiment.name,
            "title": self._experiment.title,
            "added": {"rows": list(self._plan.added.rows), "attacks": list(self._plan.added.attacks)},
            "matrices": [to_plain(result) for result in self.results()],
        }
        write_whole(self._folder / MATRIX_NAME, to_json(text, indent=1) + "\n")
