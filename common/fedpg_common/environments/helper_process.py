"""A process that plays shares of batches: what runs inside it.

It is started by `helper`, waits for a share on its end of a pipe, plays it, and sends the trajectories back. It ends
when the pipe does, so that it never outlives who started it, however that ends.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedpg_common.environments.flights import Flights, Part, Simulation
from fedpg_common.environments.lockstep import LiveCounts, ShareOfDraws
from fedpg_common.environments.trading import Trade
from fedpg_common.learning.policies import CategoricalActor
from fedpg_common.others_code import reason

NOTHING = np.empty(0, np.int64)


class Playable(Protocol):
    """Environments whose episodes depend on nothing but their seeds and actions, so that they can be repeated."""

    def start(self, seeds: NDArray[np.int64], first: int, after: int) -> Flights:
        """The batch's episodes from number `first` to before `after`."""
        ...

    def start_one(self, seed: int) -> tuple[Simulation, Sequence[float]]:
        """One more episode, and its first observation."""
        ...


@dataclass(frozen=True)
class Share:
    """What a process is to play of a batch."""

    make: bytes
    """The pickled function that makes the environments. Those of one function are made once, and used again."""
    actor: CategoricalActor
    horizon: int
    seeds: NDArray[np.int64]
    """Of all episodes of the batch."""
    rng: np.random.Generator | None
    """The whole batch's stream; None for greedy actions, in which processes need not wait for each other."""
    number: int
    """Of the share, from 0."""
    first: int
    after: int
    """The share's episodes, at the beginning: from the one number to before the other."""
    shares: int
    """Of the batch."""
    core: int | None = None
    """Where to play it, to begin with; None for anywhere."""


@dataclass(frozen=True)
class Failed:
    """What went wrong in a share, in words."""

    why: str


def play(environments: Playable, share: Share, draws: ShareOfDraws | None) -> Part:
    """The share's episodes, with `draws` of the whole batch's stream, or greedy without them."""
    flights = environments.start(share.seeds, share.first, share.after)
    if draws is None:
        act = share.actor.greedy
        for _ in range(share.horizon):
            flights.step(act(flights.observe()))
            if not flights.episodes:
                break
    else:
        trade = Trade(draws, share.horizon, lambda episode: environments.start_one(int(share.seeds[episode])))
        _play_in_lockstep(flights, trade, share, draws)
    return flights.part()


def _play_in_lockstep(flights: Flights, trade: Trade, share: Share, draws: ShareOfDraws) -> None:
    act, meet, draw, idle = share.actor.mlp.act, draws.meet, draws.draw, trade.idle
    episodes = flights.episodes
    for time in range(share.horizon):
        if not episodes and trade.is_over():
            draws.leave()
            break
        has_taken = trade.take(flights, time)
        trade.settle(flights, time, has_taken, meet(len(episodes), has_taken, idle))
        numbers = draw(len(episodes))
        actions = act(flights.observe(), numbers) if episodes else NOTHING
        trade.write_down(time, actions)
        flights.step(actions)


def main(pipe_descriptor: int, memory_descriptor: int, processes: int) -> None:
    """Play shares until the pipe ends."""
    pipe, parent = Connection(pipe_descriptor), os.getppid()
    counts = LiveCounts(processes, memory_descriptor)

    def check() -> None:
        if os.getppid() != parent:
            sys.exit()

    made: dict[bytes, Playable] = {}
    try:
        pipe.send(None)  # ready
        while True:
            share = pipe.recv()
            _go_to(share.core)
            pipe.send(_played(share, made, counts, check))
    except (EOFError, OSError):  # whoever started this process has ended
        return


def _go_to(core: int | None) -> None:
    """Move to a core, to be moved on from there as the system likes.

    It wakes a process on the core of whoever writes to it, who is expected to wait then, and needs longer than many a
    batch takes to see that both compute.
    """
    if core is not None:
        anywhere = os.sched_getaffinity(0)
        with suppress(OSError):  # it may have been taken away meanwhile
            os.sched_setaffinity(0, {core})
            os.sched_setaffinity(0, anywhere)


def _played(share: Share, made: dict[bytes, Playable], counts: LiveCounts, check: Callable[[], None]) -> Part | Failed:
    try:
        if share.make not in made:
            made[share.make] = pickle.loads(share.make)()  # of whoever started this process
        draws = None
        if share.rng is not None:
            draws = ShareOfDraws(counts, share.number, share.shares, share.rng, check)
        return play(made[share.make], share, draws)
    except Exception as error:
        return Failed(reason(error))
