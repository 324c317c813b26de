"""What happened to a run, by its rounds: faults of a scenario, rounds beyond their deadline, restarts, extensions."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedpg_lab.faults.report import JSON_NAME

BYTES_MAX = 64 * 1024 * 1024
SPANS_MAX = 500
LATE_S = 1.0
"""A round that ended this much after its deadline waited for a quorum."""

Span = dict[str, Any]
"""`kind`, `first` and `last` round, and a `label`."""


def faults_of(folder: Path) -> list[Span]:
    """The faults that a scenario made; none without a report of it, or where that cannot be read."""
    path = folder / JSON_NAME
    try:
        if path.stat().st_size > BYTES_MAX:
            return []
        content = json.loads(path.read_text(encoding="utf-8"))
        spans = []
        for entry in content["happened"][:SPANS_MAX]:
            first = max(1, int(entry["begin_round"]))
            last = first if entry["heal_round"] is None else max(first, int(entry["heal_round"]))
            spans.append({"kind": "fault", "first": first, "last": last, "label": str(entry["label"])})
        return spans
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []  # what the page says of the run itself does not depend on it


class LateRounds:
    """The rounds that went on after their deadline, which they do below the quorum; neighbours share a span."""

    def __init__(self, deadline_s: float) -> None:
        """No round yet."""
        self._deadline_s = deadline_s
        self._rounds = 0
        self._spans: deque[tuple[int, int]] = deque(maxlen=SPANS_MAX)
        """First and last round of each."""

    def add(self, seconds: float) -> None:
        """The next round, which took so long."""
        self._rounds += 1
        if not seconds > self._deadline_s + LATE_S:
            return
        first = self._rounds
        if self._spans and self._spans[-1][1] == self._rounds - 1:
            first, _ = self._spans.pop()
        self._spans.append((first, self._rounds))

    def spans(self) -> list[Span]:
        """The latest ones, in order."""
        label = "beyond the deadline"
        return [{"kind": "late", "first": first, "last": last, "label": label} for first, last in self._spans]


def marks_of(started_after: Sequence[int], extended_after: Sequence[int]) -> list[Span]:
    """When the server began again, and when the run was given another end."""
    restarts = [_mark("restart", number, "the server was restarted") for number in started_after[1:]]
    extensions = [_mark("extension", number, "the run was given another end") for number in extended_after]
    return [*restarts, *extensions][-SPANS_MAX:]


def _mark(kind: str, after: int, label: str) -> Span:
    return {"kind": kind, "first": after, "last": after, "label": label}
