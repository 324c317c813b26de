"""An agent's process that was told to stop, and whose environment does not return from the call that it is in."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fedpg_common.errors import ExitCode

LOOK_EVERY_S = 0.5
PATIENCE_S = 10.0
"""How long an environment may take to return from a call: what it samples is not wanted any more."""
HURRIED_PATIENCE_S = 1.0
"""The same once the process was told twice."""

log = logging.getLogger(__name__)


@contextmanager
def hung_calls_are_cut_off(signals: list[int], code: Callable[[], ExitCode]) -> Iterator[None]:
    """End the process with `code()` if what is within does not end for some seconds after `signals` has the first.

    A thread cannot be ended from outside, so that all of the process is. Nothing is lost: an agent keeps nothing.
    """
    over = threading.Event()
    threading.Thread(target=_look_on, args=(signals, code, over), name="look-on", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _look_on(signals: list[int], code: Callable[[], ExitCode], over: threading.Event) -> None:
    told_s: float | None = None
    while not over.wait(LOOK_EVERY_S):
        if not signals:
            continue
        told_s = time.monotonic() if told_s is None else told_s
        patience_s = PATIENCE_S if len(signals) == 1 else HURRIED_PATIENCE_S
        if time.monotonic() - told_s >= patience_s:
            log.error("an environment does not return from the call that it is in: ended in the middle of it")
            os._exit(code())
