"""What the fork server imports beforehand, so that ten processes start in seconds.

Whatever cannot be imported is left to the process whose task needs it, to say so: that the library is missing, say, or
that MUJOCO_GL names nothing that this machine can draw with.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from contextlib import suppress

MODULES = (
    "fedpg_lab.local.children",
    "fedpg_lab.local.in_process.child",
    "fedpg_server.observers.event_files",
    "Box2D",
    "mujoco",
)


def preload(modules: Sequence[str]) -> None:
    """Import them as far as possible."""
    for module in modules:
        with suppress(Exception):  # they fail in any way they like: mujoco with AttributeError and RuntimeError
            importlib.import_module(module)


preload(MODULES)
