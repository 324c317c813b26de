"""Worlds: what an agent's environment has of its own, given for each agent or drawn for all from ranges.

A world changes three fields of the task and no other: `environment_options`, `wrappers` and `reward`. The draws follow
from the run's seed and the agent's number by SHA-256, for each option by itself, so that they depend neither on the
number of agents nor on what else is drawn.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedpg_common.checks import is_number, is_plain, refuse_unknown, show
from fedpg_common.choices import parse_settings
from fedpg_common.errors import UsageError
from fedpg_common.tasks import Reward, Task, wrappers_from_plain

FIELDS = ("environment_options", "wrappers", "reward")
REWARD_FIELDS = tuple(field.name for field in dataclasses.fields(Reward))


@dataclass(frozen=True)
class World:
    """What one agent's environment has of its own. What it does not name is the task's."""

    environment_options: Mapping[str, Any] = field(default_factory=dict)
    """Beside the task's own options, or in their place."""
    wrappers: tuple[str | Mapping[str, Any], ...] | None = None
    """In place of the task's; None for these."""
    reward: Mapping[str, float] = field(default_factory=dict)
    """Fields of `Reward`."""

    def __post_init__(self) -> None:
        """Refuse what no task could have."""
        if not (isinstance(self.environment_options, Mapping) and is_plain(self.environment_options)):
            raise UsageError(f"environment_options must be a table of values, not {show(self.environment_options)}")
        if not isinstance(self.reward, Mapping):
            raise UsageError(f"reward must be a table with {', '.join(REWARD_FIELDS)}, not {show(self.reward)}")
        refuse_unknown(self.reward, REWARD_FIELDS, " of reward")
        Reward(**self.reward)

    def of(self, task: Task) -> Task:
        """The task in this world."""
        return dataclasses.replace(
            task,
            environment_options={**task.environment_options, **self.environment_options},
            wrappers=task.wrappers if self.wrappers is None else self.wrappers,
            reward=dataclasses.replace(task.reward, **self.reward),
        )

    def over(self, other: World) -> World:
        """This world where it says something, and elsewhere the other."""
        return World(
            {**other.environment_options, **self.environment_options},
            other.wrappers if self.wrappers is None else self.wrappers,
            {**other.reward, **self.reward},
        )

    @property
    def label(self) -> str:
        """For people, for example "gravity=9.12 reward.noise=0.1"."""
        values = {**self.environment_options, **{f"reward.{name}": value for name, value in self.reward.items()}}
        parts = [f"{name}={value:.4g}" if is_number(value) else f"{name}={value}" for name, value in values.items()]
        wrapped = [f"wrappers={show(list(self.wrappers))}"] if self.wrappers else []
        return " ".join([*parts, *wrapped])

    def to_plain(self) -> dict[str, Any]:
        """As a description has it."""
        plain: dict[str, Any] = {}
        if self.environment_options:
            plain["environment_options"] = dict(self.environment_options)
        if self.wrappers is not None:
            plain["wrappers"] = list(self.wrappers)
        if self.reward:
            plain["reward"] = dict(self.reward)
        return plain


def world_from_plain(fields: object) -> World:
    """The world in a description. Raises UsageError."""
    if not isinstance(fields, Mapping):
        raise UsageError(f"it must be a table with {', '.join(FIELDS)}, not {show(fields)}")
    try:
        refuse_unknown(fields, FIELDS)
    except UsageError as error:
        raise UsageError(f"{error}; an option of the environment belongs into environment_options") from None
    values = dict(fields)
    if "wrappers" in values:
        values["wrappers"] = wrappers_from_plain(values["wrappers"])
    return World(**values)


def world_from_settings(pairs: Sequence[str]) -> World:
    """The world of a command line: NAME=VALUE each, an option, `reward.NAME` or `wrappers`. Raises UsageError."""
    options: dict[str, Any] = {}
    reward: dict[str, Any] = {}
    for pair in pairs:
        owner, dot, rest = pair.partition(".")
        if dot and owner == "reward":
            reward.update(parse_settings([rest]))
        else:
            options.update(parse_settings([pair]))
    plain: dict[str, Any] = {"reward": reward}
    if "wrappers" in options:
        wrappers = options.pop("wrappers")
        plain["wrappers"] = wrappers if isinstance(wrappers, list) else [wrappers]
    return world_from_plain({**plain, "environment_options": options})


