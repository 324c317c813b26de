"""A process that plays shares of batches: what runs inside it.

It is started by `helper`, waits for a share on its end of a pipe, plays it, and sends the trajectories back. It ends
when the pipe does, so that it never outlives who started it, however that ends.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedpg_common.environments.guard import reason
from fedpg_common.environments.lockstep import LiveCounts, ShareOfDraws
from fedpg_common.learning.policies import CategoricalActor
from fedpg_common.learning.trajectories import Trajectories


class Playable(Protocol):
    """Environments whose episodes depend on nothing but their seeds and actions."""

    def sample(
        self, choose: Callable[[NDArray[np.float32]], NDArray[Any]], horizon: int, seeds: NDArray[np.int64]
    ) -> Trajectories:
        """See `rollouts.sample`."""
        ...


@dataclass(frozen=True)
class Share:
    """What a process is to play of a batch."""

    make: bytes
    """The pickled function that makes the environments. Those of one function are made once, and used again."""
    actor: CategoricalActor
    horizon: int
    seeds: NDArray[np.int64]
    """Of the share's episodes."""
    rng: np.random.Generator | None
    """The whole batch's stream; None for greedy actions, in which processes need not wait for each other."""
    number: int
    """Of the share, from 0."""
    shares: int
    """Of the batch."""
    core: int | None = None
    """Where to play it, to begin with; None for anywhere."""


@dataclass(frozen=True)
class Failed:
    """What went wrong in a share, in words."""

    why: str


def play(environments: Playable, share: Share, draws: ShareOfDraws | None) -> Trajectories:
    """The share's episodes, with `draws` of the whole batch's stream, or greedy without them."""
    if draws is None:
        return environments.sample(share.actor.greedy, share.horizon, share.seeds)
    act, next_draws = share.actor.mlp.act, draws.next
    played = environments.sample(lambda rows: act(rows, next_draws(len(rows))), share.horizon, share.seeds)
    draws.end()
    return played


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


def _played(
    share: Share, made: dict[bytes, Playable], counts: LiveCounts, check: Callable[[], None]
) -> Trajectories | Failed:
    try:
        if share.make not in made:
            made[share.make] = pickle.loads(share.make)()  # of whoever started this process
        draws = None
        if share.rng is not None:
            draws = ShareOfDraws(counts, share.number, share.shares, share.rng, check)
        return play(made[share.make], share, draws)
    except Exception as error:
        return Failed(reason(error))
