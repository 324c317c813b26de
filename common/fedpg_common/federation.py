"""The description of a federation: one file that drives the local launcher, the server and the telemetry."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from fedpg_common.errors import UsageError
from fedpg_common.tasks import Task, find_task, is_number, is_whole, show, task_from_fields, task_to_fields

Choice = TypeVar("Choice", bound=StrEnum)

AGENTS_MAX = 10_000
SEED_MAX = 2**63 - 1
ROUND_TIMEOUT_MAX_S = 1e6
"""A timer takes no more than some weeks."""


class Algorithm(StrEnum):
    """How the server turns the agents' gradients into the next policy."""

    FEDPG_BR = "fedpg-br"
    SVRPG = "svrpg"
    GPOMDP = "gpomdp"


class Attack(StrEnum):
    """Attacks on the learning: the agent keeps to the protocol and votes with a bad gradient.

    Their formulas are in docs/algorithm.md, "Attacks".
    """

    RANDOM_NOISE = "random-noise"
    RANDOM_ACTION = "random-action"
    SIGN_FLIPPING = "sign-flipping"
    ZERO_GRADIENT = "zero-gradient"
    REWARD_FLIPPING = "reward-flipping"
    RANDOM_REWARD = "random-reward"
    FEDPG = "fedpg"


class Hostility(StrEnum):
    """Attacks on the protocol: what the agent sends, or does not, is refused or bounded by the server.

    Where it votes as well, its vote is an honest agent's.
    """

    REPLAY = "replay"
    EQUIVOCATION = "equivocation"
    STALE_ROUND = "stale-round"
    WRONG_SHAPE = "wrong-shape"
    NOT_FINITE = "not-finite"
    OVERSIZED = "oversized"
    IMPERSONATION = "impersonation"
    SLOW_LORIS = "slow-loris"
    FLOOD = "flood"
    SILENCE = "silence"
    GARBAGE = "garbage"


Misconduct = Attack | Hostility
"""All that a Byzantine agent may be told to do."""

ATTACKS_HELP = (
    f"on the learning {', '.join(attack.value for attack in Attack)}; "
    f"on the protocol {', '.join(hostility.value for hostility in Hostility)}"
)
"""The choices, as the help of a command lists them."""


@dataclasses.dataclass(frozen=True)
class Federation:
    """Who takes part in a run, and by which rules.

    `byzantine` maps a 1-based agent index to what it does. It configures agents and lets the telemetry score the
    filter; the filter itself never sees it.
    """

    task: Task
    agents: int = 10
    algorithm: Algorithm = Algorithm.FEDPG_BR
    seed: int = 0
    byzantine: Mapping[int, Misconduct] = dataclasses.field(default_factory=dict)
    round_timeout_s: float = 120.0
    """A round closes at this age if a quorum has submitted."""

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

    @property
    def quorum(self) -> int:
        """K − ⌊αK⌋: the submissions without which a round does not close."""
        return self.agents - math.floor(self.task.alpha * self.agents + 1e-9)

    @property
    def poisoners(self) -> frozenset[int]:
        """The agents that vote with a bad gradient: those that the filter is there to find."""
        return frozenset(agent for agent, misconduct in self.byzantine.items() if isinstance(misconduct, Attack))


def describe(
    task: str,
    *,
    agents: int = 10,
    byzantine: int = 0,
    attack: str = Attack.RANDOM_NOISE.value,
    algorithm: str = Algorithm.FEDPG_BR.value,
    seed: int = 0,
    round_timeout_s: float = 120.0,
    **overrides: Any,
) -> Federation:
    """A federation whose first `byzantine` agents attack. `overrides` replace the task's fields where not None."""
    if byzantine < 0 or byzantine > agents >= 1:
        raise UsageError(f"{byzantine} Byzantine agents do not fit in a federation of {agents}: choose 0 to {agents}")
    changes = {name: value for name, value in overrides.items() if value is not None}
    return Federation(
        task=dataclasses.replace(find_task(task), **changes),
        agents=agents,
        algorithm=choose(Algorithm, algorithm, "algorithm"),
        seed=seed,
        byzantine=dict.fromkeys(range(1, byzantine + 1), choose_attack(attack)),
        round_timeout_s=round_timeout_s,
    )


