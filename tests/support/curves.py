"""Runs of a few rounds, made by hand, to draw figures of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedpg_common.descriptions import describe
from fedpg_common.federation import Federation
from fedpg_lab.runs.folders import RunData
from fedpg_server.learning.records import RoundRecord
from support.protocol import make_round_record


def records(counts: Sequence[int], returns: Sequence[float]) -> list[RoundRecord]:
    """Rounds that end at these counts of trajectories with these returns."""
    return [
        make_round_record(number, trajectories_total=count, evaluation_returns=(value,))
        for number, (count, value) in enumerate(zip(counts, returns, strict=True), start=1)
    ]


def run_of(federation: Federation, counts: Sequence[int], returns: Sequence[float]) -> RunData:
    """A run of these rounds."""
    return RunData(Path(f"seed-{federation.seed}"), federation, records(counts, returns))


def cartpole(agents: int = 5, seed: int = 0, **changes: object) -> Federation:
    """A small federation, or what is changed of it."""
    fields: dict[str, Any] = {"agents": agents, "seed": seed, "trajectories": 40, **changes}
    return describe("CartPole-v1", **fields)
