"""Trains the groups of an ensemble, each as a run of its own, one after the other."""

from __future__ import annotations

from pathlib import Path

from fedpg_common.federation import Federation
from fedpg_common.files import make_folder, write_whole
from fedpg_common.json_text import to_json
from fedpg_common.words import count
from rich.console import Console

from fedpg_lab.ensemble.evaluation import warning_of
from fedpg_lab.ensemble.groups import Grouping, Groups, captured, federation_of
from fedpg_lab.local.one_run import say, train_one
from fedpg_lab.local.train import TrainOptions

GROUPS_NAME = "groups.json"


def train_groups(
    federation: Federation, groups: Groups, grouping: Grouping, folder: Path, options: TrainOptions, console: Console
) -> None:
    """A run in `folder`/group-k for each group, and in groups.json who is in which. Raises as `train_one` does."""
    make_folder(folder)
    members = {f"group-{number}": list(group) for number, group in enumerate(groups, start=1)}
    write_whole(folder / GROUPS_NAME, to_json({"grouping": grouping.value, "groups": members}, indent=2) + "\n")
    say(console, f"Groups by {grouping.value}: {', '.join(str(len(group)) for group in groups)} agents"
                 f"{_described(federation, groups)}")  # fmt: skip
    warning = warning_of(federation.task.tolerated(federation.agents), len(groups))
    if warning is not None:
        say(console, f"Warning: {warning}")
    for number, group in enumerate(groups, start=1):
        one = federation_of(federation, group, number)
        title = f"{folder.name} group {number} of {len(groups)}"
        train_one(one, folder / f"group-{number}", options, console, title=title)
    say(console, f"Evaluate them together with: fedpg ensemble {folder}")


def _described(federation: Federation, groups: Groups) -> str:
    if not federation.byzantine:
        return ""
    lost = captured(federation, groups)
    return f"; {count(lost, 'group has', 'groups have')} more attackers than tolerated"
