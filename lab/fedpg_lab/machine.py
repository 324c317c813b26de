"""The machine that a federation runs on."""

from __future__ import annotations

import platform
import re
from importlib import metadata
from pathlib import Path

from fedpg_common.machine import cores

LIBRARIES = ("fedpg", "torch", "numpy", "gymnasium", "mujoco", "Box2D", "grpcio")


def machine() -> dict[str, str]:
    """What a page was made on and with."""
    described = {"Python": platform.python_version(), "system": platform.platform(), "processor": _processor(),
                 "cores": str(cores())}  # fmt: skip
    for name in LIBRARIES:
        described[name] = metadata.version(name)
    return described


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1) if found else platform.machine()
