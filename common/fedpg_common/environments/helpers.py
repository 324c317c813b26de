"""Processes that help to play a batch, for simulations that hold the interpreter's lock.

Each plays a share of the episodes from the first step to the last, acting included. The bits are those of one process,
however many there are.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fedpg_common.environments.flights import merged
from fedpg_common.environments.helper import Helper, HelperFailedError, answers, can_help
from fedpg_common.environments.helper_process import Playable, Share, play
from fedpg_common.environments.lockstep import LiveCounts, ShareOfDraws
from fedpg_common.errors import EnvironmentFailedError
from fedpg_common.learning.policies import CategoricalActor
from fedpg_common.learning.trajectories import Trajectories
from fedpg_common.machine import cores_from_here

SHARE_MIN = 2
"""Episodes. With one alone, a step is mostly overhead."""
ALONE_MOST = 64
"""Batches that are played alone, at most, before help is tried again."""

log = logging.getLogger(__name__)


class HelperPool:
    """The helpers that several batches of a process share, as they share its cores.

    Threads may use it together. It owns no process that nobody has borrowed.
    """

    def __init__(self) -> None:
        """Nothing is lent yet."""
        self._lent: dict[tuple[int, int], tuple[Helpers, int]] = {}
        """By process and number, since a fork has none of its parent's; with how many have borrowed them."""
        self._lending = threading.Lock()

    def borrow(self, most: int) -> Helpers:
        """Up to `most` processes, the same for all who borrow as many. To be given back."""
        with self._lending:
            key = os.getpid(), most
            helpers, borrowers = self._lent.get(key) or (Helpers(most), 0)
            self._lent[key] = helpers, borrowers + 1
            return helpers

    def give_back(self, helpers: Helpers) -> None:
        """Borrow them no longer. The last one to do so ends them."""
        with self._lending:
            key = helpers.pid, helpers.most
            _, borrowers = self._lent.pop(key)
            if borrowers > 1:
                self._lent[key] = helpers, borrowers - 1
            elif helpers.pid == os.getpid():
                helpers.close()


class Helpers:
    """Helper processes for batches that hold the interpreter's lock, one batch at a time."""

    def __init__(self, most: int, worth: Worth | None = None, clock: Callable[[], float] = time.perf_counter) -> None:
        """Up to `most` processes; each is started when it is first needed."""
        self.most = most
        self.pid = os.getpid()
        """Of the process that they help."""
        self._clock = clock
        self._busy = threading.Lock()
        self._counts: LiveCounts | None = None
        self._helpers: list[Helper] = []
        self._worth = worth or Worth()
        self._can_help = can_help()

    def rollout(
        self,
        who: str,
        environments: Playable,
        make: bytes,
        actor: CategoricalActor,
        horizon: int,
        seeds: NDArray[np.int64],
        rng: np.random.Generator | None,
    ) -> Trajectories | None:
        """The batch's trajectories, as `rollouts.sample` gives them; `rng` is left as that would leave it.

        None if nobody can help with this batch now, or help was found to be slower. `make` is the pickled function that
        makes environments like these, and `who` their name in the EnvironmentFailedError for a helper that fails.
        """
        shares = min(1 + self.most, len(seeds) // SHARE_MIN)
        if shares < 2 or self.pid != os.getpid() or not self._busy.acquire(blocking=False):
            return None
        try:
            helpers = self._ready_helpers(shares - 1)
            if not helpers or not self._worth.is_expected():
                return None
            shares = 1 + len(helpers)
            borders = [len(seeds) * number // shares for number in range(shares + 1)]
            ranges = zip(borders, borders[1:], cores_from_here(), strict=False)
            works = [
                Share(make, actor, horizon, seeds, rng, number, first, after, shares, core)
                for number, (first, after, core) in enumerate(ranges)
            ]
            try:
                return self._play(environments, helpers, works)
            except BaseException:
                self.close()  # others may be in the middle of their shares
                raise
        except HelperFailedError as error:
            raise EnvironmentFailedError(
                f"environment {who}: a process that plays a part of the episodes {error}; "
                "with --threads 1 all are played in one process"
            ) from error
        finally:
            self._busy.release()

    def ready(self) -> list[int]:
        """The process numbers of those that can help now. Raises HelperFailedError."""
        return [helper.pid for helper in self._helpers if helper.is_ready()]

    def close(self) -> None:
        """End the processes. They are started again when they are needed again."""
        for helper in self._helpers:
            helper.close()
        self._helpers.clear()
        if self._counts is not None:
            self._counts.close()
            self._counts = None

    def _play(self, environments: Playable, helpers: list[Helper], works: list[Share]) -> Trajectories:
        assert self._counts is not None  # there are helpers
        self._counts.clear()
        began_s = self._clock()
        for helper, work in zip(helpers, works[1:], strict=True):
            helper.give(work)

        def check() -> None:
            for helper in helpers:
                helper.look()

        rng, draws = works[0].rng, None
        if rng is not None:
            draws = ShareOfDraws(self._counts, 0, len(works), _copied(rng), check)
        own = play(environments, works[0], draws)
        own_s = self._clock() - began_s
        whole = merged([own, *answers(helpers)], len(works[0].seeds))
        if rng is not None and draws is not None:
            rng.random(whole.steps, np.float32)
            own_s -= draws.waited_s
        self._worth.judge(self._clock() - began_s, own_s * whole.steps / len(own.rewards))
        return whole

    def _ready_helpers(self, wanted: int) -> list[Helper]:
        """Those of up to `wanted` that are ready. Who is missing is started; if that fails, nothing more is tried."""
        if not self._can_help:
            return []
        try:
            if self._counts is None:
                self._counts = LiveCounts(1 + self.most)
            while len(self._helpers) < wanted:
                self._helpers.append(Helper(self._counts))
            return [helper for helper in self._helpers[:wanted] if helper.is_ready()]
        except (OSError, HelperFailedError) as error:
            self._can_help = False
            self.close()
            log.warning("all episodes are played in one process, with the same results: another one %s",
                        error if isinstance(error, HelperFailedError) else f"cannot be started: {error}")  # fmt: skip
            return []


def _copied(rng: np.random.Generator) -> np.random.Generator:
    """The same stream; `copy.deepcopy` takes longer."""
    bits = type(rng.bit_generator)(0)
    bits.state = rng.bit_generator.state
    return np.random.Generator(bits)


class Worth:
    """Whether help is worth its while: processes wait for each other, on a busy machine for longer than they work."""

    def __init__(self) -> None:
        """Help is expected to be worth it."""
        self._alone = 0
        self._next_alone = 1

    def is_expected(self) -> bool:
        """Whether the next batch is to be shared."""
        if self._alone:
            self._alone -= 1
            return False
        return True

    def judge(self, took_s: float, alone_s: float) -> None:
        """Learn how long a shared batch took, and would have taken one process.

        Each time that help was in vain, twice as many batches are played alone.
        """
        if took_s < alone_s:
            self._next_alone = 1
            return
        self._alone = self._next_alone
        self._next_alone = min(2 * self._next_alone, ALONE_MOST)
