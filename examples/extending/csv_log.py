"""An observer: a line per round in a CSV file, in place of a tracker of one's own.

fedpg train --observer "csv_log:CsvLog file=rounds.csv"
"""

from __future__ import annotations

import csv

from fedpg_common.learning.parameters import Vector
from fedpg_server.learning.records import RoundRecord
from fedpg_server.observers.base import Observed


class CsvLog:
    """Trajectories, return, and what became of the votes."""

    def __init__(self, observed: Observed, file: str = "rounds.csv") -> None:
        self._file = (observed.folder / file).open("a", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file)
        if not observed.records:  # a resumed run goes on in the same file
            self._writer.writerow(["round", "trajectories", "return", "rule", "accepted", "filtered"])

    def record(self, record: RoundRecord, theta: Vector) -> None:
        accepted, filtered = len(record.accepted), len(record.filtered)
        self._writer.writerow([record.round_number, record.trajectories_total, record.evaluation_return,
                               record.rule, accepted, filtered])  # fmt: skip
        self._file.flush()

    def close(self) -> None:
        self._file.close()
