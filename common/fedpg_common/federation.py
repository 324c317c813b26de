"""The description of a federation: one file that drives the local launcher, the server and the telemetry."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from fedpg_common.choices import Choice, parse_settings
from fedpg_common.errors import UsageError
from fedpg_common.shipped import (
    AGGREGATORS,
    ALGORITHM_BASELINES,
    ALGORITHM_TITLES,
    ALGORITHMS,
    ATTACKS,
    casts_honest_vote,
)
from fedpg_common.tasks import Task, find_task, is_number, is_whole, show, task_from_fields, task_to_fields

AGENTS_MAX = 10_000
SEED_MAX = 2**63 - 1
ROUND_TIMEOUT_MAX_S = 1e6
"""A timer takes no more than some weeks."""
ROUND_TIMEOUT_S = 120.0
DEFAULT_ATTACK = "random-noise"
DEFAULT_ALGORITHM = "fedpg-br"

FIELDS = (
    "task", "agents", "algorithm", "aggregator", "seed", "byzantine", "attack", "round_timeout_s", "modules",
    "module_folder",
)  # fmt: skip
"""What a description may contain, beside the fields of a task, which replace the task's own."""
TASK_FIELDS = tuple(field.name for field in dataclasses.fields(Task) if field.name not in ("name", "environment"))


@dataclasses.dataclass(frozen=True)
class Federation:
    """Who takes part in a run, and by which rules.

    Algorithm, aggregator and attacks are chosen by name (`fedpg_common.shipped`). `byzantine` maps a 1-based agent
    index to its attack. It configures agents and lets the telemetry score the filter; no aggregator ever sees it.
    """

    task: Task
    agents: int = 10
    algorithm: Choice = dataclasses.field(default_factory=lambda: Choice(DEFAULT_ALGORITHM))
    aggregator: Choice | None = None
    """None: the algorithm's own."""
    seed: int = 0
    byzantine: Mapping[int, Choice] = dataclasses.field(default_factory=dict)
    round_timeout_s: float = ROUND_TIMEOUT_S
    """A round closes at this age if a quorum has submitted."""
    modules: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False)
    """Version and digest of each module that is not FedPG's own, as the run was begun with it. Another version of a
    module does not make another federation: whether a run may be resumed with it is `check_fingerprints`' to say."""
    module_folder: str = dataclasses.field(default="", compare=False)
    """Where such modules lay when the run was described: beside the description, or in the working folder."""

    def __post_init__(self) -> None:
        """Refuse a federation that cannot run, with a sentence that says what to change."""
        if not (is_whole(self.agents) and 1 <= self.agents <= AGENTS_MAX):
            raise UsageError(f"a federation needs 1 to {AGENTS_MAX} agents, not {show(self.agents)}")
        outside = [index for index in self.byzantine if not 1 <= index <= self.agents]
        if outside:
            raise UsageError(f"agent {outside[0]} is to be Byzantine, but the agents are 1 to {self.agents}")
        if not (is_whole(self.seed) and 0 <= self.seed <= SEED_MAX):
            raise UsageError(f"the seed must be a whole number from 0 to 2**63 - 1, not {show(self.seed)}")
        if not (is_number(self.round_timeout_s) and 0 < self.round_timeout_s <= ROUND_TIMEOUT_MAX_S):
            raise UsageError(
                f"round_timeout_s must be a positive number of seconds up to {ROUND_TIMEOUT_MAX_S:.0f}, "
                f"not {show(self.round_timeout_s)}"
            )
        own_baseline = ALGORITHM_BASELINES.get(self.algorithm.name)
        if own_baseline is not None and not self.task.baseline:  # said here, so that agents are told with the task
            object.__setattr__(self, "task", dataclasses.replace(self.task, baseline=own_baseline))

    @property
    def quorum(self) -> int:
        """K − ⌊αK⌋: the submissions without which a round does not close."""
        return self.agents - self.task.tolerated(self.agents)

    @property
    def poisoners(self) -> frozenset[int]:
        """The agents that vote with a bad gradient: those that the filter is there to find."""
        return frozenset(agent for agent, attack in self.byzantine.items() if not casts_honest_vote(attack))

    @property
    def own_modules(self) -> tuple[str, ...]:
        """The modules of parts that do not come with FedPG, in alphabetical order."""
        choices = [self.algorithm, *([self.aggregator] if self.aggregator else []), *self.byzantine.values()]
        return tuple(sorted({module for choice in choices for module in choice.modules}))


