"""What of the machine this process may use."""

from __future__ import annotations

import math
import os
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
