"""setuptools, with a C compiler from PyPI (Zig's) where the machine has none: the kernels are compiled everywhere."""

from __future__ import annotations

import os
import shutil
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (  # noqa: F401  # the rest of the interface, as it is
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

COMPILERS = ("cc", "gcc", "clang")
ZIG = "ziglang>=0.13,<1"


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """Setuptools' own, and the compiler."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_compiler()]


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """Setuptools' own, and the compiler."""
    return [*build_meta.get_requires_for_build_editable(config_settings), *_compiler()]


def _compiler() -> list[str]:
    is_there = os.environ.get("CC") or any(map(shutil.which, COMPILERS))
    return [] if is_there else [ZIG]