def describe(task: str | Task, *, folder: Path | None = None, **fields: Any) -> Federation:
    """A federation from the fields of a description; those that are None are left out. Raises UsageError.

    `folder` is where modules that they name lie.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    if isinstance(task, Task):
        return federation_from_fields({**given, "task": task_to_fields(task)}, "", folder)
    return federation_from_fields({**given, "task": task}, "", folder)


def name_of(federation: Federation) -> str:
    """A name that says what the federation is, for example CartPole-v1_fedpg-br_K10_B3_random-noise.

    It is a folder's name: a slash in the task's name becomes a hyphen, like whatever else is neither letter nor digit.
    """
    parts = [federation.task.name, federation.algorithm.label]
    if federation.aggregator is not None:
        parts.append(federation.aggregator.label)
    parts.append(f"K{federation.agents}")
    if federation.byzantine:
        parts += [f"B{len(federation.byzantine)}", *sorted({attack.label for attack in federation.byzantine.values()})]
    return "_".join(re.sub(r"[^\w.+=-]+", "-", part) for part in parts)


def method_of(federation: Federation) -> str:
    """Algorithm, and aggregator where one is chosen, for people: "FedPG-BR", "SVRPG + krum faulty=3"."""
    algorithm = federation.algorithm
    title = ALGORITHM_TITLES.get(algorithm.name)
    name = algorithm.label if title is None else algorithm.label.replace(algorithm.name, title, 1)
    return f"{name} + {federation.aggregator.label}" if federation.aggregator else name


def federation_to_toml(federation: Federation) -> str:
    """The description as TOML; `federation_from_toml` is the inverse."""
    fields: dict[str, Any] = {
        "agents": federation.agents,
        "algorithm": federation.algorithm.to_plain(),
        "seed": federation.seed,
        "round_timeout_s": federation.round_timeout_s,
        "byzantine": {str(index): attack.to_plain() for index, attack in sorted(federation.byzantine.items())},
        "task": task_to_fields(federation.task),
    }
    if federation.aggregator is not None:
        fields["aggregator"] = federation.aggregator.to_plain()
    if federation.modules:
        fields["modules"] = dict(federation.modules)
    if federation.module_folder:
        fields["module_folder"] = federation.module_folder
    return tomli_w.dumps(fields)


def federation_from_toml(text: str, source: str, folder: Path | None = None) -> Federation:
    """The federation described in `text`; see `federation_from_fields`.

    Raises UsageError that names the `source` and the field.
    """
    try:
        return federation_from_fields(tomllib.loads(text), source, folder)
    except (ValueError, RecursionError) as error:  # the latter two: absurdly large
        raise UsageError(f"{source} is not TOML: {error}") from error


def read_federation(path: Path) -> Federation:
    """Read a description. Raises UsageError for an unreadable file or a bad field."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"federation file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"federation file {path} is not text: {error}") from error
    return federation_from_toml(text, f"federation file {path}", path.parent)


def federation_from_fields(fields: Mapping[str, Any], source: str, folder: Path | None = None) -> Federation:
    """A federation from plain fields: the one grammar of description files, commands, experiments and scenarios.

    `task` is a name, a task file (one beside the description, in `folder`, comes first) or a table with the fields of
    a task file; fields of a task beside it replace the task's own. `byzantine` is how many agents attack, from the
    first on, all with `attack`; or a table of agent = attack. Whatever is chosen by name is a name or a table of `name`
    and settings. Raises UsageError that names the `source` and the field.
    """
    prefix = f"{source}: " if source else ""
    unknown = sorted(set(fields) - {*FIELDS, *TASK_FIELDS})
    if unknown:
        raise UsageError(f"{prefix}unknown field {unknown[0]!r}")
    if "task" not in fields:
        raise UsageError(f"{prefix}the field 'task' is missing")
    plain = {name: fields[name] for name in ("agents", "seed", "round_timeout_s") if name in fields}
    try:
        federation = Federation(
            task=_task(fields, source, folder),
            algorithm=ALGORITHMS.parse(fields.get("algorithm", DEFAULT_ALGORITHM)),
            aggregator=AGGREGATORS.parse(fields["aggregator"]) if "aggregator" in fields else None,
            byzantine=_byzantine(fields),
            modules=_modules(fields.get("modules", {})),
            module_folder=_module_folder(fields.get("module_folder", ""), folder),
            **plain,
        )
        # Only who needs the folder tells it: a description is otherwise the same on every machine.
        return federation if federation.own_modules else dataclasses.replace(federation, module_folder="")
    except UsageError as error:
        raise UsageError(f"{prefix}{str(error).removeprefix(prefix)}") from error


