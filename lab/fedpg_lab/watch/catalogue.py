"""The runs below a folder, each read again only when it has changed."""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedpg_common.errors import FedPGError, StorageError, UsageError
from fedpg_common.files import shown

from fedpg_lab.watch import adapter, comparisons
from fedpg_lab.watch.matrices import matrix_folders, read_matrix
from fedpg_lab.watch.run_view import Clock, RunView, ServerAccess

REFRESH_S = 2.0
REST = 5.0
"""A folder that takes long to search is left alone for this many times as long."""
VIEWS_MAX = 64
"""Runs that are kept in memory."""
COMPARED_MAX = 100
POINTS_MAX = 1000
"""Of a compared curve."""
HERE = "."
"""The name of a run that is the watched folder itself."""
STATES = ("live", "unfinished", "failed", "finished", "unreadable")


class Catalogue:
    """What there is to watch at or below a folder."""

    def __init__(self, folder: Path, access: ServerAccess, now: Clock = time.monotonic) -> None:
        """Nothing is searched yet."""
        self.folder = folder
        self._access, self._now = access, now
        self._lock = threading.Lock()
        self._due_s = -1e9
        self._marks: dict[Path, object] = {}
        self._lines: dict[Path, dict[str, Any]] = {}
        self._progress: dict[Path, adapter.Progress] = {}
        self._views: OrderedDict[str, RunView] = OrderedDict()
        self._shown: list[dict[str, Any]] = []
        self._matrices: list[Path] = []
        self._error: str | None = None

    def home(self) -> dict[str, Any]:
        """The runs, live ones first. The same object as long as nothing changes."""
        with self._lock:
            if self._now() >= self._due_s:
                begun_s = self._now()
                self._search()
                self._due_s = self._now() + max(REFRESH_S, REST * (self._now() - begun_s))
            matrices = [self._name(place) for place in self._matrices]
            return {"folder": shown(self.folder), "runs": self._shown, "matrices": matrices, "error": self._error}

    def view(self, run: str) -> RunView:
        """The run of that name. Raises StorageError if there is none at or below the folder."""
        folder = self._find(run)
        with self._lock:
            view = self._views.get(run)
            if view is None:
                view = self._views[run] = RunView(folder, run, self._access, self._now)
            self._views.move_to_end(run)
            while len(self._views) > VIEWS_MAX:
                self._views.popitem(last=False)
            return view

    def matrix(self, name: str) -> dict[str, Any]:
        """The matrices of the experiment in that folder. Raises StorageError."""
        self.home()
        with self._lock:
            names = {place: self._name(place) for place in self._lines}
            found = next((place for place in self._matrices if self._name(place) == name), None)
        if found is None:
            raise StorageError(f"there is no matrix of an experiment in {name!r}, in {shown(self.folder)}")
        return {"name": name, **read_matrix(found, names)}

    def compare(self, runs: Sequence[str], honest: bool, window: int) -> dict[str, Any]:
        """Their federations' curves over seeds. Raises StorageError, UsageError."""
        if not 1 <= len(runs) <= COMPARED_MAX:
            raise UsageError(f"compare 1 to {COMPARED_MAX} runs, not {len(runs)}")
        if not 1 <= window <= 1000:
            raise UsageError(f"smooth must be 1 to 1000 rounds, not {window}")
        found = [records for run in dict.fromkeys(runs) if (records := self.view(run).records()) is not None]
        curves = []
        for one in comparisons.compare(found, honest, window):
            every = -(-len(one.counts) // POINTS_MAX)
            curves.append({
                "label": one.label, "task": one.task, "attack": one.attack, "seeds": one.seeds, "final": one.final,
                "counts": one.counts[::every], "mean": one.mean[::every],
                "half_width": one.half_width[::every] if one.half_width else None, "published": one.published,
                "runs": [self._name(folder) for folder in one.folders],
            })  # fmt: skip
        return {"runs": list(dict.fromkeys(runs)), "honest": honest, "smooth": window, "curves": curves}

    def _find(self, run: str) -> Path:
        """Only what a search below the folder has met can be asked for."""
        for attempt in range(2):
            with self._lock:
                for place in self._lines:
                    if self._name(place) == run:
                        return place
                if attempt == 0:
                    self._search()
        raise StorageError(f"there is no run {run!r} in {shown(self.folder)}")

    def _name(self, place: Path) -> str:
        """By which the page asks for a run: text, whatever bytes are in its path."""
        return HERE if place == self.folder else shown(place.relative_to(self.folder))

    def _search(self) -> None:
        try:
            places = adapter.run_folders(self.folder)
            self._error = None
        except FedPGError as error:
            self._error = str(error)
            return
        self._matrices = matrix_folders(self.folder, places)
        lines = {}
        for place in places:
            mark = adapter.signature(place)
            if self._marks.get(place) != mark or place not in self._lines:
                self._marks[place] = mark
                lines[place] = {**self._line(place, place not in self._lines), "run": self._name(place)}
            else:
                lines[place] = self._lines[place]
        if lines != self._lines:
            self._shown = sorted(lines.values(), key=_place)
        self._lines = lines
        self._marks = {place: self._marks[place] for place in lines}
        self._progress = {place: self._progress[place] for place in lines}

    def _line(self, place: Path, is_new: bool) -> dict[str, Any]:
        try:
            return adapter.line_of(place, is_new, self._progress.setdefault(place, adapter.Progress()))
        except FedPGError as error:  # it has just gone
            return {"state": "unreadable", "note": str(error)}


def _place(line: dict[str, Any]) -> tuple[Any, ...]:
    """Live runs first; numbers in names count as numbers."""
    parts = re.split(r"([0-9]+)", line["run"])
    return STATES.index(line["state"]), [(int(part), "") if part.isdecimal() else (0, part) for part in parts]
