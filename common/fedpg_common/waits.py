"""Says for which method of others' code a process waits, and since when: code that never returns is silent itself.

Environments above all; and what is called with `others_code.asked`, as attacks and observers are. Nothing is written
down while environments are stepped, which happens a million times a second: a thread beside them looks at the other
threads' frames now and then. It cannot while a simulator in C holds the interpreter's lock.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

from fedpg_common.environments.factory import make_environments
from fedpg_common.environments.guard import Guard, GuardedEnvironment, made_again
from fedpg_common.environments.guarded_batch import GuardedBatch
from fedpg_common.others_code import asked, place_of
from fedpg_common.tasks import Task

LOOK_EVERY_S = 1.0
TELL_AFTER_S = 10.0
TELL_EVERY_S = 60.0
"""After the first time."""

_METHODS: dict[CodeType, str] = {
    GuardedEnvironment.reset.__code__: "reset",
    GuardedEnvironment.step.__code__: "step",
    GuardedEnvironment.render.__code__: "render",
    GuardedEnvironment.close.__code__: "close",
    GuardedBatch.close.__code__: "close",
    made_again.__code__: "__init__",
    make_environments.__code__: "__init__",
}
_BATCH_METHOD = GuardedBatch._asked.__code__
_PART_METHOD = asked.__code__


@dataclass(frozen=True)
class Waiting:
    """A thread waits for an environment, or for another part of somebody's own."""

    thread: int
    """Its `threading.get_ident()`."""
    what: str
    """Its name, the method and the line that it is at, in words."""
    seconds: float
    """Since when, to within the time between two looks."""

    def __str__(self) -> str:
        """One sentence."""
        return f"waiting for {self.seconds:.0f} s for {self.what}"


@dataclass
class _Call:
    """A call that a thread was in at the last look. The frame is held, so that no later call can be taken for it."""

    frame: FrameType
    since_s: float
    told_s: float | None = None


class Waits:
    """Which threads are in the same call of others' code for long."""

    def __init__(
        self, clock: Callable[[], float], frames: Callable[[], Mapping[int, FrameType]] = sys._current_frames
    ) -> None:
        """`clock` gives seconds; `frames` each thread's innermost frame."""
        self._clock = clock
        self._frames = frames
        self._calls: dict[int, _Call] = {}

    def look(self) -> tuple[list[Waiting], list[int]]:
        """Who waits for so long that it is to be told, again, and which threads, told of before, wait no more."""
        now_s = self._clock()
        calls: dict[int, _Call] = {}
        news: list[Waiting] = []
        for thread, innermost in self._frames().items():
            if (frame := _call_in(innermost)) is None:
                continue
            before = self._calls.get(thread)
            call = calls[thread] = before if before is not None and before.frame is frame else _Call(frame, now_s)
            if now_s - call.since_s >= TELL_AFTER_S and (call.told_s is None or now_s - call.told_s >= TELL_EVERY_S):
                call.told_s = now_s
                news.append(Waiting(thread, _described(frame, innermost), now_s - call.since_s))
        over = [
            thread
            for thread, call in self._calls.items()
            if call.told_s is not None and (thread not in calls or calls[thread] is not call)
        ]
        self._calls = calls
        return news, over


@contextmanager
def telling_of_waits(tell: Callable[[int, Waiting | None], None]) -> Iterator[None]:
    """Meanwhile, `tell` of each of this process's threads that waits long, every minute, and with None when it is over.

    It is called in a thread of its own.
    """
    ended = threading.Event()

    def look_on() -> None:
        waits = Waits(time.monotonic)
        while not ended.wait(LOOK_EVERY_S):
            news, over = waits.look()
            for thread in over:
                tell(thread, None)
            for waiting in news:
                tell(waiting.thread, waiting)

    looking = threading.Thread(target=look_on, name="waits", daemon=True)
    looking.start()
    try:
        yield
    finally:
        ended.set()
        looking.join()


def _call_in(frame: FrameType | None) -> FrameType | None:
    """The frame, of one that it was called by or itself, which asks somebody's code for something: the innermost."""
    while frame is not None:
        if frame.f_code in _METHODS or frame.f_code in (_BATCH_METHOD, _PART_METHOD):
            return frame
        frame = frame.f_back
    return None


def _described(call: FrameType, innermost: FrameType | None) -> str:
    names: Mapping[str, Any] = call.f_locals
    method = _METHODS.get(call.f_code) or str(names.get("method", "rollout"))
    guard, task = names.get("guard") or getattr(names.get("self"), "_guard", None), names.get("task")
    if guard is None and isinstance(task, Task):
        guard = Guard.of(task)
    who = guard.who if isinstance(guard, Guard) else str(names.get("who", "an environment"))
    return f"{method} of {who}{place_of(innermost, call)}"