def _task(fields: Mapping[str, Any], source: str, folder: Path | None) -> Task:
    task = fields["task"]
    overrides = {name: fields[name] for name in TASK_FIELDS if name in fields}
    if isinstance(overrides.get("hidden"), list):
        overrides["hidden"] = tuple(overrides["hidden"])
    if isinstance(task, Mapping):
        return dataclasses.replace(task_from_fields(task, source or "task"), **overrides)
    if not isinstance(task, str):
        raise UsageError(f"task must be a name or a table, not {show(task)}")
    is_beside = folder is not None and task.endswith(".toml") and (folder / task).is_file()
    return dataclasses.replace(find_task(str(folder / task) if is_beside and folder else task), **overrides)


def _byzantine(fields: Mapping[str, Any]) -> dict[int, Choice]:
    byzantine = fields.get("byzantine", {})
    attack = ATTACKS.parse(fields.get("attack", DEFAULT_ATTACK))
    if isinstance(byzantine, Mapping):
        if "attack" in fields and byzantine:
            raise UsageError("attack goes with a number of byzantine agents; a table gives each agent its own")
        return {_agent_index(index): ATTACKS.parse(own) for index, own in byzantine.items()}
    agents = fields.get("agents", 10)
    if not is_whole(byzantine):
        raise UsageError(f"byzantine must be a whole number or a table of agent = attack, not {show(byzantine)}")
    if is_whole(agents) and agents >= 1 and not 0 <= byzantine <= agents:
        raise UsageError(f"{byzantine} Byzantine agents do not fit in a federation of {agents}: choose 0 to {agents}")
    return dict.fromkeys(range(1, byzantine + 1), attack) if byzantine <= AGENTS_MAX else {}


def _modules(modules: object) -> dict[str, str]:
    if not isinstance(modules, Mapping) or not all(isinstance(value, str) for value in modules.values()):
        raise UsageError(f"modules must be a table of module = digest, not {show(modules)}")
    return dict(modules)


def _module_folder(given: object, folder: Path | None) -> str:
    if not isinstance(given, str) or not given.isprintable():
        raise UsageError(f"module_folder must be a folder, not {show(given)}")
    place = str((folder / given).resolve()) if folder is not None else given
    return place if place.isprintable() else ""


def _agent_index(key: str) -> int:
    if not (key.isascii() and key.isdecimal() and len(key) <= len(str(AGENTS_MAX))):
        raise UsageError(f"byzantine names agents by number, not {show(key)}")
    return int(key)


def with_settings(fields: Mapping[str, Any], pairs: Sequence[str]) -> dict[str, Any]:
    """Fields of a description with the settings of a command line, NAME=VALUE each.

    `aggregator.faulty=3`, `attack.z=1.2` and `algorithm.NAME` go to these parts, `task.gamma=0.9` to the task. A bare
    name goes to the aggregator or attack, if just one of them is among `fields`. Raises UsageError.
    """
    result = {name: value for name, value in fields.items() if value is not None}
    parts = {"aggregator": AGGREGATORS, "attack": ATTACKS, "algorithm": ALGORITHMS}
    defaults = {"attack": DEFAULT_ATTACK, "algorithm": DEFAULT_ALGORITHM}
    for pair in pairs:
        owner, dot, rest = pair.partition(".")
        if not dot or "=" in owner:
            owner, rest = _owner(result, pair), pair
        settings = parse_settings([rest])
        if owner == "task":
            unknown = sorted(set(settings) - set(TASK_FIELDS))
            if unknown:
                raise UsageError(f"--set {pair}: a task has no field {unknown[0]!r}; it has {', '.join(TASK_FIELDS)}")
            result.update(settings)
            continue
        if owner not in parts:
            raise UsageError(f"--set {pair}: settings belong to {', '.join(parts)} or task, not to {show(owner)}")
        if owner not in result and owner not in defaults:
            raise UsageError(f"--set {pair}: no {owner} is chosen: add --{owner} NAME")
        choice = parts[owner].parse(result.get(owner, defaults.get(owner)))
        result[owner] = choice.with_settings(settings).to_plain()
    return result


def _owner(fields: Mapping[str, Any], pair: str) -> str:
    owners = [name for name in ("aggregator", "attack") if name in fields]
    if not owners:
        raise UsageError(f"--set {pair}: neither an aggregator nor an attack is chosen that could have it")
    if len(owners) != 1:
        raise UsageError(f"--set {pair}: whose setting is it? Write aggregator.{pair}, attack.{pair} or task.{pair}")
    return owners[0]
