"""Drawing actions in one order, though several processes play the episodes.

A batch's stream has a number for each step of each episode: those of the first time step come first, then those of
the second one for the episodes that live on, and so forth. So whoever plays a share of the episodes must know at every
time step how many live in the other shares, and nothing else: each process has the stream, and passes over the numbers
of the others.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

AWAKE_S = 2e-4
"""How long a process stays awake for another one's count: as long as that one may need for its share of a step."""
ASLEEP_S = 5e-5
"""How long it then sleeps before it looks again: the other one may be waiting for a core."""
DRAWS_AT_ONCE = 1024
LOOKS = 32
"""Between two looks at the clock."""
ROW = 8
"""Words a process: a cache line of its own."""
WISH, OFFER = 2, 3
"""Words of a process's row, for `trading`."""
LOG = 4096
"""Words for the actions of an episode that is offered, by the process that offers it."""
LIVE_MASK, TAKEN, GONE, STEP_AT = (1 << 32) - 1, 1 << 32, 1 << 33, 34
"""Of the word that tells how many episodes live: their number, two flags, and where the time step begins."""


class LiveCounts:
    """How many episodes live in each process, by time step, in memory that the processes share.

    A process writes its number of step t where it wrote that of step t − 2: nobody can need that one any more, since
    everybody has told theirs of step t − 1. Step and number are one word, so that no other word need be seen first.
    """

    def __init__(self, processes: int, descriptor: int | None = None) -> None:
        """Make room for so many processes, or map the room behind a descriptor. Raises OSError."""
        self.processes = processes
        size = processes * (ROW + LOG) * 8
        self.descriptor = _open_memory(size) if descriptor is None else descriptor
        self._memory = mmap.mmap(self.descriptor, size)
        self.words = memoryview(self._memory).cast("q")
        self._zeros = memoryview(bytes(size)).cast("q")
        self.log_at = processes * ROW
        """Where the first process's log begins."""

    def clear(self) -> None:
        """Forget all numbers, before a batch starts."""
        self.words[:] = self._zeros

    def close(self) -> None:
        """Release the memory."""
        self.words.release()
        self._memory.close()
        os.close(self.descriptor)


def _open_memory(size: int) -> int:
    """A file descriptor of so many bytes, all 0, which belong to no file that anybody sees."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("fedpg-lockstep")
    else:
        with tempfile.TemporaryFile(prefix="fedpg-lockstep") as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor


class ShareOfDraws:
    """What one process draws of a batch's stream, for the episodes of its share."""

    def __init__(
        self, memory: LiveCounts, own: int, shares: int, rng: np.random.Generator, check: Callable[[], None]
    ) -> None:
        """Share number `own`, from 0, of `shares`; of `rng` more is drawn than is used.

        `check` is called while one of the others is late, and raises if it will never answer.
        """
        self.memory = memory
        self.own = own
        self.shares = shares
        self.elsewhere = 1
        """Episodes that lived in the other shares at the last time step; before the first, there may be some."""
        self._others = [share for share in range(shares) if share != own]
        self._rng = rng
        self._check = check
        self._step = 0
        self._numbers = np.empty(0, np.float32)
        self._used = 0
        self.waited_s = 0.0
        """For the others' counts."""

    def meet(self, live: int, has_taken: bool, idle: Callable[[], bool]) -> bool:
        """Tell the others how many episodes live here at the next time step, and learn how many live there.

        `has_taken` says that one of them lived in the other share, of two, until now; returns whether that one has
        taken one from here: it is counted there. While nothing is learned, `idle` does something else for a moment, or
        returns that there is nothing.
        """
        self._tell(live, TAKEN if has_taken else 0)
        before = after = 0
        is_taken = False
        for other in tuple(self._others):
            word = self._ask(other, idle)
            theirs = word & LIVE_MASK
            is_taken = is_taken or bool(word & TAKEN)
            if word & GONE:
                self._others.remove(other)  # it tells nothing more
            elif other < self.own:
                before += theirs
            else:
                after += theirs
        self._before, self._after = before - (has_taken and self.own == 1), after - (has_taken and self.own == 0)
        self.elsewhere = self._before + self._after
        return is_taken

    def draw(self, live: int) -> NDArray[np.float32]:
        """The uniform numbers of this time step for the `live` episodes that are here now, shape (live,)."""
        total = self._before + live + self._after
        if self._used + total > len(self._numbers):
            more = self._rng.random(DRAWS_AT_ONCE + total, np.float32)
            self._numbers, self._used = np.concatenate((self._numbers[self._used :], more)), 0
        first = self._used + self._before
        self._used += total
        return self._numbers[first : first + live]

    def leave(self) -> None:
        """Tell the others that no episode will live here any more."""
        self._tell(0, GONE)

    def _tell(self, live: int, flags: int) -> None:
        self._step = step = self._step + 1
        self.memory.words[self.own * ROW + (step & 1)] = step << STEP_AT | flags | live

    def _ask(self, other: int, idle: Callable[[], bool]) -> int:
        words, step, place = self.memory.words, self._step, other * ROW + (self._step & 1)
        word = words[place]
        if word >> STEP_AT == step:
            return word
        began_s = time.perf_counter()
        while True:
            for _ in range(LOOKS):
                word = words[place]
                if word >> STEP_AT == step:
                    self.waited_s += time.perf_counter() - began_s
                    return word
                if idle():
                    break
            if time.perf_counter() - began_s > AWAKE_S:
                self._check()
                time.sleep(ASLEEP_S)
