"""Two processes that play a batch in lock-step share what is left of it, whichever episodes turn out to be long."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import pytest
from fedpg_common.environments.flights import Flights, Part, merged
from fedpg_common.environments.helper_process import Share, play
from fedpg_common.environments.lockstep import LOG, LiveCounts, ShareOfDraws
from fedpg_common.environments.trading import EARLIEST
from fedpg_common.learning.policies import CategoricalActor
from fedpg_common.learning.trajectories import Trajectories
from numpy.typing import NDArray

LONG = EARLIEST + 500
STEP_S = 2e-5


class Walk:
    """An episode of a given length, whose numbers depend on all that it has had.

    A step takes a while, unless it is repeated: so whoever repeats catches up on any machine.
    """

    def __init__(self, seed: int, length: int, step_s: float = 0.0) -> None:
        self.state = (float(seed), 0.0)
        self._left = length
        self._step_s = step_s

    def step(self, action: int) -> tuple[Sequence[float], float, bool, bool, dict[str, Any]]:
        if self._step_s:
            time.sleep(self._step_s)
        place, walked = self.state
        self.state = ((7.0 * place + action) % 1001.0, walked + 1.0)
        self._left -= 1
        return self.state, place, self._left == 0, False, {}


class Walks:
    """Episodes whose seed says how long they are."""

    def __init__(self, lengths: list[int], step_s: float) -> None:
        self._lengths = lengths
        self._step_s = step_s
        self.begun_again: list[int] = []

    def start(self, seeds: NDArray[np.int64], first: int, after: int) -> Flights:
        walks = [Walk(seed, self._lengths[seed], self._step_s) for seed in seeds[first:after].tolist()]
        return Flights(2, walks, [walk.state for walk in walks], first)

    def start_one(self, seed: int) -> tuple[Walk, Sequence[float]]:
        self.begun_again.append(seed)
        walk = Walk(seed, self._lengths[seed])
        return walk, walk.state


class Chooses:
    """An actor whose actions are drawn, and depend on the observations."""

    mlp: Chooses

    def __init__(self) -> None:
        self.mlp = self

    def act(self, rows: NDArray[np.float32], numbers: NDArray[np.float32]) -> NDArray[np.int64]:
        assert len(rows) == len(numbers)
        return (4.0 * numbers + rows[:, 0]).astype(np.int64) % 4


@pytest.fixture(autouse=True)
def _short_turns() -> Iterator[None]:
    """The processes of these tests are threads."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def played(lengths: list[int], horizon: int, shares: int) -> tuple[Trajectories, list[Part], list[list[int]]]:
    """The batch, what each share has played of it, and which episodes it has begun again."""
    memory = LiveCounts(shares)
    count = len(lengths)
    borders = [count * number // shares for number in range(shares + 1)]
    actor = cast(CategoricalActor, Chooses())
    everything = [Walks(lengths, STEP_S if shares > 1 else 0.0) for _ in range(shares)]
    parts: dict[int, Part] = {}

    def play_share(number: int) -> None:
        rng = np.random.default_rng(1)
        first, after = borders[number], borders[number + 1]
        share = Share(b"", actor, horizon, np.arange(count), rng, number, first, after, shares)
        parts[number] = play(everything[number], share, ShareOfDraws(memory, number, shares, rng, lambda: None))

    threads = [threading.Thread(target=play_share, args=(number,), daemon=True) for number in range(shares)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120.0)
        assert not thread.is_alive(), "the processes wait for each other"
    memory.close()
    return merged(list(parts.values()), count), list(parts.values()), [walks.begun_again for walks in everything]


def assert_same(first: Trajectories, second: Trajectories) -> None:
    for name in ("observations", "actions", "rewards", "episodes"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes(), name


@pytest.mark.parametrize("lengths", [
    [LONG, LONG, LONG, LONG, 5, 5, 5, 5],
    [5, 5, 5, 5, LONG, LONG, LONG, LONG],
    [5, LONG, LONG, LONG - 50, LONG - 200, 7, 9, 11],
    [LONG, 5, 5, 300, 300, LONG, LONG, LONG],
    [5, 5, LONG, LONG],
], ids=str)  # fmt: skip
def test_episodes_are_taken_over_and_the_trajectories_are_the_same(lengths: list[int]) -> None:
    alone, _, _ = played(lengths, LONG, 1)
    assert alone.lengths().tolist() == lengths
    shared, parts, begun_again = played(lengths, LONG, 2)
    assert_same(shared, alone)
    assert any(begun_again)
    half = len(lengths) // 2
    moved = [set(parts[0].episodes.tolist()) - set(range(half)), set(parts[1].episodes.tolist()) - set(range(half, 99))]
    assert any(moved)
    steps = [len(part.rewards) for part in parts]
    assert min(steps) > sum(lengths) / 4


def test_an_episode_that_was_taken_over_can_be_given_back() -> None:
    """First one share runs out of episodes, and then the other one."""
    lengths = [5, 5, LONG + 1200, LONG + 1200, LONG - 150, LONG - 150, LONG - 150, LONG + 1200]
    alone, _, _ = played(lengths, 3000, 1)
    shared, _, begun_again = played(lengths, 3000, 2)
    assert_same(shared, alone)
    assert begun_again[0]


@pytest.mark.parametrize("shares", [2, 3, 4])
@pytest.mark.parametrize("horizon", [1, 40, 600])
def test_random_lengths_give_the_same_trajectories(shares: int, horizon: int) -> None:
    for seed in range(3):
        lengths = np.random.default_rng(seed).integers(1, 700, 9).tolist()
        alone, _, _ = played(lengths, horizon, 1)
        shared, _, _ = played(lengths, horizon, shares)
        assert_same(shared, alone)


def test_nothing_is_taken_over_where_there_is_no_room_to_write_it_down() -> None:
    lengths = [LONG, LONG, LONG, 5, 5, 5]
    shared, _, begun_again = played(lengths, LOG + 1, 2)
    assert begun_again == [[], []]
    assert_same(shared, played(lengths, LOG + 1, 1)[0])
