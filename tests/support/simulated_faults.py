"""What happens to a simulated federation: everything follows from one seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from support.simulated_network import CALM, Weather

FAULTS_UNTIL_S = 60.0
"""Faults begin and end before this time."""
POINTS_MAX = 50
"""A run of this size has about that many persistence points."""


@dataclass(frozen=True)
class Trouble:
    """A fault on one participant or several, from a time and for a time."""

    kind: str
    """"kill", "stop" (the server alone), "pause", "partition" or "break" (agents alone: their environment fails)."""
    targets: tuple[str, ...]
    at_s: float
    for_s: float


@dataclass(frozen=True)
class KillPoint:
    """A kill of the server where it hands work to its store or its learner."""

    point: int
    """Counted over all processes of the run, from 1."""
    is_before: bool
    """Before the work is done, or after, when nobody has heard of it yet."""
    for_s: float = 1.0
    """Until it is started again."""


@dataclass(frozen=True)
class Schedule:
    """A federation and all that befalls it."""

    seed: int
    agents: int = 3
    rounds: int = 3
    round_timeout_s: float = 1e5
    """By default nobody is left behind."""
    weather: Weather = CALM
    """Until the faults are healed."""
    troubles: tuple[Trouble, ...] = ()
    kill_points: tuple[KillPoint, ...] = field(default=())

    @property
    def healed_s(self) -> float:
        """From here on nothing more happens, but for kill points that have not been reached."""
        ends = [trouble.at_s + trouble.for_s for trouble in self.troubles]
        return max([*ends, FAULTS_UNTIL_S if self.weather != CALM else 0.0])

    def calm(self) -> Schedule:
        """The same federation undisturbed."""
        return replace(self, round_timeout_s=1e5, weather=CALM, troubles=(), kill_points=())


def draw_schedule(seed: int) -> Schedule:
    """Some federation in some weather, with some troubles."""
    rng = random.Random(seed)
    agents = rng.choice((1, 3, 4, 5))
    names = [f"agent-{index}" for index in range(1, agents + 1)]
    weather = Weather(
        lost=rng.choice((0.0, 0.05, 0.3)),
        repeated=rng.choice((0.0, 0.1, 0.4)),
        noticed=rng.random(),
        delay_s=rng.choice((0.001, 0.2, 4.0)),
    )
    return Schedule(
        seed=seed,
        agents=agents,
        rounds=rng.choice((2, 3, 4)),
        round_timeout_s=rng.choice((1e5, 3.0, 15.0)),
        weather=weather,
        troubles=tuple(_draw_trouble(rng, names) for _ in range(rng.randrange(5))),
        kill_points=tuple(
            KillPoint(rng.randint(1, POINTS_MAX), rng.random() < 0.5, rng.uniform(0.0, 5.0))
            for _ in range(rng.randrange(4))
        ),
    )


def _draw_trouble(rng: random.Random, names: list[str]) -> Trouble:
    kind = rng.choice(("kill", "stop", "pause", "partition", "break"))
    at_s = rng.uniform(0.0, FAULTS_UNTIL_S / 2)
    for_s = rng.uniform(0.0, FAULTS_UNTIL_S / 2)
    if kind == "stop" or (kind in ("kill", "pause") and rng.random() < 0.4):
        return Trouble(kind, ("server",), at_s, for_s)
    return Trouble(kind, tuple(sorted(rng.sample(names, rng.randint(1, len(names))))), at_s, for_s)