def name_of(federation: Federation) -> str:
    """A name that says what the federation is, for example CartPole-v1_fedpg-br_K10_B3_random-noise.

    It is a folder's name: a slash in the task's name becomes a hyphen.
    """
    parts = [federation.task.name, federation.algorithm.value, f"K{federation.agents}"]
    if federation.byzantine:
        parts += [f"B{len(federation.byzantine)}", *sorted({attack.value for attack in federation.byzantine.values()})]
    return "_".join(parts).replace("/", "-")


def choose(kind: type[Choice], value: object, what: str) -> Choice:
    """The member of `kind` with that value. Raises UsageError that lists the choices."""
    try:
        return kind(str(value))
    except ValueError:
        choices = ", ".join(member.value for member in kind)
        raise UsageError(f"unknown {what} {show(value)}: choose one of {choices}") from None


def choose_attack(value: object) -> Misconduct:
    """The attack with that value, be it on the learning or on the protocol. Raises UsageError with the choices."""
    for kind in (Attack, Hostility):
        if value in list(kind):
            return kind(str(value))
    choices = ", ".join(member.value for kind in (Attack, Hostility) for member in kind)
    raise UsageError(f"unknown attack {show(value)}: choose one of {choices}")


def federation_to_toml(federation: Federation) -> str:
    """The description as TOML; `federation_from_toml` is the inverse."""
    fields = {
        "agents": federation.agents,
        "algorithm": federation.algorithm.value,
        "seed": federation.seed,
        "round_timeout_s": federation.round_timeout_s,
        "byzantine": {str(index): attack.value for index, attack in sorted(federation.byzantine.items())},
        "task": task_to_fields(federation.task),
    }
    return tomli_w.dumps(fields)


def federation_from_toml(text: str, source: str) -> Federation:
    """The federation described in `text`. `task` is a name, or a table with the fields of a task file.

    Raises UsageError that names the `source` and the field.
    """
    try:
        return federation_from_fields(tomllib.loads(text), source)
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
    return federation_from_toml(text, f"federation file {path}")


def federation_from_fields(fields: Mapping[str, Any], source: str) -> Federation:
    """A federation from plain fields. Raises UsageError that names the `source` and the field."""
    unknown = sorted(set(fields) - {field.name for field in dataclasses.fields(Federation)})
    if unknown:
        raise UsageError(f"{source}: unknown field {unknown[0]!r}")
    if "task" not in fields:
        raise UsageError(f"{source}: the field 'task' is missing")
    task = fields["task"]
    byzantine = fields.get("byzantine", {})
    if not isinstance(task, str | Mapping):
        raise UsageError(f"{source}: task must be a name or a table, not {show(task)}")
    if not isinstance(byzantine, Mapping):
        raise UsageError(f"{source}: byzantine must be a table of agent = attack, not {show(byzantine)}")
    plain = {name: fields[name] for name in ("agents", "seed", "round_timeout_s") if name in fields}
    try:
        return Federation(
            task=find_task(task) if isinstance(task, str) else task_from_fields(task, source),
            algorithm=choose(Algorithm, fields.get("algorithm", Algorithm.FEDPG_BR.value), "algorithm"),
            byzantine={_agent_index(index): choose_attack(attack) for index, attack in byzantine.items()},
            **plain,
        )
    except UsageError as error:
        raise UsageError(f"{source}: {str(error).removeprefix(f'{source}: ')}") from error


def _agent_index(key: str) -> int:
    if not (key.isascii() and key.isdecimal() and len(key) <= len(str(AGENTS_MAX))):
        raise UsageError(f"byzantine names agents by number, not {show(key)}")
    return int(key)
