"""Taking an episode over from a process that has more of them left.

Of two processes that play a batch in lock-step, the one with more episodes has the other one wait, and which episodes
are long shows only as they are played. A simulation cannot be sent to another process, but repeated there: from its
seed, with the actions that it has had. That is what a process does while it waits, until it has caught up; then it has
the episode, and the other one drops it. Always the episode at the border of the two shares, so that each share remains
a range of episodes in the order of the batch's random numbers.

Whoever has fewer wishes for one; whoever has more offers it, writes down the actions that it has had, and goes on to do
so. The wish, the offer and each action say which wish is meant, so that no word need be seen before another one.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fedpg_common.environments.flights import Flights, Simulation
from fedpg_common.environments.lockstep import LOG, OFFER, ROW, WISH, ShareOfDraws

DIFFERENCE = 2
"""How many episodes fewer a process must have to take one."""
EARLIEST = 150
"""Time steps after which one is wished for. Where episodes are short, they are over before anybody has caught up."""
LOOKS_FOR_LAST = 500
"""How often, at most, a process looks for the last action that it needs."""
NUMBER_AT = 32
"""Where the number of the wish begins in an offer; below it is the episode."""
ACTION_BITS = 16
ACTION_MASK = (1 << ACTION_BITS) - 1


class Trade:
    """One process's side of it."""

    def __init__(
        self, draws: ShareOfDraws, horizon: int, begin: Callable[[int], tuple[Simulation, Sequence[float]]]
    ) -> None:
        """`begin` starts an episode of the batch again, and returns its first observation."""
        own, other = draws.own, 1 - draws.own
        self._is_on = draws.shares == 2 and horizon <= LOG
        self._begin = begin
        self._draws = draws
        self._words = draws.memory.words
        self._border = -1 if own == 0 else 0
        """The place of the episode that is next to the other share."""
        self._wish_at, self._theirs_at = own * ROW + WISH, other * ROW + WISH
        self._offer_at, self._offered_at = own * ROW + OFFER, other * ROW + OFFER
        log_at = draws.memory.log_at
        self._log_at, self._read_at = log_at + own * LOG, log_at + other * LOG
        self._here = self._elsewhere = 0
        self._wish = self._answered = 0
        """The number of the latest wish of this process, and of the latest that came to something."""
        self._seen = self._served = 0
        """The number of the other's latest wish, and of the latest that was answered with an offer."""
        self._offered: int | None = None
        self._replay: _Replay | None = None

    def is_over(self) -> bool:
        """Whether there is nothing to be taken, for a process that has no episode left."""
        return not (self._is_on and self._draws.elsewhere >= DIFFERENCE)

    def take(self, flights: Flights, time: int) -> bool:
        """Add the other's episode that is ready to be played here from time step `time` on, if there is one."""
        if self._replay is None or self._here + DIFFERENCE > self._elsewhere:
            return False
        if self._replay.time == time - 1:  # the last action is about to be written down: there is time to repeat it
            any(self.idle() for _ in range(LOOKS_FOR_LAST))
        replay = self._replay
        if replay is None or replay.time != time:
            return False
        place = len(flights.episodes) if self._border == -1 else 0
        flights.insert(place, replay.episode, replay.actions, replay.simulation, replay.state)
        self._replay = None
        return True

    def settle(self, flights: Flights, time: int, has_taken: bool, is_taken: bool) -> None:
        """Do what follows from what was told at this time step: drop, offer or wish for an episode."""
        if time < EARLIEST or not self._is_on:
            return
        if is_taken:
            flights.drop(self._border)
            self._replay, self._answered = None, self._wish  # an offer of the other's holds no longer
        episodes, elsewhere, theirs = flights.episodes, self._draws.elsewhere, self._words[self._theirs_at]
        here = len(episodes)
        if here == self._here and elsewhere == self._elsewhere and theirs == self._seen and not has_taken:
            return  # as at nearly every time step
        self._here, self._elsewhere, self._seen = here, elsewhere, theirs
        if has_taken or is_taken or not here or self._offered != episodes[self._border]:
            self._offered = None
        if theirs > self._served and here >= elsewhere + DIFFERENCE:
            self._served = theirs
            self._offer(flights, episodes[self._border])
        if self._wish == self._answered and self._replay is None and here + DIFFERENCE <= elsewhere:
            self._wish += 1
            self._words[self._wish_at] = self._wish

    def write_down(self, time: int, actions: NDArray[np.int64]) -> None:
        """Keep the other one informed of the actions (n,) at this time step."""
        if self._offered is not None:
            self._words[self._log_at + time] = self._served << ACTION_BITS | int(actions[self._border])

    def idle(self) -> bool:
        """Do some of what is to be repeated; False if there is nothing to do now."""
        if self._here >= self._elsewhere:
            return False
        replay = self._replay
        if replay is None:
            return self._start()
        entry = self._words[self._read_at + replay.time]
        if entry >> ACTION_BITS != self._answered:
            return False
        if replay.step(entry & ACTION_MASK):
            self._replay, self._seen = None, -1  # there may be something else to wish for
        return True

    def _start(self) -> bool:
        offer = self._words[self._offered_at]
        if self._wish == self._answered or offer >> NUMBER_AT != self._wish:
            return False
        self._answered = self._wish
        episode = offer & ((1 << NUMBER_AT) - 1)
        self._replay = _Replay(episode, *self._begin(episode))
        return True

    def _offer(self, flights: Flights, episode: int) -> None:
        number = self._served
        known = [number << ACTION_BITS | action for action in flights.actions_of(episode)]
        self._words[self._log_at : self._log_at + len(known)] = memoryview(array("q", known))
        self._words[self._offer_at] = number << NUMBER_AT | episode
        self._offered = episode


class _Replay:
    """An episode that is repeated."""

    def __init__(self, episode: int, simulation: Simulation, state: Sequence[float]) -> None:
        self.episode = episode
        self.simulation = simulation
        self.state = state
        self.actions: list[int] = []

    @property
    def time(self) -> int:
        """Steps that it has had."""
        return len(self.actions)

    def step(self, action: int) -> bool:
        """Repeat one; returns whether the episode has ended."""
        self.actions.append(action)
        self.state, _, has_ended, _, _ = self.simulation.step(action)
        return has_ended
