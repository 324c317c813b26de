"""What the paper's figures show, to lay beside our own runs. The data and how it was read are in published.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from fedpg_common.federation import Federation
from fedpg_common.shipped import ALGORITHM_TITLES

PUBLISHED_AS = {"constant-action": "random-action", "random-action": ""}
"""Figure 2's "random action" is, in the code that drew it, always the zero action."""
FIGURE_2_ENVIRONMENT, FIGURE_2_AGENTS, FIGURE_2_BYZANTINE = "HalfCheetah-v2", 10, 3


@dataclass(frozen=True)
class Published:
    """One published curve, as far as it was read off."""

    environment: str
    """The paper's version of it."""
    final: float
    """Mean return over the last 5 % of the trajectories."""
    reaches: Mapping[float, int]
    """Trajectory count at which the mean curve first reaches a return."""
    trajectories: int
    """Where the curve ends."""


def published_for(federation: Federation) -> Published | None:
    """The published curve of the same task, algorithm, K and attack, or None. Its settings are the task's defaults."""
    environment = _data()["environments"].get(federation.task.environment)
    if environment is None or federation.task.environment_options:
        return None
    method = ALGORITHM_TITLES.get(federation.algorithm.name)
    if method is None or federation.algorithm.settings or federation.aggregator is not None:
        return None
    if not federation.byzantine:
        curve = _data()["figure_1_no_byzantine_agents"][environment].get(f"{method} K={federation.agents}")
    else:
        curve = _of_figure_2(federation, environment, method)
    if curve is None:
        return None
    reaches = {float(target): int(count) for target, count in curve.get("reaches", {}).items()}
    return Published(environment, float(curve["final"]), reaches, _data()["trajectories"][environment])


def published_targets(federation: Federation) -> list[float]:
    """The returns of the task's environment for which any published curve says when it reaches them, ascending."""
    environment = _data()["environments"].get(federation.task.environment)
    curves = _data()["figure_1_no_byzantine_agents"].get(environment, {}).values()
    return sorted({float(target) for curve in curves for target in curve["reaches"]})


def source() -> str:
    """Where the numbers are from, and how exact they are."""
    return str(_data()["source"])


def _of_figure_2(federation: Federation, environment: str, method: str) -> dict[str, Any] | None:
    attacks = {PUBLISHED_AS.get(attack.label, attack.label) for attack in federation.byzantine.values()}
    size = environment, federation.agents, len(federation.byzantine)
    if size != (FIGURE_2_ENVIRONMENT, FIGURE_2_AGENTS, FIGURE_2_BYZANTINE) or len(attacks) != 1:
        return None
    finals = _data()["figure_2_halfcheetah_k10_b3"].get(attacks.pop(), {})
    return {"final": finals[method]} if method in finals else None


@cache
def _data() -> dict[str, Any]:
    text = resources.files("fedpg_lab.figures").joinpath("published.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data
