"""The fork server that children of a local federation come from.

It takes as long to import what they need as its parent takes to import what it needs itself: a command that will have
children starts it first. So nothing but the standard library is imported here.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext

PRELOADED = ("fedpg_lab.local.preloaded",)
KEYBOARD_SIGNALS = (signal.SIGINT, signal.SIGQUIT)
SAFE_PATH, OURS = "PYTHONSAFEPATH", "fedpg"
"""A variable of Python's, and the value by which the fork server knows that it is not the user's."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def fork_server() -> ForkServerContext:
    """The context to start children with; its server process runs on return. May be called again."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    before = dict(os.environ)
    os.environ.update(ONE_THREAD)  # read once, when the linear algebra libraries are imported there
    # Both are started as `python -c …`, for which the working folder comes before the standard library: a random.py
    # there would be imported in place of Python's own.
    os.environ.setdefault(SAFE_PATH, OURS)
    try:
        resource_tracker.ensure_running()  # it unblocks signals itself
        # A terminal's Ctrl-C reaches the fork server too, which is to end with us and not with a traceback of its own
        # while it imports. It inherits that the signals are blocked; here they arrive a moment later.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, KEYBOARD_SIGNALS)
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return context
