"""The server's own gradient as a reference: it tells whether a majority of the agents has been captured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from fedpg_common.learning.aggregators import Votes
from fedpg_common.learning.aggregators.history import beta_of
from fedpg_common.learning.aggregators.sketch import Sketch, dimensions_for
from fedpg_common.learning.parameters import Vector
from numpy.typing import NDArray

from fedpg_server.learning.algorithms.defence.memory import Memory, to_vector

HORIZONS = (9.0, 39.0, 199.0)
"""Rounds, as `history` counts them."""
ALARM_AT, CLEAR_AT = 5.0, 2.5
"""Deviations of μ from the server's gradient: above the first there is an alarm, until it is below the second."""
TRUSTED_BELOW = 3.5
"""During an alarm, agents that deviate by less are heard."""
FEWEST = 3
"""With fewer of them nobody is heard."""
LENGTH_MAX = 50.0
NUMBERS = 2**20
DIMENSIONS_MIN = 512
MEANS, VARIANCES, JUDGED, ALARM = "anchor/mean", "anchor/variance", "anchor/deviation", "anchor/alarm"

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Measured:
    """What a round tells the anchor."""

    votes: Votes
    mu: Vector | None
    """Before it was bounded."""
    spread: float
    """Σw²/(Σw)²: the part of one vote's variance that is left in μ."""
    own: Numbers
    """The server's gradient at θ_0, shape (d,)."""
    own_trajectories: int
    scale: float


class Anchor:
    """Moving means of (x_k − g_server)/s for every agent, and for μ in the row behind them."""

    def __init__(self, agents: int, size: int, words: list[int]) -> None:
        """`words` seed the sketch, if one is needed: they must be the server's secret."""
        self._agents = agents
        self._sketch = Sketch(words, size, dimensions_for(agents + 1, size, NUMBERS, DIMENSIONS_MIN))

    def learn(self, memory: Memory, now: Measured) -> dict[str, Vector]:
        """The memory after a round. Who did not vote keeps its history."""
        rows = np.append(np.array(now.votes.agents, np.int64) - 1, self._agents)
        moved = self._sketch(self._differences(now))
        noise = np.append(np.ones(len(now.votes.agents)), now.spread)
        noise += now.votes.plan.batch_size / now.own_trajectories
        means, variances = self._means(memory), self._variances(memory)
        q = np.zeros(self._agents + 1)
        for place, horizon in enumerate(HORIZONS):
            beta = beta_of(horizon)
            means[place, rows] = beta * means[place, rows] + (1.0 - beta) * moved
            variances[place, rows] = beta**2 * variances[place, rows] + (1.0 - beta) ** 2 * noise
            lengths = np.sqrt(np.square(means[place]).sum(axis=1))
            q = np.maximum(q, lengths / np.sqrt(np.maximum(variances[place], 1e-30)))
        was_alarm = self.is_alarm(memory)
        is_alarm = bool(q[-1] > (CLEAR_AT if was_alarm else ALARM_AT))
        return {
            MEANS: to_vector(means.ravel()),
            VARIANCES: to_vector(variances.ravel()),
            JUDGED: to_vector(q),
            ALARM: to_vector([is_alarm, is_alarm and not was_alarm]),
        }

    def is_alarm(self, memory: Memory) -> bool:
        """Whether μ has been far from the server's gradient."""
        return ALARM in memory and bool(memory[ALARM][0])

    def is_onset(self, memory: Memory) -> bool:
        """Whether the alarm was raised by the last round that taught the anchor anything."""
        return ALARM in memory and bool(memory[ALARM][1])

    def settled(self, memory: Memory) -> Memory:
        """The memory with the alarm's onset dealt with."""
        return {**memory, ALARM: to_vector([float(memory[ALARM][0]), 0.0])} if ALARM in memory else memory

    def deviations(self, memory: Memory) -> Vector:
        """The largest deviation of each agent over the horizons, and of μ: (K + 1,)."""
        return memory.get(JUDGED, np.zeros(self._agents + 1, np.float32))

    def trusted(self, memory: Memory, agents: tuple[int, ...]) -> tuple[int, ...]:
        """Of these agents, those who agree with the server; none where they are too few."""
        deviations = self.deviations(memory)
        trusted = tuple(agent for agent in agents if deviations[agent - 1] < TRUSTED_BELOW)
        return trusted if len(trusted) >= FEWEST else ()

    def _differences(self, now: Measured) -> Numbers:
        """(x − g_server)/s of the votes and of μ, shortened: (k + 1, d)."""
        votes = now.votes.matrix.astype(np.float64)
        mu = votes.mean(axis=0) if now.mu is None else now.mu.astype(np.float64)
        rows = (np.vstack([votes, mu]) - now.own) / now.scale
        lengths = np.sqrt(np.square(rows).sum(axis=1))
        result: Numbers = rows * np.minimum(1.0, LENGTH_MAX / np.maximum(lengths, 1e-300))[:, None]
        return result

    def _means(self, memory: Memory) -> Numbers:
        shape = (len(HORIZONS), self._agents + 1, self._sketch.dimensions)
        return np.zeros(shape) if MEANS not in memory else memory[MEANS].astype(np.float64).reshape(shape)

    def _variances(self, memory: Memory) -> Numbers:
        shape = (len(HORIZONS), self._agents + 1)
        return np.zeros(shape) if VARIANCES not in memory else memory[VARIANCES].astype(np.float64).reshape(shape)
