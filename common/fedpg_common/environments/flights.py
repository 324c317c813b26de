"""Episodes that step together, with little between their steps: of eight, a numpy call costs as much as half of one."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedpg_common.learning.trajectories import Trajectories


class Simulation(Protocol):
    """One episode of one environment with discrete actions."""

    def step(self, action: int) -> tuple[Sequence[float], float, bool, bool, dict[str, Any]]:
        """As Gymnasium's environments step, with an observation in plain numbers; it truncates nothing."""
        ...


@dataclass(frozen=True)
class Part:
    """Steps of some of a batch's episodes: each episode has all of its steps in one part, or has them in several."""

    observations: NDArray[np.float32]
    actions: NDArray[np.int64]
    rewards: NDArray[np.float64]
    episodes: NDArray[np.int64]
    """As `Trajectories` have them, counted in the batch; the rows of one time step are in the order of the episodes."""
    counts: NDArray[np.int64]
    """Rows by time step."""


class Flights:
    """Episodes in lock-step, ended ones dropped."""

    def __init__(
        self, size: int, simulations: Sequence[Simulation], states: Sequence[Sequence[float]], first: int
    ) -> None:
        """Those of a batch from number `first` on, each with its first observation of `size` numbers."""
        self._size = size
        self._simulations = list(simulations)
        self.episodes = list(range(first, first + len(simulations)))
        """The numbers of those that live, ascending."""
        self._states = [number for state in states for number in state]
        self._rows = _Rows(size)
        self._actions: list[NDArray[np.int64]] = []
        self._rewards: list[float] = []
        self._episodes: list[int] = []
        self._counts: list[int] = []
        self._earlier: dict[int, list[int]] = {}

    def observe(self) -> NDArray[np.float32]:
        """The observations of those that live (n, size). To be called once for each time step."""
        return self._rows.add(self._states, len(self.episodes))

    def step(self, actions: NDArray[np.int64]) -> None:
        """Step those that live with their actions (n,)."""
        self._actions.append(actions)
        self._counts.append(len(self.episodes))
        self._episodes += self.episodes
        rewards = self._rewards
        states: list[float] = []
        over: list[Simulation] = []
        for simulation, action in zip(self._simulations, actions.tolist(), strict=True):
            state, reward, has_ended, _, _ = simulation.step(action)
            rewards.append(reward)
            if has_ended:
                over.append(simulation)
            else:
                states += state
        for simulation in over:
            place = self._simulations.index(simulation)
            del self._simulations[place], self.episodes[place]
        self._states = states

    def insert(
        self, place: int, episode: int, actions: list[int], simulation: Simulation, state: Sequence[float]
    ) -> None:
        """Take over an episode that has had these actions elsewhere, and now has this observation."""
        self._simulations.insert(place, simulation)
        self.episodes.insert(place, episode)
        self._states[place * self._size : place * self._size] = state
        self._earlier[episode] = actions

    def drop(self, place: int) -> None:
        """Leave an episode to others."""
        del self._simulations[place], self.episodes[place]
        del self._states[place * self._size : (place + 1) * self._size]

    def actions_of(self, episode: int) -> list[int]:
        """All that an episode has had, here and elsewhere."""
        (rows,) = (np.array(self._episodes, np.int64) == episode).nonzero()
        here: list[int] = np.concatenate(self._actions)[rows].tolist() if rows.size else []
        return self._earlier.get(episode, []) + here

    def part(self) -> Part:
        """What was played here."""
        return Part(
            self._rows.array[: len(self._rewards)],
            np.concatenate(self._actions),
            np.array(self._rewards, np.float64),
            np.array(self._episodes, np.int64),
            np.array(self._counts, np.int64),
        )


def merged(parts: list[Part], count: int) -> Trajectories:
    """The trajectories of a batch of so many episodes, of which each step is in one part."""
    if len(parts) == 1:
        (part,) = parts
        return Trajectories(part.observations, part.actions, part.rewards, part.episodes, count)
    times = np.concatenate([np.repeat(np.arange(len(part.counts)), part.counts) for part in parts])
    episodes = np.concatenate([part.episodes for part in parts])
    order = np.argsort(times * count + episodes)
    return Trajectories(
        observations=np.concatenate([part.observations for part in parts])[order],
        actions=np.concatenate([part.actions for part in parts])[order],
        rewards=np.concatenate([part.rewards for part in parts])[order],
        episodes=episodes[order],
        count=count,
    )


class _Rows:
    """Rows of float32 that become more and more."""

    def __init__(self, size: int) -> None:
        self.array = np.empty((256, size), np.float32)
        self._bytes = self.array.data.cast("B")
        self._size = size
        self._used = 0

    def add(self, numbers: list[float], count: int) -> NDArray[np.float32]:
        """So many rows that hold the numbers (count · size,); what is returned stays as it is."""
        first, after = self._used, self._used + count
        if after > len(self.array):
            self.array = np.resize(self.array, (2 * after, self._size))
            self._bytes = self.array.data.cast("B")
        _floats(len(numbers)).pack_into(self._bytes, 4 * self._size * first, *numbers)
        self._used = after
        return self.array[first:after]


@cache
def _floats(count: int) -> struct.Struct:
    return struct.Struct(f"{count}f")
