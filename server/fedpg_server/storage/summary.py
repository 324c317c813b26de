"""A run in figures: what summary.json holds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedpg_common.federation import Federation
from fedpg_common.files import write_whole
from fedpg_common.json_text import to_json

from fedpg_server.learning.records import FINAL_FRACTION, RoundRecord, final_return, over_worlds

SUMMARY_NAME = "summary.json"
FINAL_RETURN_IS = f"mean of the evaluation returns over the last {100 * FINAL_FRACTION:.0f} % of the trajectories"


def summarize(
    name: str,
    federation: Federation,
    records: Sequence[RoundRecord],
    failure: str | None = None,
    failed_agents: Mapping[int, str] | None = None,
) -> dict[str, Any]:
    """The run in figures; `docs/runs.md` says what each is.

    `failure`: with what sentence it ended; `failed_agents`: why agents ended before the run did, by agent.
    """
    returns = [record.evaluation_return for record in records]
    last = records[-1] if records else None
    return {
        "name": name,
        "task": federation.task.name,
        "algorithm": federation.algorithm.label,
        "aggregator": federation.aggregator.label if federation.aggregator else None,
        "agents": federation.agents,
        "byzantine": {str(agent): attack.label for agent, attack in federation.byzantine.items()},
        "seed": federation.seed,
        "complete": is_complete(federation, records),
        "failure": failure,
        "failed_agents": {str(agent): why for agent, why in (failed_agents or {}).items()},
        "rounds": len(records),
        "trajectories": last.trajectories_total if last else 0,
        "trajectories_target": federation.task.trajectories,
        "sampled_trajectories": _totals([record.sampled_trajectories for record in records]),
        "environment_steps": _totals([record.environment_steps for record in records]),
        "final_return": final_return(records),
        "final_return_is": FINAL_RETURN_IS,
        "last_return": returns[-1] if returns else None,
        "best_return": max(filter(math.isfinite, returns), default=None),
        "worlds": _worlds(records),
        "rounds_by_rule": dict(Counter(record.rule for record in records)),
        "rounds_without_gradient": sum(not record.has_mu for record in records),
        "accepted_fraction_honest": _accepted_fraction(federation, records, byzantine=False),
        "accepted_fraction_byzantine": _accepted_fraction(federation, records, byzantine=True),
        "rounds_with_absent_agents": sum(bool(record.absent) for record in records),
        "skipped_steps": sum(record.skipped_steps for record in records),
        "seconds": sum(record.seconds for record in records),
        "parameters_digest": last.parameters_digest if last else None,
    }


def is_complete(federation: Federation, records: Sequence[RoundRecord]) -> bool:
    """Whether the run reached its trajectory count."""
    return bool(records) and records[-1].trajectories_total >= federation.task.trajectories


def write_summary(summary: dict[str, Any], folder: Path) -> None:
    """Write summary.json into `folder`. Raises StorageError."""
    write_whole(folder / SUMMARY_NAME, to_json(summary, indent=2) + "\n")


def _worlds(records: Sequence[RoundRecord]) -> dict[str, Any] | None:
    """The last evaluation in the agents' own worlds; None without any."""
    for record in reversed(records):
        if record.world_returns:
            figures = asdict(over_worlds(record.world_returns))
            returns = {str(agent): value for agent, value in record.world_returns.items()}
            return {"round": record.round_number, **figures, "returns": returns}
    return None


def _totals(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    totals: Counter[str] = Counter()
    for count in counts:
        totals.update(count)
    return dict(totals)


def _accepted_fraction(federation: Federation, records: Sequence[RoundRecord], byzantine: bool) -> float | None:
    """Accepted votes over votes, of those that vote with a bad gradient or of the others.

    Only of rounds whose rule selects whom it listens to; None without any.
    """
    accepted = voted = 0
    for record in records:
        if record.weights is None:
            continue
        for agent in record.accepted + record.filtered:
            if (agent in federation.poisoners) is byzantine:
                voted += 1
                accepted += agent in record.accepted
    return accepted / voted if voted else None
