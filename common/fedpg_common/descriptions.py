"""Descriptions of federations: plain fields, as TOML, the command line and experiments write them."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from fedpg_common.checks import is_whole, refuse_unknown, show, unknown
from fedpg_common.choices import Choice, parse_settings
from fedpg_common.errors import UsageError
from fedpg_common.federation import (
    AGENTS_MAX,
    DEFAULT_ALGORITHM,
    Federation,
)
from fedpg_common.file_kinds import FileKind, require_kind
from fedpg_common.shipped import (
    AGGREGATORS,
    ALGORITHMS,
    ATTACKS,
)
from fedpg_common.speeds import Speeds, speeds_from_plain, with_speed_setting
from fedpg_common.tasks import Task, find_task, reward_from_plain, task_from_fields, task_to_fields, wrappers_from_plain
from fedpg_common.worlds import (
    World,
    heterogeneity_from_plain,
    world_from_plain,
    world_from_settings,
)

DEFAULT_ATTACK = "random-noise"
FIELDS = (
    "task", "agents", "algorithm", "aggregator", "seed", "byzantine", "attack", "round_timeout_s", "environments",
    "heterogeneity", "speeds", "worlds_every",
)  # fmt: skip
"""What people write in a description, beside the fields of a task, which replace the task's own."""
RECORDED = ("modules", "module_folder", "adam_after", "adam_digest", "published_networks")
"""What a run's own description says beside that."""
TASK_FIELDS = tuple(field.name for field in dataclasses.fields(Task) if field.name not in ("name", "environment"))


def describe(task: str | Task, *, folder: Path | None = None, **fields: Any) -> Federation:
    """A federation from the fields of a description; those that are None are left out. Raises UsageError.

    `folder` is where modules that they name lie.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    if isinstance(task, Task):
        return federation_from_fields({**given, "task": task_to_fields(task)}, "", folder)
    return federation_from_fields({**given, "task": task}, "", folder)


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
    if federation.environments:
        worlds = sorted(federation.environments.items())
        fields["environments"] = {str(index): world.to_plain() for index, world in worlds}
    if federation.heterogeneity is not None:
        fields["heterogeneity"] = federation.heterogeneity.to_plain()
    if federation.speeds:
        fields["speeds"] = federation.speeds.to_plain()
    if federation.worlds_every:
        fields["worlds_every"] = federation.worlds_every
    if federation.modules:
        fields["modules"] = dict(federation.modules)
    if federation.module_folder:
        fields["module_folder"] = federation.module_folder
    if federation.adam_after is not None:
        fields["adam_after"] = list(federation.adam_after)
    if federation.adam_digest:
        fields["adam_digest"] = federation.adam_digest
    if federation.published_networks:
        fields["published_networks"] = True
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
    return federation_from_fields(read_fields(path), f"federation file {path}", path.parent)


def read_fields(path: Path) -> dict[str, Any]:
    """A description's fields, as its file has them. Raises UsageError for a file that is unreadable or another kind."""
    source = f"federation file {path}"
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{source} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{source} is not text: {error}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{source} is not TOML: {error}") from error
    try:
        require_kind(fields, FileKind.FEDERATION, str(path))
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from error
    return fields


