"""One [[fault]] entry of a scenario: checked, its targets drawn, and each of its repetitions planned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import numpy as np
from fedpg_common.checks import is_number, is_whole, refuse_unknown, show
from fedpg_common.errors import UsageError
from fedpg_common.federation import AGENTS_MAX, Federation

from fedpg_lab.faults.backend import SERVER, Fault, FaultKind
from fedpg_lab.faults.timeline import INSTANT, PlannedFault, label_of
from fedpg_lab.files.toml_files import choose

AT_MOST_S = 60.0
"""How long a fault that counts in rounds lasts at most, unless it says otherwise."""
TIME_MAX_S = 86_400.0
ROUND_MAX = 1_000_000
TIMES_MAX = 1000
DELAY_MAX_S = 60.0
BYTES_PER_S_MAX = 1e9

TIMES = ("at_round", "at_s", "for_s", "for_rounds", "at_most_s", "times", "every_s", "every_rounds")
FIGURES = ("delay_s", "jitter_s", "bytes_per_s", "fraction")
FIELDS = ("kind", "on", "split", *TIMES, *FIGURES)
FIGURES_OF: Mapping[FaultKind, tuple[str, ...]] = {
    FaultKind.LATENCY: ("delay_s", "jitter_s"),
    FaultKind.BANDWIDTH: ("bytes_per_s",),
    FaultKind.LOSS: ("fraction",),
    FaultKind.CORRUPTION: ("fraction",),
    FaultKind.SLOW_CPU: ("fraction",),
}
OPTIONAL_FIGURES = ("jitter_s",)
LIMITS: Mapping[str, tuple[float, float]] = {
    "delay_s": (0.001, DELAY_MAX_S),
    "jitter_s": (0.0, DELAY_MAX_S),
    "bytes_per_s": (1.0, BYTES_PER_S_MAX),
    "fraction": (0.001, 1.0),
}


class Split(StrEnum):
    """Partitions by name. Who is cut off is drawn from the scenario's seed."""

    ISOLATE_ONE = "isolate-one"
    """One agent."""
    MINORITY = "minority"
    """As many agents as leave the server a quorum."""
    MAJORITY = "majority"
    """More than half of the agents, and so many that the server is left without a quorum."""
    SERVER_ALONE = "server-alone"
    """The server from all agents."""


def plan_entry(
    entry: Mapping[str, Any], federation: Federation, draw: np.random.Generator, first_number: int
) -> list[PlannedFault]:
    """The faults of one entry: one, or as many as it repeats itself. Raises UsageError that names the field."""
    refuse_unknown(entry, FIELDS)
    if "kind" not in entry:
        raise UsageError("the field kind is missing")
    kind = choose(FaultKind, entry["kind"], "kind")
    targets, split = _targets(entry, kind, federation, draw)
    fault = Fault(kind, targets, **_figures(entry, kind))
    at_round, after_s = _start(entry)
    for_rounds, at_most_s = _duration(entry, kind)
    times, every_s, every_rounds = _repetition(entry, for_rounds, at_most_s)
    return [
        PlannedFault(
            number=first_number + i,
            fault=fault,
            label=label_of(fault, split),
            at_round=at_round + i * every_rounds,
            after_s=after_s + i * every_s,
            for_rounds=for_rounds,
            at_most_s=at_most_s,
        )
        for i in range(times)
    ]


# Targets --------------------------------------------------------------------------------------------------------------


def _targets(
    entry: Mapping[str, Any], kind: FaultKind, federation: Federation, draw: np.random.Generator
) -> tuple[tuple[int, ...], str]:
    """Who is concerned, and the name of the split, if it is one."""
    if ("on" in entry) == ("split" in entry):
        raise UsageError('exactly one of on and split is needed, for example on = "2 agents"')
    if "split" in entry:
        if kind is not FaultKind.PARTITION:
            raise UsageError(f"split is for a partition, not for {kind.value}: use on")
        split = choose(Split, entry["split"], "split")
        return _split(split, federation, draw), split.value
    on = entry["on"]
    if on == "server":
        return (SERVER,), ""
    if isinstance(on, str):
        return _drawn(on, federation, draw), ""
    everyone = range(1, federation.agents + 1)
    if not isinstance(on, list) or not on or not all(name == "server" or is_whole(name) for name in on):
        raise UsageError(f'on must be "server", a list of agents, or such as "2 agents", not {show(on)}')
    strangers = [name for name in on if name != "server" and name not in everyone]
    if strangers:
        raise UsageError(f"on names agent {strangers[0]}, but the agents are 1 to {federation.agents}")
    if len(set(on)) < len(on):
        raise UsageError(f"on names somebody twice: {show(on)}")
    return tuple(sorted(SERVER if name == "server" else name for name in on)), ""


