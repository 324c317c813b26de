"""Experiments: a small TOML file that lists federations and seeds, and what has become of each run.

title = "Two methods"
description = "Text for the report."
seeds = 3                                # seeds 0, 1 and 2; or a list of them

[[federation]]                           # as many of these as wanted
task = ["CartPole-v1", "LunarLander-v3"] # a list stands for a federation with each of its values
algorithm = ["svrpg", "fedpg-br"]
aggregator = ["fedpg", { name = "krum", faulty = 3 }]    # the algorithm's own where it is left out
agents = 10
byzantine = 3
attack = "sign-flipping"
heterogeneity = { gravity = [8, 12] }    # ranges from which each agent's world is drawn; or a list of such tables
sigma = 0.1                              # any field of a task file, in place of the task's
round_timeout_s = 60.0                   # for attacks on the protocol; other rounds wait a day for a slow machine

[reproduction]                           # how the published curves came about
carry_adam = true                        # each seed's run starts with Adam's state of the seed before, finished
published_networks = true                # and with the network that the published code draws for that seed

[quick]                                  # what --quick changes
seeds = 1
trajectories = { CartPole-v1 = 300 }     # or one number for all tasks

In place of the federations there may be a [matrix], rules against attacks (`fedpg_lab.experiments.matrix`); with it,
[quick] may name the rows and attacks to keep, and another number of attackers (byzantine).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpg_common.checks import is_whole, refuse_unknown, show
from fedpg_common.descriptions import TASK_FIELDS, federation_from_fields
from fedpg_common.errors import StorageError, UsageError
from fedpg_common.federation import SEED_MAX, Federation, name_of
from fedpg_common.file_kinds import FileKind, require_kind
from fedpg_common.files import exists
from fedpg_server.storage.store import STORE_NAME

from fedpg_lab.experiments.matrix import Additions, Plan, combinations, plan_matrices
from fedpg_lab.files.toml_files import names_in, package_folder, read_toml, text_of
from fedpg_lab.runs.folders import RunData, load_run

FIELDS = ("title", "description", "seeds", "federation", "matrix", "reproduction", "quick")
REPRODUCTION_FIELDS = ("carry_adam", "published_networks")
QUICK_FIELDS = ("seeds", "trajectories")
QUICK_MATRIX_FIELDS = ("rows", "attacks", "byzantine")
FEDERATION_FIELDS = ("task", "algorithm", "aggregator", "agents", "byzantine", "attack", "round_timeout_s",
                     "environments", "heterogeneity", "speeds", "worlds_every")  # fmt: skip
PATIENT_S = 86_400.0
"""How long a round waits where every agent answers in the end, so that a loaded machine changes no result."""
SEEDS_MAX = 1000
RUNS_MAX = 10_000


@dataclass(frozen=True)
class PlannedRun:
    """One run of an experiment."""

    name: str
    """Where it belongs below the experiment's folder: FEDERATION/seed-S."""
    federation: Federation
    after: str | None = None
    """The run that must be complete before this one starts, which begins with its Adam state."""


@dataclass(frozen=True)
class Experiment:
    """What is to be run."""

    name: str
    """The file's name without its suffix; with `-quick` for the quick size."""
    title: str
    description: str
    runs: tuple[PlannedRun, ...]
    """By seed: with the first of them done there is a first picture of everything."""
    text: str
    """The file."""
    plan: Plan | None = None
    """Of its matrices, if it has a [matrix]."""


def shipped() -> list[str]:
    """The names of the experiments that come with FedPG."""
    return names_in(package_folder("experiments"))


def read_experiment(
    file: str,
    *,
    quick: bool = False,
    seeds: int | None = None,
    named: Additions | None = None,
    earlier: Additions | None = None,
) -> Experiment:
    """The experiment in a file, or the shipped one of that name. `seeds` counts them in place of the file's.

    A matrix gets the rows and attacks that the command has `named`, and those that were added `earlier`. Raises
    UsageError that names the file and the field.
    """
    text, fields = read_toml(file, "experiment", package_folder("experiments"))
    try:
        require_kind(fields, FileKind.EXPERIMENT, file)
        return _experiment(fields, Path(file), text, quick, seeds, named, earlier)
    except UsageError as error:
        raise UsageError(f"experiment {file}: {error}") from error


def name_of_experiment(file: str, quick: bool) -> str:
    """The experiment's name, which is its folder's."""
    return Path(file).stem + ("-quick" if quick else "")


def existing_run(folder: Path, planned: PlannedRun) -> RunData | None:
    """What there is of a run already, or None.

    Raises StorageError if the folder holds another run, or one that cannot be read.
    """
    place = folder / planned.name
    if not exists(place / STORE_NAME):
        return None
    run = load_run(place)
    if run.federation != planned.federation:
        raise StorageError(f"{place} holds a run with other settings than the experiment's: choose another --out")
    return run


