"""What a Compose file tells the server and each agent of a federation, in its environment."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from fedpg_common.checks import show
from fedpg_common.choices import Choice
from fedpg_common.derived_seeds import attackers_secret
from fedpg_common.errors import UsageError
from fedpg_common.federation import Federation
from fedpg_common.shipped import acts_alone
from fedpg_common.tasks import TASKS

RING_PORT = 50052
PLAIN_SETTING = re.compile(r"[\w.+,\[\]:-]+", re.ASCII)
"""Values of settings that need no quoting anywhere in a Compose file."""
PLAIN_PATH = re.compile(r"[\w./-]+", re.ASCII)
"""Paths that need no quoting anywhere in a Compose file."""


def common_attack(federation: Federation) -> Choice | None:
    """What the Byzantine agents do; None without any. Raises UsageError if they do different things."""
    attacks: list[Choice] = []
    for attack in federation.byzantine.values():
        if attack not in attacks:
            attacks.append(attack)
    if len(attacks) > 1:
        labels = " and ".join(sorted(attack.label for attack in attacks))
        raise UsageError(f"a Compose file has one attack for all Byzantine agents, not {labels}")
    return attacks[0] if attacks else None


def common_settings(federation: Federation, attack: Choice | None) -> str:
    """The settings of algorithm, aggregator and attack, as FEDPG_SET has them. Raises UsageError."""
    parts = {"algorithm": federation.algorithm, "aggregator": federation.aggregator, "attack": attack}
    settings = [
        (owner, name, value)
        for owner, choice in parts.items()
        if choice is not None
        for name, value in choice.settings.items()
    ]
    return _joined(settings)


def _joined(settings: Iterable[tuple[str, str, object]]) -> str:
    return " ".join(f"{owner}.{name}={_plain_setting(owner, name, value)}" for owner, name, value in settings)


def settings_of_worlds(federation: Federation) -> str:
    """The settings of the agents' worlds and speeds, which the server alone gets to see. Raises UsageError."""
    settings: list[tuple[str, str, object]] = []
    if federation.heterogeneity is not None:
        settings += [("heterogeneity", name, list(bounds)) for name, bounds in federation.heterogeneity.ranges.items()]
        if federation.heterogeneity.spread != 1.0:
            settings.append(("heterogeneity", "spread", federation.heterogeneity.spread))
    for agent, world in sorted(federation.environments.items()):
        owner = f"environments.{agent}"
        settings += [(owner, name, value) for name, value in world.environment_options.items()]
        settings += [(owner, f"reward.{name}", value) for name, value in world.reward.items()]
        if world.wrappers is not None:
            wrappers = list(world.wrappers)
            settings.append((owner, "wrappers", wrappers[0] if len(wrappers) == 1 else wrappers))
    for name, value in federation.speeds.to_plain().items():
        own = isinstance(value, dict)
        settings += [(f"speeds.{name}", *item) for item in value.items()] if own else [("speeds", name, value)]
    return _joined(settings)


def _plain_setting(owner: str, name: str, value: object) -> str:
    """A setting's value in TOML. Raises UsageError for one that would need quoting in a Compose file."""
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    if not PLAIN_SETTING.fullmatch(text):
        raise UsageError(
            f"a Compose file cannot hold the setting {owner}.{name} = {show(value)}: use numbers, words and lists"
        )
    return text


def server_defaults(federation: Federation, task_file: str | None, attack: Choice | None) -> dict[str, object]:
    """The server's settings by name, with the description's values; empty where the task's own value stands."""
    task = federation.task
    published = TASKS.get(task.name)
    defaults: dict[str, object] = {
        "TASK": task_target(task_file) if task_file else task.name,
        "ALGORITHM": federation.algorithm.name,
        "SEED": federation.seed,
        "ROUND_TIMEOUT": federation.round_timeout_s,
    }
    for name in ("trajectories", "sigma", "alpha"):
        value = getattr(task, name)
        # Left to the task where it is the task's own, so that TASK=... brings its own values along.
        defaults[name.upper()] = "" if published and getattr(published, name) == value else value
    if federation.aggregator is not None:
        defaults["AGGREGATOR"] = federation.aggregator.name
    if attack:
        defaults["ATTACK"] = attack.name
    if federation.worlds_every:
        defaults["WORLDS_EVERY"] = federation.worlds_every
    if settings := common_settings(federation, attack):
        defaults["SET"] = settings
    if worlds := settings_of_worlds(federation):
        defaults["WORLDS"] = worlds
    return defaults