def _drawn(on: str, federation: Federation, draw: np.random.Generator) -> tuple[int, ...]:
    """Agents drawn from all, the honest or the Byzantine ones: "2 agents", "1 honest", "all byzantine"."""
    everyone = range(1, federation.agents + 1)
    groups = {
        "agents": list(everyone),
        "agent": list(everyone),
        "honest": [agent for agent in everyone if agent not in federation.byzantine],
        "byzantine": sorted(federation.byzantine),
    }
    number, _, group = on.partition(" ")
    is_count = number.isascii() and number.isdecimal() and len(number) <= len(str(AGENTS_MAX))
    if group not in groups or not (is_count or number == "all"):
        raise UsageError(f'on must be "server", a list of agents, or such as "2 agents", "1 honest", not {show(on)}')
    members = groups[group]
    count = int(number) if is_count else len(members)
    if not 1 <= count <= len(members):
        raise UsageError(f'on = "{on}": there are {len(members)} of them')
    return _sample(members, count, draw)


def _split(split: Split, federation: Federation, draw: np.random.Generator) -> tuple[int, ...]:
    K, spare = federation.agents, federation.agents - federation.quorum
    match split:
        case Split.SERVER_ALONE:
            return (SERVER,)
        case Split.ISOLATE_ONE:
            count = 1
        case Split.MINORITY:
            count = spare
        case Split.MAJORITY:
            count = K // 2 + 1  # more than the spare ones, since α is below 1/2
    if count < 1:
        raise UsageError(f"a federation of {K} agents has a quorum of {federation.quorum}: no minority can be missing")
    return _sample(range(1, K + 1), count, draw)


def _sample(members: Sequence[int], count: int, draw: np.random.Generator) -> tuple[int, ...]:
    return tuple(sorted(int(agent) for agent in draw.choice(members, size=count, replace=False)))


# Faults ---------------------------------------------------------------------------------------------------------------


def _figures(entry: Mapping[str, Any], kind: FaultKind) -> dict[str, float]:
    """The figures that the kind takes."""
    wanted = FIGURES_OF.get(kind, ())
    for name in FIGURES:
        if name in entry and name not in wanted:
            raise UsageError(f"{kind.value} takes no {name}")
        if name in wanted and name not in entry and name not in OPTIONAL_FIGURES:
            raise UsageError(f"{kind.value} needs the field {name}")
    figures = {name: _number(entry, name, *LIMITS[name]) for name in wanted if name in entry}
    if figures.get("jitter_s", 0.0) > figures.get("delay_s", 0.0):
        raise UsageError("jitter_s must be at most delay_s")
    return figures


# Times ----------------------------------------------------------------------------------------------------------------


def _start(entry: Mapping[str, Any]) -> tuple[int, float]:
    """The round, and the time after its opening."""
    if ("at_round" in entry) == ("at_s" in entry):
        raise UsageError("exactly one of at_round and at_s is needed")
    if "at_round" in entry:
        return _whole(entry, "at_round", ROUND_MAX), 0.0
    return 1, _number(entry, "at_s", 0.0, TIME_MAX_S)


def _duration(entry: Mapping[str, Any], kind: FaultKind) -> tuple[int | None, float]:
    """In rounds, or None; and the longest in seconds."""
    given = [name for name in ("for_s", "for_rounds", "at_most_s") if name in entry]
    if kind in INSTANT:
        if given:
            raise UsageError(f"{kind.value} is over at once: it takes no {given[0]}")
        return None, 0.0
    if ("for_s" in entry) == ("for_rounds" in entry):
        raise UsageError("exactly one of for_s and for_rounds is needed")
    if "for_s" in entry:
        if "at_most_s" in entry:
            raise UsageError("at_most_s is a bound for for_rounds: for_s is its own")
        return None, _number(entry, "for_s", 0.001, TIME_MAX_S)
    at_most_s = _number(entry, "at_most_s", 0.001, TIME_MAX_S) if "at_most_s" in entry else AT_MOST_S
    return _whole(entry, "for_rounds", ROUND_MAX), at_most_s


def _repetition(entry: Mapping[str, Any], for_rounds: int | None, at_most_s: float) -> tuple[int, float, int]:
    """How often, and after how many seconds or rounds the next one begins."""
    times = _whole(entry, "times", TIMES_MAX) if "times" in entry else 1
    given = [name for name in ("every_s", "every_rounds") if name in entry]
    if len(given) != (times > 1):
        raise UsageError("times = 2 or more and one of every_s and every_rounds go together")
    if not given:
        return 1, 0.0, 0
    if given == ["every_s"]:
        every_s = _number(entry, "every_s", 0.001, TIME_MAX_S)
        if every_s <= at_most_s:
            raise UsageError(f"every_s must be longer than the fault lasts, which is up to {at_most_s:g} s")
        return times, every_s, 0
    every_rounds = _whole(entry, "every_rounds", ROUND_MAX)
    if "at_round" not in entry:
        raise UsageError("every_rounds goes with at_round")
    if for_rounds is not None and every_rounds <= for_rounds:
        raise UsageError("every_rounds must be more than for_rounds")
    return times, 0.0, every_rounds


def _number(entry: Mapping[str, Any], name: str, low: float, high: float) -> float:
    value = entry[name]
    if not is_number(value) or not (low <= value <= high):
        raise UsageError(f"{name} must be a number from {low:g} to {high:g}, not {show(value)}")
    return float(value)


def _whole(entry: Mapping[str, Any], name: str, high: int) -> int:
    value = entry[name]
    if not is_whole(value) or not 1 <= value <= high:
        raise UsageError(f"{name} must be a whole number from 1 to {high}, not {show(value)}")
    return value
