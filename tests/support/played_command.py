"""A tiny scenario for the command, and a federation of it that is only played."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from fedpg_common.learning.parameters import digest
from fedpg_lab.faults.scenario import read_scenario
from fedpg_server.storage.rows import Ballot, VoteRow
from fedpg_server.storage.store import STORE_NAME, Store
from support.faults import PlayedFederation
from support.lab import write_run
from support.protocol import initial_state, make_round_record

TINY = """
title = "A tiny scenario"
at_most_s = 300
[federation]
task = "CartPole-v1"
agents = 3
trajectories = 1000
round_timeout_s = 1e5               # every round waits for everybody
[[fault]]
kind = "kill"
on = "1 agent"
at_round = 1
for_s = 0.5
"""


@dataclass
class StoredFederation(PlayedFederation):
    """A played federation of three that leaves a store of one round in the run folder. Each look takes it a second."""

    ends_s: float = 1.0
    leaves_s: float = 2.0
    has_store: bool = True

    def supervise(self) -> bool:
        """Let time pass."""
        self.now_s += 1.0
        return super().supervise()

    def finish(self, folder: Path) -> None:
        """Leave a run in which everybody voted."""
        super().finish(folder)
        if not self.has_store:
            return
        state = initial_state()
        record = make_round_record(1, trajectories_total=1000, accepted=(1, 2, 3), filtered=(), absent=(),
                                   parameters_digest=digest(state.theta))  # fmt: skip
        write_run(folder, read_scenario(str(folder.parent.parent / "tiny.toml")).federation, [record])
        store = Store.open(folder / STORE_NAME)
        store.commit([VoteRow(1, agent, bytes(32), Ballot(state.theta, b"")) for agent in (1, 2, 3)])
        store.close()


def is_one_sentence(error: str) -> bool:
    """Whether a command that failed said nothing but what is wrong."""
    return error.startswith("fedpg: ") and len(error.splitlines()) == 1


def outcomes(folder: Path) -> dict[str, str]:
    """Each invariant's outcome, from the JSON."""
    fields = json.loads((folder / "faults.json").read_text(encoding="utf-8"))
    return {finding["invariant"]: finding["outcome"] for finding in fields["invariants"]}
