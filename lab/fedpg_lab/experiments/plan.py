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

[quick]                                  # what --quick changes
seeds = 1
trajectories = { CartPole-v1 = 300 }     # or one number for all tasks
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpg_common.errors import StorageError, UsageError
from fedpg_common.federation import SEED_MAX, TASK_FIELDS, Federation, federation_from_fields, name_of
from fedpg_common.files import exists
from fedpg_common.tasks import is_whole, show
from fedpg_server.storage.store import STORE_NAME

from fedpg_lab.files.toml_files import names_in, package_folder, read_toml, refuse_unknown, text_of
from fedpg_lab.runs.folders import RunData, load_run

FIELDS = ("title", "description", "seeds", "federation", "quick")
QUICK_FIELDS = ("seeds", "trajectories")
FEDERATION_FIELDS = ("task", "algorithm", "aggregator", "agents", "byzantine", "attack", "round_timeout_s",
                     "environments", "heterogeneity", "evaluate_worlds_every")  # fmt: skip
LISTS_THEMSELVES = ("hidden", "wrappers")
"""Fields whose value is a list, which does not stand for several federations."""
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


def shipped() -> list[str]:
    """The names of the experiments that come with FedPG."""
    return names_in(package_folder("experiments"))


def read_experiment(file: str, *, quick: bool = False, seeds: int | None = None) -> Experiment:
    """The experiment in a file, or the shipped one of that name. `seeds` counts them in place of the file's.

    Raises UsageError that names the file and the field.
    """
    text, fields = read_toml(file, "experiment", package_folder("experiments"))
    try:
        return _experiment(fields, Path(file), text, quick, seeds)
    except UsageError as error:
        raise UsageError(f"experiment {file}: {error}") from error


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


def _experiment(fields: Mapping[str, Any], path: Path, text: str, quick: bool, seeds: int | None) -> Experiment:
    refuse_unknown(fields, FIELDS, "")
    changes = fields.get("quick", {}) if quick else {}
    if not isinstance(changes, Mapping):
        raise UsageError("quick must be a table")
    refuse_unknown(changes, QUICK_FIELDS, "quick.")
    tables = fields.get("federation")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, Mapping) for table in tables):
        raise UsageError("at least one [[federation]] is needed")
    federations: dict[str, Federation] = {}
    for settings in itertools.chain.from_iterable(map(_combinations, tables)):
        name, federation = _federation(settings, path.parent, changes.get("trajectories"))
        if federations.setdefault(name, federation) != federation:
            raise UsageError(f"two different federations would be named {name}")
    every_seed = _seeds(changes.get("seeds", fields.get("seeds", 1)) if seeds is None else seeds)
    if len(federations) * len(every_seed) > RUNS_MAX:
        raise UsageError(f"{len(federations) * len(every_seed)} runs are more than {RUNS_MAX}")
    return Experiment(
        name=path.stem + ("-quick" if quick else ""),
        title=text_of(fields, "title", path.stem) + (" (quick size)" if quick else ""),
        description=text_of(fields, "description", ""),
        runs=tuple(
            PlannedRun(f"{name}/seed-{seed}", dataclasses.replace(federation, seed=seed))
            for seed in every_seed
            for name, federation in federations.items()
        ),
        text=text,
    )


def _combinations(table: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every choice of one value from each list."""
    refuse_unknown(table, (*FEDERATION_FIELDS, *TASK_FIELDS), "federation.")
    if "task" not in table:
        raise UsageError("a [[federation]] needs a task")
    choices = [
        value if isinstance(value, list) and name not in LISTS_THEMSELVES else [value] for name, value in table.items()
    ]
    for values in itertools.product(*choices):
        yield dict(zip(table, values, strict=True))


def _federation(settings: dict[str, Any], folder: Path, quick_trajectories: Any) -> tuple[str, Federation]:
    """The federation with these settings, and its name."""
    federation = federation_from_fields(settings, "[[federation]]", folder)
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
