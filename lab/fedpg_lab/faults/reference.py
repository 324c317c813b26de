"""The same federation without faults: whose parameters a run must have for as long as nobody was absent."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fedpg_client.attacks import Knowledge, knowledge_of
from fedpg_common.descriptions import federation_from_toml
from fedpg_common.errors import FedPGError
from fedpg_common.federation import Federation
from fedpg_common.machine import cores
from fedpg_server.learning.records import RoundRecord
from rich.console import Console

from fedpg_lab.faults.evidence import Evidence
from fedpg_lab.faults.invariants import Finding, Outcome, finding
from fedpg_lab.local.train import TrainOptions, train
from fedpg_lab.runs.folders import RunData
from fedpg_lab.terminal.console import make_console

NAME = "the parameters are those of a run without faults"
ROUND_TIMEOUT_S = 3600.0
"""The reference waits for everybody, however slow the machine."""
REFERENCE_NAME = "reference"

RunReference = Callable[[Federation], RunData]


def run_locally(folder: Path, console: Console) -> RunReference:
    """A reference with local processes, in `folder`."""

    def run(federation: Federation) -> RunData:
        options = TrainOptions(agents_per_process=math.ceil(federation.agents / cores()), observers=())
        return train(federation, folder, options, console, title="reference without faults")

    return run


def compare_with_reference(evidence: Evidence, run: RunReference | None) -> Finding:
    """Compare round by round up to the first with an absentee, or with an agent that stopped early for the deadline.

    A reference is run just so far.

    `run` is None where no reference is wanted. Raises FedPGError if the reference fails.
    """
    records = evidence.records
    comparable = _comparable(records, evidence.federation)
    why = ""
    if comparable < len(records):
        what = "were absent" if records[comparable].absent else "stopped early"
        why = f"agents {what} in round {comparable + 1}: the rounds from there are another run's"
    checked = f"{comparable} of {len(records)} rounds are comparable"
    if run is None:
        return Finding(NAME, Outcome.NOT_CHECKED, checked, "no reference was wanted")
    if any(knowledge_of(attack) >= Knowledge.COLLUDERS for attack in evidence.federation.byzantine.values()):
        return Finding(NAME, Outcome.NOT_CHECKED, checked, "colluding attackers pool what arrives in time")
    if not comparable:
        return Finding(NAME, Outcome.NOT_CHECKED, checked, why or "no round was closed")
    reference = run(reference_of(evidence.federation, records[comparable - 1].trajectories_total))
    theirs = {record.round_number: record.parameters_digest for record in reference.records}
    wrong = [
        f"round {record.round_number}"
        for record in records[:comparable]
        if theirs.get(record.round_number) != record.parameters_digest
    ]
    compared = finding(NAME, f"{comparable} of {len(records)} rounds, bit for bit", wrong)
    return compared if wrong else replace(compared, detail=why)


def reference_of(federation: Federation, trajectories: int) -> Federation:
    """The federation, run as far as `trajectories`, and patient."""
    return replace(
        federation, task=replace(federation.task, trajectories=trajectories), round_timeout_s=ROUND_TIMEOUT_S
    )


def _comparable(records: Sequence[RoundRecord], federation: Federation) -> int:
    """How many rounds there are before the first with an absentee, or with a vote of fewer trajectories than asked."""
    return next((i for i, record in enumerate(records) if record.absent or _is_cut(record, federation)), len(records))


def _is_cut(record: RoundRecord, federation: Federation) -> bool:
    counts = record.vote_trajectories or {}
    return federation.speeds.may_cut and any(
        count < federation.speed_of(agent).most(record.batch_size) for agent, count in counts.items()
    )


def main() -> None:
    """Run the federation whose description is on standard input in a folder: python -m ... FOLDER < FILE."""
    try:
        federation = federation_from_toml(sys.stdin.read(), "the description")
        run_locally(Path(sys.argv[1]), make_console(stderr=True))(federation)
    except FedPGError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
