"""Scenarios: a small TOML file with a federation, and what goes wrong with it when.

title = "A majority is cut off"
description = "Text for the report."
seed = 0                        # of the federation, and of who is hit
at_most_s = 600                 # the whole scenario ends after that long, whatever happens

[federation]                    # as in a federation file: the options of `fedpg train`
task = "CartPole-v1"
agents = 10
byzantine = 3
attack = "sign-flipping"
trajectories = 600              # any field of a task file, in place of the task's
round_timeout_s = 5.0

[[fault]]                       # as many of these as wanted
kind = "partition"              # kill, stop, restart, pause, partition, black-hole, latency, bandwidth, loss,
                                # corruption, reset, slow-cpu
split = "majority"              # or isolate-one, minority, server-alone; other kinds, and partition too, take `on`:
                                # "server", [3, 4], "2 agents", "1 honest", "all byzantine"
at_round = 5                    # when that round is open; or at_s = 10.0, counted from the first round's opening
for_s = 20.0                    # or for_rounds = 3, which at_most_s bounds (60 s): a fault may keep rounds from closing
times = 3                       # again, on the same targets,
every_s = 30.0                  # each so long after the last; or every_rounds
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedpg_common.checks import is_number, is_whole, refuse_unknown, show
from fedpg_common.descriptions import federation_from_fields
from fedpg_common.errors import UsageError
from fedpg_common.federation import SEED_MAX, Federation
from fedpg_common.file_kinds import FileKind, require_kind
from fedpg_common.learning.streams import Purpose, Role, stream

from fedpg_lab.faults.backend import FaultKind
from fedpg_lab.faults.entries import TIME_MAX_S, plan_entry
from fedpg_lab.faults.timeline import PlannedFault
from fedpg_lab.files.toml_files import names_in, package_folder, read_toml, text_of

FIELDS = ("title", "description", "seed", "at_most_s", "federation", "fault")
FAULTS_MAX = 1000
AT_MOST_S = 1800.0
SCENARIOS = ("faults", "scenarios")


@dataclass(frozen=True)
class Scenario:
    """What is to happen, with all random choices made."""

    name: str
    """The file's name without its suffix."""
    title: str
    description: str
    seed: int
    federation: Federation
    planned: tuple[PlannedFault, ...]
    """In the file's order."""
    at_most_s: float
    """The whole scenario's wall-clock bound."""
    text: str
    """The file."""

    @property
    def kinds(self) -> frozenset[FaultKind]:
        """The kinds of fault that occur."""
        return frozenset(planned.fault.kind for planned in self.planned)


def shipped() -> list[str]:
    """The names of the scenarios that come with FedPG."""
    return names_in(package_folder(*SCENARIOS))


def read_scenario(file: str, seed: int | None = None) -> Scenario:
    """The scenario in a file, or the shipped one of that name. `seed` replaces the file's, and the federation's.

    Raises UsageError that names the file and the field.
    """
    text, fields = read_toml(file, "scenario", package_folder(*SCENARIOS))
    try:
        require_kind(fields, FileKind.SCENARIO, file)
        return _scenario(fields, Path(file), text, seed)
    except UsageError as error:
        raise UsageError(f"scenario {file}: {error}") from error


def _scenario(fields: Mapping[str, Any], path: Path, text: str, seed: int | None) -> Scenario:
    refuse_unknown(fields, FIELDS)
    chosen_seed = fields.get("seed", 0) if seed is None else seed
    if not is_whole(chosen_seed) or not 0 <= chosen_seed <= SEED_MAX:
        raise UsageError(f"seed must be a whole number from 0 to 2**63 - 1, not {show(chosen_seed)}")
    at_most_s = fields.get("at_most_s", AT_MOST_S)
    if not is_number(at_most_s) or not 1 <= at_most_s <= TIME_MAX_S:
        raise UsageError(f"at_most_s must be a number from 1 to {TIME_MAX_S:g}, not {show(at_most_s)}")
    table = fields.get("federation")
    if not isinstance(table, Mapping):
        raise UsageError("a [federation] is needed")
    federation = federation_from_fields({"seed": chosen_seed, **table}, "[federation]", path.parent)
    if seed is not None:
        federation = replace(federation, seed=seed)
    return Scenario(
        name=path.stem,
        title=text_of(fields, "title", path.stem),
        description=text_of(fields, "description", ""),
        seed=chosen_seed,
        federation=federation,
        planned=tuple(_planned(fields.get("fault", []), federation, chosen_seed)),
        at_most_s=float(at_most_s),
        text=text,
    )


def _planned(entries: object, federation: Federation, seed: int) -> list[PlannedFault]:
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise UsageError("fault must be written as [[fault]]")
    planned: list[PlannedFault] = []
    for index, entry in enumerate(entries, start=1):
        # A stream for each entry: changing one leaves the others' targets as they are.
        draw = stream(seed, Role.FAULTS, Purpose.TARGETS, step=index)
        try:
            planned += plan_entry(entry, federation, draw, len(planned) + 1)
        except UsageError as error:
            raise UsageError(f"fault {index}: {error}") from error
        if len(planned) > FAULTS_MAX:
            raise UsageError(f"more than {FAULTS_MAX} faults are planned")
    return planned
