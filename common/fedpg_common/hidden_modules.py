"""Modules of users that have the name of another, which Python takes in their place."""

from __future__ import annotations

import importlib.machinery
import os
import sys


def hidden_by(module: str) -> str:
    """What is said of an imported module if a file of the same name lies later on Python's path; "" otherwise.

    The standard library comes first there, then what is installed, and then the folders of users.
    """
    top = module.partition(".")[0]
    loaded = getattr(sys.modules.get(top), "__file__", None)
    for place in sys.path:
        try:
            spec = importlib.machinery.PathFinder.find_spec(top, [place or os.curdir])
        except (ImportError, OSError, ValueError):
            continue
        if spec is None or not spec.has_location or spec.origin is None:
            continue
        if loaded is None or not os.path.samefile(spec.origin, loaded):
            what = f"the module in {loaded}" if loaded else "a module that is built into Python"
            return f"; {top} is {what}, which hides {spec.origin}: give that file another name"
    return ""
