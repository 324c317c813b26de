"""What a server says when its run has ended, for those who have nothing but its log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedpg_common.federation import Federation

from fedpg_server.learning.records import RoundRecord, final_return


def describe_end(
    federation: Federation, records: Sequence[RoundRecord], folder: Path, copy_hint: str | None
) -> list[str]:
    """The result in one line for each matter: return, verdicts, and where the run is.

    `copy_hint` is the command that copies `folder` to where the user is, with {folder} in its place.
    """
    last, final = records[-1], final_return(records)
    lines = [
        f"the run has ended: final return {'none' if final is None else f'{final:.1f}'} after {len(records)} rounds, "
        f"{last.trajectories_total}/{federation.task.trajectories} trajectories"
    ]
    if federation.poisoners and any(record.is_selective for record in records):
        poisoned = _accepted(records, federation.poisoners)
        honest = _accepted(records, frozenset(range(1, federation.agents + 1)) - federation.poisoners)
        lines.append(f"accepted {poisoned} gradients of Byzantine agents and {honest} of the others")
    hint = f"; copy it with: {copy_hint.replace('{folder}', str(folder))}" if copy_hint else ""
    return [*lines, f"the run is in {folder}{hint}"]


def _accepted(records: Sequence[RoundRecord], agents: frozenset[int]) -> str:
    """How many of these agents' gradients were accepted, for example "3 of 120"."""
    accepted = sum(len(agents.intersection(record.accepted)) for record in records)
    voted = accepted + sum(len(agents.intersection(record.filtered)) for record in records)
    return f"{accepted} of {voted}"
