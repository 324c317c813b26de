"""A run whose folder is on another machine: all that is known of it is what its server tells its operator."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpg_common.descriptions import federation_from_toml
from fedpg_common.errors import FedPGError, RefusedError, StorageError, UnreachableError
from fedpg_common.transport.verdicts import Verdict
from fedpg_server.learning.records import RoundRecord

from fedpg_lab.local.status import fetch_status, to_plain
from fedpg_lab.watch import adapter
from fedpg_lab.watch.adapter import Facts
from fedpg_lab.watch.catalogue import HERE, Catalogue
from fedpg_lab.watch.history import History
from fedpg_lab.watch.run_view import ASK_AGAIN_S, REFRESH_S, Clock, RunView, ServerAccess

TIMEOUT_S = 10.0
NOT_OPERATOR = (
    "the server tells only its operator who was filtered: ask it with the folder operator of `fedpg certs` (--tls), or "
    "on its own machine"
)
FINE = (Verdict.ACCEPTED, Verdict.DUPLICATE)


class RemoteView(RunView):
    """The run at an address, as its server tells it."""

    has_folder = False

    def __init__(self, address: str, access: ServerAccess, now: Clock = time.monotonic) -> None:
        """Nothing is asked yet."""
        super().__init__(Path(address), HERE, access, now)
        self._address = address
        self._is_ended = False

    def _refresh(self, patience_s: float) -> None:
        now_s = self._now()
        if (now_s - self._looked_s < REFRESH_S and self._is_read) or now_s < self._ask_s:
            return
        self._follow(now_s + patience_s)
        self._describe(self._status is not None and not self._is_ended)
        self._looked_s = self._now()

    def _follow(self, until_s: float) -> None:
        """Ask for the new rounds, until that time. What is known stays where the server is away."""
        try:
            while True:
                told = self._tell(len(self._history))
                records = [RoundRecord.from_json(text) for text in told["records_json"]]
                if self._facts is None or told["run_id"] != self._facts.run_id:
                    is_first = self._facts is None
                    description = bytes.fromhex(told["federation_toml"]).decode("utf-8")
                    federation = federation_from_toml(description, f"the server at {self._address}")
                    self._facts = adapter.facts_of(told["run_id"], federation)
                    self._history = History(self._facts.agents, self._facts.round_timeout_s)
                    if not is_first:
                        continue  # its rounds are another run's: from the first
                self._history.add([adapter.round_of(record) for record in records])
                self._is_read = len(self._history) >= self._closed(told)
                if self._is_read or self._now() > until_s:
                    break
            self._status, self._error = told, None
            self._is_ended = told["phase"] == "PHASE_ENDED"
            self._voters = frozenset(row["agent"] for row in told["agents"] if row["voted"])
            self._refusals = refusals_of(told["agents"])
        except (FedPGError, ValueError, KeyError, TypeError) as error:
            self._error, self._status, self._is_read = str(error), None, True
            self._ask_s = self._now() + ASK_AGAIN_S

    @staticmethod
    def _closed(told: Mapping[str, Any]) -> int:
        return int(told["latest"]["round"]) if told["latest"] else 0

    def _tell(self, after: int) -> dict[str, Any]:
        """Raises UnreachableError, RefusedError."""
        reply = fetch_status(self._address, self._access.tls, TIMEOUT_S, rounds_after=after)
        if reply.is_partial:
            raise RefusedError(NOT_OPERATOR)
        return to_plain(reply)

    def check(self) -> None:
        """Raise RefusedError if the server refuses; one that does not answer may come yet."""
        try:
            self._tell(0)
        except UnreachableError:
            return

    def _state(self, facts: Facts, trajectories: int) -> str:
        if trajectories >= facts.target:
            return "finished"
        return "live" if self._status is not None else "unfinished"

    def _why_ended(self) -> str | None:
        return None

    def _record(self, number: int) -> RoundRecord | None:
        try:
            texts = self._tell(number - 1)["records_json"]
        except (UnreachableError, RefusedError) as error:
            raise StorageError(str(error)) from error
        return RoundRecord.from_json(texts[0]) if texts else None

    def line(self) -> dict[str, Any]:
        """The run in a line, as the first page lists it."""
        run = self.state()
        if self._facts is None:
            return {"run": HERE, "state": "unreadable", "note": run["note"]}
        facts = self._facts
        return {
            "run": HERE, "state": run["state"], "task": facts.task, "algorithm": facts.federation.algorithm.label,
            "aggregator": facts.federation.aggregator.label if facts.federation.aggregator else None,
            "agents": facts.agents, "byzantine": len(facts.byzantine),
            "attack": " + ".join(sorted(set(facts.byzantine.values()))) or None, "seed": facts.seed,
            "rounds": run["rounds"], "trajectories": run["trajectories"], "trajectories_target": facts.target,
            "final_return": run["final"], "best_return": run["best"], "note": run["note"],
        }  # fmt: skip


def refusals_of(agents: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, int]]:
    """Submissions that were refused, by agent and why."""
    found: dict[int, dict[str, int]] = {}
    for row in agents:
        counts = {label_of(entry["verdict"]): int(entry["count"]) for entry in row["verdicts"]}
        fine = {verdict.label for verdict in FINE}
        if bad := {label: count for label, count in counts.items() if label not in fine}:
            found[int(row["agent"])] = bad
    return found


def label_of(name: str) -> str:
    """A verdict's label, by its name in the contract; a newer server may know others."""
    known = Verdict.__members__.get(str(name).removeprefix("VERDICT_"))
    return known.label if known else str(name)


class RemoteCatalogue(Catalogue):
    """The one run at an address."""

    def __init__(self, address: str, access: ServerAccess, now: Clock = time.monotonic) -> None:
        """Nothing is asked yet."""
        super().__init__(Path(address), access, now)
        self.remote = RemoteView(address, access, now)

    def home(self) -> dict[str, Any]:
        """The run."""
        return {"folder": str(self.folder), "runs": [self.remote.line()], "matrices": [], "error": None}

    def view(self, run: str) -> RunView:
        """The run, which has the name HERE. Raises StorageError for any other."""
        if run != HERE:
            raise StorageError(f"there is no run {run!r}: a server has one, which is called {HERE}")
        return self.remote

    def matrix(self, name: str) -> dict[str, Any]:
        """Raises StorageError: a server has none."""
        raise StorageError(f"there is no matrix {name!r}: watch the folder of the experiment instead of a server")