def _experiment(
    fields: Mapping[str, Any],
    path: Path,
    text: str,
    quick: bool,
    seeds: int | None,
    named: Additions | None,
    earlier: Additions | None,
) -> Experiment:
    refuse_unknown(fields, FIELDS)
    changes = fields.get("quick", {}) if quick else {}
    if not isinstance(changes, Mapping):
        raise UsageError("quick must be a table")
    refuse_unknown(changes, (*QUICK_FIELDS, *(QUICK_MATRIX_FIELDS if "matrix" in fields else ())), " of [quick]")
    reproduced = _reproduced(fields.get("reproduction", {}))
    federations: dict[str, Federation] = {}

    def register(settings: dict[str, Any]) -> tuple[str, Federation]:
        source = "[matrix]" if "matrix" in fields else "[[federation]]"
        settings = {**settings, **reproduced}
        name, federation = _federation(settings, source, path.parent, changes.get("trajectories"))
        if federations.setdefault(name, federation) != federation:
            raise UsageError(f"two different federations would be named {name}")
        return name, federation

    plan = None
    if "matrix" in fields:
        if "federation" in fields:
            raise UsageError("an experiment has a [matrix] or a [[federation]], not both")
        plan = plan_matrices(fields["matrix"], changes, named or Additions(), earlier or Additions(), register)
    elif named is not None:
        raise UsageError("--aggregator, --algorithm, --attack and --set are for experiments with a [matrix]")
    else:
        for table in _tables(fields.get("federation")):
            for settings in combinations(table):
                register(settings)
    every_seed = _seeds(changes.get("seeds", fields.get("seeds", 1)) if seeds is None else seeds)
    if len(federations) * len(every_seed) > RUNS_MAX:
        raise UsageError(f"{len(federations) * len(every_seed)} runs are more than {RUNS_MAX}")
    return Experiment(
        name=name_of_experiment(path.name, quick),
        title=text_of(fields, "title", path.stem) + (" (quick size)" if quick else ""),
        description=text_of(fields, "description", ""),
        runs=tuple(
            _planned(name, federation, every_seed[: place + 1])
            for place in range(len(every_seed))
            for name, federation in federations.items()
        ),
        text=text,
        plan=plan,
    )


def _planned(name: str, federation: Federation, seeds: Sequence[int]) -> PlannedRun:
    """The run of the last of `seeds`. One that carries Adam over starts where the run of the seed before left it."""
    *before, seed = seeds
    if federation.adam_after is None:
        return PlannedRun(f"{name}/seed-{seed}", dataclasses.replace(federation, seed=seed))
    carrying = dataclasses.replace(federation, seed=seed, adam_after=tuple(before))
    return PlannedRun(f"{name}/seed-{seed}", carrying, f"{name}/seed-{before[-1]}" if before else None)


def _reproduced(table: object) -> dict[str, Any]:
    """What a [reproduction] adds to the description of each federation."""
    if not isinstance(table, Mapping):
        raise UsageError("reproduction must be a table")
    refuse_unknown(table, REPRODUCTION_FIELDS, " of [reproduction]")
    for name, value in table.items():
        if not isinstance(value, bool):
            raise UsageError(f"reproduction.{name} must be true or false, not {show(value)}")
    chain: dict[str, Any] = {"adam_after": []} if table.get("carry_adam") else {}
    return {**chain, "published_networks": True} if table.get("published_networks") else chain


def _tables(tables: object) -> Sequence[Mapping[str, Any]]:
    """The [[federation]] tables of a file."""
    if not isinstance(tables, list) or not tables or not all(isinstance(table, Mapping) for table in tables):
        raise UsageError("at least one [[federation]] is needed")
    for table in tables:
        refuse_unknown(table, (*FEDERATION_FIELDS, *TASK_FIELDS), " of [[federation]]")
        if "task" not in table:
            raise UsageError("a [[federation]] needs a task")
    return tables


def _federation(settings: dict[str, Any], source: str, folder: Path, quick_trajectories: Any) -> tuple[str, Federation]:
    """The federation with these settings, and its name."""
    federation = federation_from_fields(settings, source, folder)
    if "round_timeout_s" not in settings and len(federation.poisoners) == len(federation.byzantine):
        federation = dataclasses.replace(federation, round_timeout_s=PATIENT_S)
    apart = [
        f"{name}-{tuple(value) if isinstance(value, list) else value}"
        for name, value in settings.items()
        if name in TASK_FIELDS and name != "trajectories"
    ]
    name = "_".join([name_of(federation), *apart]).replace("/", "-").replace(" ", "")
    count = quick_trajectories
    if isinstance(count, Mapping):
        count = count.get(federation.task.name)
    if count is not None:
        quick_task = dataclasses.replace(federation.task, trajectories=count)
        federation = dataclasses.replace(federation, task=quick_task)
    return name, federation


def _seeds(value: object) -> Sequence[int]:
    seeds = range(value) if is_whole(value) and 0 <= value <= SEEDS_MAX else value
    if not isinstance(seeds, range | list) or not 1 <= len(seeds) <= SEEDS_MAX:
        raise UsageError(f"seeds must be how many, from 1 to {SEEDS_MAX}, or a list of seeds, not {show(value)}")
    if not all(is_whole(seed) and 0 <= seed <= SEED_MAX for seed in seeds) or len(set(seeds)) < len(seeds):
        raise UsageError(f"seeds must be different whole numbers from 0 to 2**63 - 1, not {show(value)}")
    return seeds