@dataclass(frozen=True)
class Heterogeneity:
    """Ranges from which every agent's world is drawn, uniformly and independently."""

    ranges: Mapping[str, tuple[float, float]]
    """By option of the environment, or "reward.NAME" for a field of the reward."""
    spread: float = 1.0
    """How far apart the worlds are: 1 draws from the ranges, 0 gives everybody their middle, 2 twice as far from it."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn from."""
        if not (is_number(self.spread) and self.spread >= 0):
            raise UsageError(f"heterogeneity: spread must be a number from 0, not {show(self.spread)}")
        for name, bounds in self.ranges.items():
            if not (len(bounds) == 2 and all(map(is_number, bounds)) and bounds[0] <= bounds[1]):
                raise UsageError(
                    f"heterogeneity: {name} must be a range [least, most] of two numbers, not {show(list(bounds))}"
                )

    @property
    def label(self) -> str:
        """For people and folders, for example "gravity=8..12 spread=0.5"."""
        parts = [f"{name}={low:g}..{high:g}" for name, (low, high) in self.ranges.items()]
        return " ".join([*parts, *([f"spread={self.spread:g}"] if self.spread != 1.0 else [])])

    def world(self, seed: int, agent: int) -> World:
        """What an agent of the run with this seed draws."""
        options, reward = {}, {}
        for name, (low, high) in self.ranges.items():
            middle = (low + high) / 2
            value = middle + self.spread * (low + (high - low) * uniform("world", seed, agent, name) - middle)
            owner, dot, own = name.partition(".")
            if dot and owner == "reward":
                reward[own] = value
            else:
                options[name] = value
        return World(options, None, reward)

    def to_plain(self) -> dict[str, Any]:
        """As a description has it."""
        plain: dict[str, Any] = {}
        for name, bounds in self.ranges.items():
            owner, dot, own = name.partition(".")
            if dot and owner == "reward":
                plain.setdefault("reward", {})[own] = list(bounds)
            else:
                plain[name] = list(bounds)
        return {**plain, **({"spread": self.spread} if self.spread != 1.0 else {})}


def heterogeneity_from_plain(fields: object) -> Heterogeneity:
    """The ranges in a description. Raises UsageError."""
    if not isinstance(fields, Mapping):
        raise UsageError(f"heterogeneity must be a table of option = [least, most], not {show(fields)}")
    ranges = {name: value for name, value in fields.items() if name not in ("spread", "reward")}
    reward = fields.get("reward", {})
    if not isinstance(reward, Mapping):
        raise UsageError(f"heterogeneity: reward must be a table with {', '.join(REWARD_FIELDS)}, not {show(reward)}")
    refuse_unknown(reward, REWARD_FIELDS, " of reward", "heterogeneity: ")
    ranges.update({f"reward.{name}": value for name, value in reward.items()})
    for name, value in ranges.items():
        if not isinstance(value, list | tuple):
            raise UsageError(
                f"heterogeneity: {name} must be a range [least, most], not {show(value)}; only spread is a number"
            )
    return Heterogeneity({name: tuple(value) for name, value in ranges.items()}, fields.get("spread", 1.0))


def uniform(what: str, seed: int, agent: int, name: str) -> float:
    """A number in [0, 1) with 53 bits: one of an agent's own draws, of its "world" or its "speed"."""
    digest = hashlib.sha256(f"fedpg/{what}/{seed}/{agent}/{name}".encode()).digest()
    return (int.from_bytes(digest[:8], "little") >> 11) / 2**53


def modules_of_wrappers(wrappers: Iterable[str | Mapping[str, Any]]) -> set[str]:
    """The modules that wrappers come from."""
    names = (wrapper if isinstance(wrapper, str) else wrapper["name"] for wrapper in wrappers)
    return {name.partition(":")[0] for name in names}
