"""A process that is to end, and a part of it that does not return from the call that it is in."""

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
"""How long an environment may take to return from a call: what it does is not wanted any more."""
HURRIED_PATIENCE_S = 1.0
"""The same once the process was told twice."""

log = logging.getLogger(__name__)


@contextmanager
def hung_calls_are_cut_off(
    signals: list[int], code: Callable[[], ExitCode], is_over: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """End the process with `code()` if what is within does not end for some seconds after it should.

    That is after `signals` has the first one, or `is_over`. A thread cannot be ended from outside, so that all of the
    process is: whoever uses this has nothing to lose by then, or has stored it.
    """
    ended = threading.Event()
    threading.Thread(target=_look_on, args=(signals, code, is_over, ended), name="look-on", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _look_on(
    signals: list[int], code: Callable[[], ExitCode], is_over: Callable[[], bool], ended: threading.Event
) -> None:
    since_s: float | None = None
    while not ended.wait(LOOK_EVERY_S):
        if not (signals or is_over()):
            continue
        since_s = time.monotonic() if since_s is None else since_s
        patience_s = PATIENCE_S if len(signals) <= 1 else HURRIED_PATIENCE_S
        if time.monotonic() - since_s >= patience_s:
            log.error("an environment, or another part of yours, does not return from the call that it is in: "
                      "ended in the middle of it")  # fmt: skip
            os._exit(code())
