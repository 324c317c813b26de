"""What of the machine this process may use."""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""A container's share of the processors: microseconds that it may compute in each period, and the period."""


def cores(quota: Path = CPU_QUOTA) -> int:
    """The cores that this process may use, at least 1: by its affinity, and by its container's quota if it has one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        compute, period = quota.read_text(encoding="ascii").split()
        share = math.ceil(int(compute) / int(period))
    except (OSError, ValueError, ZeroDivisionError):  # there is none, or it is "max"
        return allowed
    return max(1, min(allowed, share))


def cores_from_here() -> Iterator[int | None]:
    """The cores that this process may use, over and over, beginning with the one that it uses now.

    None for each of them where the system does not say.
    """
    ask = _core_of_thread()
    here = -1 if ask is None else ask()
    if here < 0:
        return itertools.repeat(None)
    return itertools.cycle([here, *sorted(os.sched_getaffinity(0) - {here})])


@functools.cache
def _core_of_thread() -> Callable[[], int] | None:
    """The C library's function that says on which core the calling thread runs, where it has one."""
    return getattr(ctypes.CDLL(None), "sched_getcpu", None) if sys.platform == "linux" else None