def federation_from_fields(fields: Mapping[str, Any], source: str, folder: Path | None = None) -> Federation:
    """A federation from plain fields: the one grammar of description files, commands, experiments and scenarios.

    `task` is a name, a task file (one beside the description, in `folder`, comes first) or a table with the fields of
    a task file; fields of a task beside it replace the task's own. `byzantine` is how many agents attack, from the
    first on, all with `attack`; or a table of agent = attack. `environments` is a table of agent = what its environment
    has of its own, and `heterogeneity` one of ranges from which that is drawn for all; `speeds` says how much they
    sample. Whatever is chosen by name is a name or a table of `name` and settings. Raises UsageError that names the
    `source` and the field.
    """
    prefix = f"{source}: " if source else ""
    refuse_unknown((name for name in fields if name not in RECORDED), (*FIELDS, *TASK_FIELDS), "", prefix)
    if "task" not in fields:
        raise UsageError(f"{prefix}the field 'task' is missing")
    plain = {name: fields[name] for name in ("agents", "seed", "round_timeout_s", "worlds_every") if name in fields}
    try:
        federation = Federation(
            task=_task(fields, source, folder),
            algorithm=ALGORITHMS.parse(fields.get("algorithm", DEFAULT_ALGORITHM)),
            aggregator=AGGREGATORS.parse(fields["aggregator"]) if "aggregator" in fields else None,
            byzantine=_byzantine(fields),
            environments=_environments(fields.get("environments", {})),
            heterogeneity=heterogeneity_from_plain(fields["heterogeneity"]) if fields.get("heterogeneity") else None,
            speeds=speeds_from_plain(fields["speeds"]) if "speeds" in fields else Speeds(),
            modules=_modules(fields.get("modules", {})),
            module_folder=_module_folder(fields.get("module_folder", ""), folder),
            adam_after=_seeds(fields.get("adam_after")),
            adam_digest=_digest(fields.get("adam_digest", "")),
            published_networks=_is_true("published_networks", fields.get("published_networks", False)),
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
    if "wrappers" in overrides:
        overrides["wrappers"] = wrappers_from_plain(overrides["wrappers"])
    if "reward" in overrides:
        overrides["reward"] = reward_from_plain(overrides["reward"])
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


def _environments(environments: object) -> dict[int, World]:
    if not isinstance(environments, Mapping):
        raise UsageError(f"environments must be a table of agent = its world, not {show(environments)}")
    worlds = {}
    for index, fields in environments.items():
        try:
            worlds[_agent_index(index, "environments")] = world_from_plain(fields)
        except UsageError as error:
            raise UsageError(f"environments.{index}: {error}") from error
    return worlds


def _modules(modules: object) -> dict[str, str]:
    if not isinstance(modules, Mapping) or not all(isinstance(value, str) for value in modules.values()):
        raise UsageError(f"modules must be a table of module = digest, not {show(modules)}")
    return dict(modules)


def _module_folder(given: object, folder: Path | None) -> str:
    if not isinstance(given, str) or not given.isprintable():
        raise UsageError(f"module_folder must be a folder, not {show(given)}")
    place = str((folder / given).resolve()) if folder is not None else given
    return place if place.isprintable() else ""


def _seeds(given: object) -> tuple[int, ...] | None:
    if given is not None and not isinstance(given, list | tuple):
        raise UsageError(f"adam_after must be a list of seeds, not {show(given)}")
    return None if given is None else tuple(given)


def _is_true(name: str, given: object) -> bool:
    if not isinstance(given, bool):
        raise UsageError(f"{name} must be true or false, not {show(given)}")
    return given


def _digest(given: object) -> str:
    if not isinstance(given, str) or not re.fullmatch("[0-9a-f]*", given):
        raise UsageError(f"adam_digest must be a digest in hexadecimal, not {show(given)}")
    return given


def _agent_index(key: str, field: str = "byzantine") -> int:
    if not (key.isascii() and key.isdecimal() and len(key) <= len(str(AGENTS_MAX))):
        raise UsageError(f"{field} names agents by number, not {show(key)}")
    return int(key)


def with_settings(fields: Mapping[str, Any], pairs: Sequence[str]) -> dict[str, Any]:
    """Fields of a description with the settings of a command line, NAME=VALUE each.

    `aggregator.faulty=3`, `attack.z=1.2` and `algorithm.NAME` go to these parts, `task.gamma=0.9` to the task,
    `heterogeneity.gravity=[8,12]` and `heterogeneity.reward.noise=[0,1]` to the ranges from which worlds are drawn,
    `environments.3.gravity=9` to agent 3's own world, `speeds.trajectories=[4,16]` and `speeds.3.trajectories=4` to how
    much is sampled. A bare name goes to the aggregator or attack, if just one of them is among `fields`. Raises
    UsageError.
    """
    result = {name: value for name, value in fields.items() if value is not None}
    parts = {"aggregator": AGGREGATORS, "attack": ATTACKS, "algorithm": ALGORITHMS}
    defaults = {"attack": DEFAULT_ATTACK, "algorithm": DEFAULT_ALGORITHM}
    for pair in pairs:
        owner, dot, rest = pair.partition(".")
        if not dot or "=" in owner:
            owner, rest = _owner(result, pair), pair
        if owner in ("heterogeneity", "environments"):
            result[owner] = _with_world_setting(owner, result.get(owner, {}), rest, pair)
            continue
        if owner == "speeds":
            result[owner] = with_speed_setting(result.get(owner, {}), rest, pair)
            continue
        settings = parse_settings([rest])
        if owner == "task":
            refuse_unknown(settings, TASK_FIELDS, " of the task", f"--set {pair}: ")
            result.update(settings)
            continue
        if owner not in parts:
            error = unknown("owner of a setting", owner, (*parts, "heterogeneity", "environments", "speeds", "task"))
            raise UsageError(f"--set {pair}: {error}")
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


def _with_world_setting(owner: str, table: object, rest: str, pair: str) -> dict[str, Any]:
    """The table of ranges or of worlds with one more setting."""
    if not isinstance(table, Mapping):
        raise UsageError(f"--set {pair}: {owner} must be a table, not {show(table)}")
    agent = ""
    if owner == "environments":
        agent, _, rest = rest.partition(".")
        given = dict(table)
        if not agent.isdecimal():
            raise UsageError(f"--set {pair}: say whose environment it is, as in environments.3.gravity=9")
        try:
            return {**given, agent: world_from_settings([rest]).over(world_from_plain(given.get(agent, {}))).to_plain()}
        except UsageError as error:
            raise UsageError(f"--set {pair}: {error}") from error
    if rest.startswith("reward."):
        reward = {**table.get("reward", {}), **parse_settings([rest.removeprefix("reward.")])}
        return {**table, "reward": reward}
    return {**table, **parse_settings([rest])}
