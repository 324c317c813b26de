"""One run as its page shows it: read once, then only what is new, for any number of viewers."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedpg_common.errors import FedPGError
from fedpg_common.files import shown
from fedpg_common.transport.channels import TlsFiles
from fedpg_server.learning.records import RoundRecord

from fedpg_lab.watch import adapter
from fedpg_lab.watch.adapter import Facts, Round
from fedpg_lab.watch.agents import agents_table, clock, suspects
from fedpg_lab.watch.events import Span, faults_of, marks_of
from fedpg_lab.watch.history import History
from fedpg_lab.watch.logs import ServerLog
from fedpg_lab.watch.plane import plane_of
from fedpg_lab.watch.worlds import worlds_of

Clock = Callable[[], float]
REFRESH_S = 0.8
"""A run is looked at no more often, however many watch it."""
READ_S = 1.0
"""A long run is shown while it is still being read: so much of it at a time."""
ASK_AGAIN_S = 5.0
"""After a server has not answered."""
LOOPBACK = ("127.", "localhost:", "[::1]:")


@dataclass(frozen=True)
class ServerAccess:
    """Where a live run's server is asked for its status: None asks the address in the run's log, if on loopback."""

    address: str | None = None
    tls: TlsFiles | None = None


@dataclass
class Cursor:
    """What a viewer has been sent."""

    run_id: str | None = None
    rounds: int = 0
    sections: dict[str, Any] = field(default_factory=dict)


class RunView:
    """A run folder, and what is known of it."""

    has_folder = True

    def __init__(self, folder: Path, run: str, access: ServerAccess, now: Clock = time.monotonic) -> None:
        """`run` is the name by which the page asks for it."""
        self.folder, self.run = folder, run
        self._access, self._now = access, now
        self._lock = threading.Lock()
        self._looked_s = self._ask_s = -1e9
        self._signature: object = None
        self._is_read = False
        self._facts: Facts | None = None
        self._history = History(0)
        self._voters: frozenset[int] = frozenset()
        self._refusals: Mapping[int, Mapping[str, int]] = {}
        self._extensions: list[int] = []
        self._log = ServerLog(folder)
        self._faults: list[Span] = []
        self._status: dict[str, Any] | None = None
        self._error: str | None = None
        self._sections: dict[str, Any] = {}

    def patch(self, cursor: Cursor, patience_s: float = READ_S) -> dict[str, Any]:
        """What has changed since the viewer was sent something, by section; `reset` where it has to forget all.

        Sections: run, clock, agents, worlds, events, plane, log; curve and grid begin with the first column that has
        changed. What cannot be read within `patience_s` is left for the next time, and `run` says so.
        """
        with self._lock:
            self._refresh(patience_s)
            facts = self._facts
            found: dict[str, Any] = {}
            run_id = facts.run_id if facts else None
            if cursor.run_id != run_id or cursor.rounds > len(self._history):
                cursor.run_id, cursor.rounds, cursor.sections = run_id, 0, {}
                found["reset"] = True
            if len(self._history) != cursor.rounds or found:
                found["curve"] = self._history.curve(cursor.rounds)
                found["grid"] = self._history.grid(cursor.rounds)
                cursor.rounds = len(self._history)
            for name, section in self._sections.items():
                if cursor.sections.get(name) is not section:  # made again only where it has changed
                    found[name] = cursor.sections[name] = section
            return found

    def whole(self) -> dict[str, Any]:
        """Everything, for JSON and for a saved page."""
        return self.patch(Cursor(), math.inf)

    def state(self) -> dict[str, Any]:
        """The section `run` alone, of all that there is to read."""
        with self._lock:
            self._refresh(math.inf)
            return dict(self._sections["run"])

    def plane(self, number: int) -> dict[str, Any] | None:
        """The picture of a round's gradients; None where there is none. Raises StorageError."""
        facts = self.facts()
        record = self._record(number) if facts else None
        return plane_of(facts.federation, record) if facts and record else None

    def _record(self, number: int) -> RoundRecord | None:
        """A round, whole. Raises StorageError."""
        return next(iter(adapter.read_records(self.folder, [number])), None)

    def _state(self, facts: Facts, trajectories: int) -> str:
        """As `fedpg runs` names it."""
        return adapter.state_of(self.folder, facts, trajectories)

    def _why_ended(self) -> str | None:
        """The sentence with which the run failed, if it did."""
        return adapter.why_failed(self.folder)

    def facts(self) -> Facts | None:
        """What the run's description says; None for a run that cannot be read."""
        with self._lock:
            self._refresh(math.inf)
            return self._facts

    def records(self) -> tuple[Path, Facts, list[Any]] | None:
        """What a comparison needs; None for a run that cannot be read."""
        with self._lock:
            self._refresh(math.inf)
            return (self.folder, self._facts, list(self._history.records)) if self._facts else None

    def _refresh(self, patience_s: float) -> None:
        if self._now() - self._looked_s < REFRESH_S and self._is_read:
            return
        mark = adapter.signature(self.folder)
        is_live = bool(mark[0])
        if mark != self._signature or not self._is_read:
            self._read(self._now() + patience_s)
            self._faults = faults_of(self.folder)
            self._signature = mark
        self._log.read()
        self._ask(is_live)
        self._describe(is_live)
        self._looked_s = self._now()

    def _read(self, until_s: float) -> None:
        """Read what is new, until that time. A store that cannot be read leaves what is known, and says why."""
        before = self._facts.run_id if self._facts else None
        try:
            with adapter.RunStore(self.folder, before, len(self._history)) as reading:
                if reading.facts.run_id != before:
                    self._history = History(reading.facts.agents, reading.facts.round_timeout_s)
                self._facts = reading.facts
                self._is_read = self._add(reading.rounds, until_s)
                self._voters = reading.voters(len(self._history) + 1) if self._is_read else frozenset()
                self._refusals = reading.refusals
                self._extensions = list(reading.extensions)
            self._error = None
        except FedPGError as error:
            self._error, self._is_read = str(error), True  # again when it has changed

    def _add(self, batches: Iterator[list[Round]], until_s: float) -> bool:
        """Whether that was all."""
        for rounds in batches:
            self._history.add(rounds)
            if self._now() > until_s:
                return False
        return True

    def _ask(self, is_live: bool) -> None:
        if not is_live or self._facts is None:
            self._status = None
            return
        address = self._access.address
        if address is None and (self._log.address or "").startswith(LOOPBACK):
            address = self._log.address
        if address is None or self._now() < self._ask_s:
            return
        self._status = adapter.ask_status(address, self._access.tls, self._facts.run_id)
        if self._status is None:
            self._ask_s = self._now() + ASK_AGAIN_S

    def _describe(self, is_live: bool) -> None:
        facts, history = self._facts, self._history
        if facts is None:
            self._put(
                "run", {"run": self.run, "folder": shown(self.folder), "state": "unreadable", "note": self._error}
            )
            return
        last = history.last
        trajectories = last.trajectories if last else 0
        rows = agents_table(facts, history, self._voters, self._refusals, self._status)
        self._put("run", {
            "run": self.run, "folder": shown(self.folder), "run_id": facts.run_id, "task": facts.task,
            "algorithm": facts.algorithm, "agents": facts.agents, "seed": facts.seed, "quorum": facts.quorum,
            "byzantine": {str(agent): what for agent, what in facts.byzantine.items()},
            "state": self._state(facts, trajectories),
            "is_read": self._is_read,
            "note": self._error or self._why_ended(),
            "rounds": len(history), "trajectories": trajectories, "target": facts.target,
            **adapter.results_of(history.totals), "latest": last.evaluation if last else None,
            "speed": history.speed(), "suspects": suspects(rows, len(history)),
            "is_selective": any(row["accepted"] or row["filtered"] for row in rows),
            "strangers": dict(self._refusals.get(0, {})),
            "starts": self._log.starts or None, "extended_after": self._extensions,
        })  # fmt: skip
        self._put("clock", clock(facts, history, self._voters, self._status, is_live))
        self._put("agents", rows)
        self._put("worlds", worlds_of(history.last_in_worlds))
        spans = [*self._faults, *history.late.spans(), *marks_of(self._log.started_after, self._extensions)]
        self._put("events", sorted(spans, key=lambda span: (span["first"], span["last"], span["label"])))
        self._put("plane", (plane_of(facts.federation, last.whole) if last else None) or {})
        self._put("log", {"count": self._log.count, "lines": list(self._log.lines)})

    def _put(self, name: str, section: Any) -> None:
        """Keep the section that is there if it says the same."""
        if self._sections.get(name) != section:
            self._sections[name] = section
