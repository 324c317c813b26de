"""What the fork server imports beforehand, so that ten processes start in seconds.

Whatever cannot be imported is left to the process whose task needs it, to say so: that the library is missing, say, or
that MUJOCO_GL names nothing that this machine can draw with.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from contextlib import suppress

from fedpg_lab.local.fork_server import OURS, SAFE_PATH

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


preload(MODULES)  # of which mujoco's windows start a Python of their own, to look for a library
if os.environ.get(SAFE_PATH) == OURS:
    del os.environ[SAFE_PATH]  # it is for the start alone: programs that an environment starts are not to inherit it