def server_settings(federation: Federation, task_file: str | None, attack: Choice | None) -> list[str]:
    """The server's settings as lines of YAML, each with the description's value as its default."""
    defaults = server_defaults(federation, task_file, attack)
    worlds = defaults.pop("WORLDS", "")
    own = defaults.pop("SET", "")
    lines = [f"      FEDPG_{name}: ${{{name}:-{value}}}" for name, value in defaults.items()]
    if own or worlds:
        parts = [f"${{SET:-{own}}}", *([f"${{WORLDS:-{worlds}}}"] if worlds else [])]
        lines.append(f"      FEDPG_SET: {' '.join(parts)}")
    return lines


def told_of_the_rest(federation: Federation, attack: Choice) -> list[str]:
    """What an attack is told of the others and of the server, if it knows more than its own agent does."""
    if acts_alone(attack):
        return []
    from fedpg_client.attacks import Knowledge, knowledge_of  # with all that an agent computes with

    from fedpg_lab.local.agent_setup import rule_of

    lines, knowledge = [], knowledge_of(attack)
    if knowledge >= Knowledge.OMNISCIENT:
        lines.append(f"      FEDPG_RUN_SEED: ${{SEED:-{federation.seed}}} # the attack is omniscient")
    if knowledge >= Knowledge.COLLUDERS:
        rule = rule_of(federation).name
        # Where none is chosen, the server has no such setting, either.
        value = rule if federation.aggregator is None else f"${{AGGREGATOR:-{rule}}}"
        lines.append(f"      FEDPG_AGGREGATOR: {value} # the attack knows the server's rule")
    return lines


def agent_settings(index: int, federation: Federation, attack: Choice | None) -> list[str]:
    """What tells one agent from the others, as lines of YAML."""
    lines = [f'      FEDPG_AGENT: "{index}"']
    if attack is not None and index in federation.byzantine:
        ringleader = min(federation.byzantine)
        attackers = ",".join(map(str, sorted(federation.byzantine)))
        lines.append(f"      FEDPG_ATTACK: ${{ATTACK:-{attack.name}}}")
        if settings := common_settings(federation, attack):
            lines.append(f"      FEDPG_SET: ${{SET:-{settings}}} # the attack's settings; the others are the server's")
        lines.append(f'      FEDPG_ATTACKERS: "{attackers}" # for an attack that colludes, as ATTACK=fedpg does')
        secret = attackers_secret(federation.seed, federation.byzantine)
        lines.append(f"      FEDPG_ATTACKERS_SECRET: ${{ATTACKERS_SECRET:-{secret}}} # their common random draws")
        lines += told_of_the_rest(federation, attack)
        lines.append(f"      FEDPG_RING: agent-{ringleader}:{RING_PORT}")
        if index == ringleader:
            lines.append(f"      FEDPG_RING_LISTEN: 0.0.0.0:{RING_PORT}")
    return lines


def task_target(task_file: str) -> str:
    """Where a task file lies in the server's container, under its own name. Raises UsageError for an odd path."""
    check_path(task_file)
    return f"/{Path(task_file).name}"


def check_path(path: str) -> None:
    """Raise UsageError for a path that would need quoting."""
    if not PLAIN_PATH.fullmatch(path):
        raise UsageError(f"a Compose file cannot hold the path {path!r}: use letters, digits, dots, _ and -")
