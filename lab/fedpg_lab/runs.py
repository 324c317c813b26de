"""Run folders: reading them back and summing them up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpg_common.errors import StorageError
from fedpg_common.federation import Federation, federation_from_toml
from fedpg_common.json_text import to_json
from fedpg_server import records as round_records
from fedpg_server.records import RoundRecord
from fedpg_server.store import STORE_NAME, Store

SUMMARY_NAME = "summary.json"
PLOT_NAME = "returns.png"


@dataclass(frozen=True)
class RunData:
    """What a run folder says of its run."""

    folder: Path
    federation: Federation
    records: list[RoundRecord]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def is_complete(self) -> bool:
        """Whether the run reached its trajectory count."""
        return bool(self.records) and self.records[-1].trajectories_total >= self.federation.task.trajectories


def load_run(folder: Path) -> RunData:
    """Read a run folder, also of a run that goes on. Raises StorageError."""
    store = Store.read(folder / STORE_NAME)
    try:
        return RunData(folder, federation_from_toml(store.description, f"the store {store.path}"), store.records())
    finally:
        store.close()


def summarize(run: RunData) -> dict[str, Any]:
    """The run in figures, JSON-ready."""
    federation, records = run.federation, run.records
    return {
        "name": run.name,
        "task": federation.task.name,
        "algorithm": federation.algorithm.value,
        "agents": federation.agents,
        "byzantine": {str(agent): attack.value for agent, attack in federation.byzantine.items()},
        "seed": federation.seed,
        "complete": run.is_complete,
        "rounds": len(records),
        "trajectories": records[-1].trajectories_total if records else 0,
        "sampled_trajectories": _totals(records, "sampled_trajectories"),
        "environment_steps": _totals(records, "environment_steps"),
        "final_return": final_return(run),
        "best_return": round_records.best_return(records),
        "rounds_by_rule": dict(Counter(record.rule for record in records)),
        "accepted_fraction_honest": _accepted_fraction(run, byzantine=False),
        "accepted_fraction_byzantine": _accepted_fraction(run, byzantine=True),
        "rounds_with_absent_agents": sum(bool(record.absent) for record in records),
        "skipped_steps": sum(record.skipped_steps for record in records),
        "seconds": sum(record.seconds for record in records),
        "parameters_digest": records[-1].parameters_digest if records else None,
    }


def write_summary(run: RunData, failed_agents: Mapping[int, str] | None = None) -> dict[str, Any]:
    """Write summary.json into the run folder and return it. Raises StorageError.

    `failed_agents` says, by agent, why it ended before the run did.
    """
    summary = summarize(run)
    summary["failed_agents"] = {str(agent): why for agent, why in (failed_agents or {}).items()}
    path = run.folder / SUMMARY_NAME
    try:
        path.write_text(to_json(summary, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
    return summary


def final_return(run: RunData) -> float | None:
    """Mean evaluation return over the last 5 % of trajectories, as the figures are read; None where there is none."""
    return round_records.final_return(run.records)


def trajectories_to_reach(run: RunData, target: float) -> int | None:
    """Trajectory count of the first round whose evaluation return reaches `target`, or None."""
    reached = (record.trajectories_total for record in run.records if record.evaluation_return >= target)
    return next(reached, None)


def _totals(records: list[RoundRecord], field: str) -> dict[str, int]:
    totals: Counter[str] = Counter()
    for record in records:
        totals.update(getattr(record, field))
    return dict(totals)


def _accepted_fraction(run: RunData, byzantine: bool) -> float | None:
    """Accepted votes over votes, of those that vote with a bad gradient or of the others."""
    accepted = voted = 0
    for record in run.records:
        for agent in record.accepted + record.filtered:
            if (agent in run.federation.poisoners) is byzantine:
                voted += 1
                accepted += agent in record.accepted
    return accepted / voted if voted else None
