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
"""Numbers a process: a cache line of its own."""
LIVE_BITS = 32
LIVE_MASK = (1 << LIVE_BITS) - 1


class LiveCounts:
    """How many episodes live in each process, by time step, in memory that the processes share.

    A process writes its number of step t where it wrote that of step t − 2: nobody can need that one any more, since
    everybody has told theirs of step t − 1. Step and number are one word, so that no other word need be seen first.
    """

    def __init__(self, processes: int, descriptor: int | None = None) -> None:
        """Make room for so many processes, or map the room behind a descriptor. Raises OSError."""
        self.processes = processes
        size = processes * ROW * 8
        self.descriptor = _open_memory(size) if descriptor is None else descriptor
        self._memory = mmap.mmap(self.descriptor, size)
        self.words = memoryview(self._memory).cast("q")

    def clear(self) -> None:
        """Forget all numbers, before a batch starts."""
        for place in range(len(self.words)):
            self.words[place] = 0

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
        self, counts: LiveCounts, own: int, shares: int, rng: np.random.Generator, check: Callable[[], None]
    ) -> None:
        """Share number `own`, from 0, of `shares`; of `rng` more is drawn than is used.

        `check` is called while one of the others is late, and raises if it will never answer.
        """
        self._words = counts.words
        self._own = own
        self._others = [share for share in range(shares) if share != own]
        self._rng = rng
        self._check = check
        self._step = 0
        self._numbers = np.empty(0, np.float32)
        self._used = 0
        self.waited_s = 0.0
        """For the others' counts."""

    def next(self, live: int) -> NDArray[np.float32]:
        """The uniform numbers of the next time step for this share's `live` episodes, shape (live,)."""
        self._tell(live)
        before = after = 0
        for other in tuple(self._others):
            theirs = self._ask(other)
            if not theirs:
                self._others.remove(other)  # it tells nothing more
            elif other < self._own:
                before += theirs
            else:
                after += theirs
        if self._used + before + live + after > len(self._numbers):
            more = self._rng.random(DRAWS_AT_ONCE + before + live + after, np.float32)
            self._numbers, self._used = np.concatenate((self._numbers[self._used :], more)), 0
        first = self._used + before
        self._used = first + live + after
        return self._numbers[first : first + live]

    def end(self) -> None:
        """Tell the others that no episode of this share lives any more."""
        self._tell(0)

    def _tell(self, live: int) -> None:
        self._step = step = self._step + 1
        self._words[self._own * ROW + (step & 1)] = step << LIVE_BITS | live

    def _ask(self, other: int) -> int:
        words, step, place = self._words, self._step, other * ROW + (self._step & 1)
        word = words[place]
        if word >> LIVE_BITS == step:
            return word & LIVE_MASK
        began_s = time.perf_counter()
        while True:
            for _ in range(LOOKS):
                word = words[place]
                if word >> LIVE_BITS == step:
                    self.waited_s += time.perf_counter() - began_s
                    return word & LIVE_MASK
            if time.perf_counter() - began_s > AWAKE_S:
                self._check()
                time.sleep(ASLEEP_S)
