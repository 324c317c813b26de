"""How long a check waits for a part that does not answer, and what is said meanwhile."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from fedpg_common.others_code import place_of

Tell = Callable[[str], None]

AGGREGATOR_MAX_S = 60.0
"""For all calls of one promise, of which the longest may take 20 s of processor time."""
ATTACK_MAX_S = 300.0
"""The same for attacks, whose rounds are several, of 10 s each at most."""


def tell_nobody(_sentence: str) -> None:
    """For a check that nobody watches."""


class NoAnswerError(SystemExit):
    """Ends a part in the middle of its work, past what it handles itself."""


@dataclass(frozen=True)
class Patience:
    """What is done about a promise whose test takes long."""

    limit_s: float
    tell: Tell = tell_nobody
    told_after_s: float = 10.0

    @contextmanager
    def watched(self, promise: str) -> Iterator[None]:
        """Say once, from another thread, that the test takes long, and where; raise NoAnswerError in it at the limit.

        The latter in the main thread alone, and not before code that is not Python's returns.
        """
        waiting = threading.get_ident()

        def tell() -> None:
            place = place_of(sys._current_frames().get(waiting))
            self.tell(f"no answer for {self.told_after_s:g} s{place}, and {self.limit_s:g} s at most "
                      f"(promise: {promise})")  # fmt: skip

        teller = threading.Timer(self.told_after_s, tell)
        teller.daemon = True
        teller.start()
        try:
            with self._alarm():
                yield
        finally:
            teller.cancel()

    @contextmanager
    def _alarm(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
            yield
            return
        is_armed = True

        def end(_number: int, _frame: FrameType | None) -> None:
            if is_armed:
                raise NoAnswerError(f"no answer for {self.limit_s:g} s")

        before = signal.signal(signal.SIGALRM, end)
        # Every second again: the first may fall where the part swallows it.
        left_s, every_s = signal.setitimer(signal.ITIMER_REAL, self.limit_s, 1.0)
        try:
            try:
                yield
            finally:
                is_armed = False
        finally:
            signal.setitimer(signal.ITIMER_REAL, left_s, every_s)
            signal.signal(signal.SIGALRM, before)
