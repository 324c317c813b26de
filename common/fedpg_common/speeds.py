"""Speeds: how many trajectories an agent samples in a round, given for each agent or drawn for all from a range.

The draws follow from the run's seed and the agent's number by SHA-256, as those of worlds do, so that they do not
depend on how many agents there are. docs/heterogeneity.md, "Agents that differ in speed".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedpg_common.checks import is_whole, refuse_unknown, show
from fedpg_common.choices import parse_settings
from fedpg_common.errors import UsageError
from fedpg_common.tasks import BATCH_MAX
from fedpg_common.worlds import uniform

FIELDS = ("trajectories", "min_trajectories")


@dataclass(frozen=True)
class Speed:
    """How much one agent samples in a round that asks for B_t trajectories. None: nothing is said about that."""

    trajectories: int | None = None
    """The most; 0 is B_t. Never more than B_t."""
    min_trajectories: int | None = None
    """The fewest that an agent submits a gradient of which sees that it will not have all before the round's deadline;
    0: it samples all, however late it will be."""

    def __post_init__(self) -> None:
        """Refuse what is not a number of trajectories."""
        for name in FIELDS:
            value = getattr(self, name)
            if value is not None and not (is_whole(value) and 0 <= value <= BATCH_MAX):
                raise UsageError(f"{name} must be a whole number from 0 to {BATCH_MAX}, not {show(value)}")

    def over(self, other: Speed) -> Speed:
        """This one, and for what it does not say the other."""
        return Speed(
            other.trajectories if self.trajectories is None else self.trajectories,
            other.min_trajectories if self.min_trajectories is None else self.min_trajectories,
        )

    def most(self, batch_size: int) -> int:
        """How many trajectories to sample in a round of B_t = `batch_size`."""
        return min(batch_size, self.trajectories) if self.trajectories else batch_size

    def fewest(self, batch_size: int) -> int:
        """How many a gradient is made of at least."""
        most = self.most(batch_size)
        return min(most, self.min_trajectories) if self.min_trajectories else most

    def to_plain(self) -> dict[str, int]:
        """As a description has it."""
        return {name: getattr(self, name) for name in FIELDS if getattr(self, name) is not None}


@dataclass(frozen=True)
class Speeds:
    """How much each agent samples."""

    drawn: tuple[int, int] | None = None
    """The range, ends included, from which the `trajectories` of each agent are drawn; None: B_t for all."""
    min_trajectories: int = 0
    """Of all agents."""
    own: Mapping[int, Speed] = field(default_factory=dict)
    """What is said of an agent by 1-based index, over that."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn from."""
        Speed(0, self.min_trajectories)
        if self.drawn is None:
            return
        is_range = len(self.drawn) == 2 and all(is_whole(end) and 1 <= end <= BATCH_MAX for end in self.drawn)
        if not is_range or self.drawn[0] > self.drawn[1]:
            raise UsageError(
                f"trajectories must be a whole number, or a range [least, most] of two, from 1 to {BATCH_MAX}, "
                f"not {show(list(self.drawn))}"
            )

    def __bool__(self) -> bool:
        """Whether anything is said."""
        return self != Speeds()

    def speed(self, seed: int, agent: int) -> Speed:
        """What is drawn for an agent of the run with this seed, and over that what it is given."""
        return self.own.get(agent, Speed()).over(Speed(self._draw(seed, agent), self.min_trajectories))

    def _draw(self, seed: int, agent: int) -> int:
        if self.drawn is None:
            return 0
        least, most = self.drawn
        return least + math.floor(uniform("speed", seed, agent, "trajectories") * (most - least + 1))

    @property
    def least(self) -> int | None:
        """The smallest number of trajectories that is described; None if every agent samples B_t."""
        given = [speed.trajectories for speed in self.own.values() if speed.trajectories]
        return min([*given, *([self.drawn[0]] if self.drawn else [])], default=None)

    @property
    def may_cut(self) -> bool:
        """Whether an agent may submit a gradient of fewer than it was asked for."""
        return bool(self.min_trajectories) or any(speed.min_trajectories for speed in self.own.values())

    @property
    def label(self) -> str:
        """For people and folders, for example "trajectories=4..16 min=4 speeds=8:4+9:4"; empty for no speeds."""
        parts = []
        if self.drawn is not None:
            low, high = self.drawn
            parts.append(f"trajectories={low}" if low == high else f"trajectories={low}..{high}")
        if self.min_trajectories:
            parts.append(f"min={self.min_trajectories}")
        if self.own:
            parts.append("speeds=" + "+".join(_own_label(agent, self.own[agent]) for agent in sorted(self.own)))
        return " ".join(parts)

    def to_plain(self) -> dict[str, Any]:
        """As a description has it."""
        plain: dict[str, Any] = {}
        if self.drawn is not None:
            plain["trajectories"] = self.drawn[0] if self.drawn[0] == self.drawn[1] else list(self.drawn)
        if self.min_trajectories:
            plain["min_trajectories"] = self.min_trajectories
        return {**plain, **{str(agent): self.own[agent].to_plain() for agent in sorted(self.own)}}


def _own_label(agent: int, speed: Speed) -> str:
    fewest = "" if speed.min_trajectories is None else f"/{speed.min_trajectories}"
    return f"{agent}:{'' if speed.trajectories is None else speed.trajectories}{fewest}"


def speed_from_plain(fields: object) -> Speed:
    """What is said of one agent. Raises UsageError."""
    if not isinstance(fields, Mapping):
        raise UsageError(f"it must be a table with {' and '.join(FIELDS)}, not {show(fields)}")
    refuse_unknown(fields, FIELDS)
    return Speed(**fields)


def speeds_from_plain(fields: object) -> Speeds:
    """The speeds in a description: `trajectories` and `min_trajectories` of all, and a table for each agent's own.

    Raises UsageError.
    """
    if not isinstance(fields, Mapping):
        raise UsageError(f"speeds must be a table of {', '.join(FIELDS)} and agent = its own, not {show(fields)}")
    own = {}
    for name, value in fields.items():
        if name in FIELDS:
            continue
        if not (isinstance(name, str) and name.isascii() and name.isdecimal() and len(name) <= len(str(BATCH_MAX))):
            raise UsageError(f"speeds has no field {show(name)}; it has {', '.join(FIELDS)}, and agents by number")
        try:
            if (speed := speed_from_plain(value)) != Speed():
                own[int(name)] = speed
        except UsageError as error:
            raise UsageError(f"speeds.{name}: {error}") from error
    given = fields.get("trajectories")
    drawn = None if given is None else tuple(given) if isinstance(given, list | tuple) else (given, given)
    try:
        return Speeds(drawn, fields.get("min_trajectories", 0), own)
    except UsageError as error:
        raise UsageError(f"speeds: {error}") from error


def with_speed_setting(table: object, rest: str, pair: str) -> dict[str, Any]:
    """The table of speeds with one more setting, `rest`, of the command line's `pair`. Raises UsageError."""
    if not isinstance(table, Mapping):
        raise UsageError(f"--set {pair}: speeds must be a table, not {show(table)}")
    agent, _, own = rest.partition(".")
    if not (agent.isascii() and agent.isdecimal()):
        return {**table, **parse_settings([rest])}
    try:
        added = speed_from_plain(parse_settings([own]))
        return {**table, agent: added.over(speed_from_plain(table.get(agent, {}))).to_plain()}
    except UsageError as error:
        raise UsageError(f"--set {pair}: {error}") from error
