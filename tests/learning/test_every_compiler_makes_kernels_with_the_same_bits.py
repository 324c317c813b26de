"""Whatever compiles the kernels, CartPole's episodes have the bits of Gymnasium's sine and cosine.

Zig, which compiles where nothing else is at hand, has a sine of its own, which is not to be used. The images are made
with it: tests/containers compares them.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
from fedpg_common.learning.kernels import library
from fedpg_common.learning.kernels.interface import Kernels
from support.long_episodes import digest_of_long_episodes

SOURCE = Path(library.__file__).with_name("kernels.c")
FLAGS = ["-O1", "-std=gnu11", "-ffp-contract=off", "-fPIC", "-shared", "-pthread", "-w"]
COMPILERS = {
    "cc": ["cc"],
    "clang": ["clang"],
    "zig": [sys.executable, "-m", "ziglang", "cc", "-mcpu=baseline"],
}


def is_there(compiler: list[str]) -> bool:
    if "ziglang" in compiler:
        return importlib.util.find_spec("ziglang") is not None
    return shutil.which(compiler[0]) is not None


def compiled_by(compiler: list[str], folder: Path) -> Kernels:
    """The kernels out of a folder of their own."""
    subprocess.run([*compiler, *FLAGS, "-o", str(folder / library.NAME), str(SOURCE), "-lm"], check=True, timeout=600)
    unkept = library.load.__wrapped__
    with patch.object(library, "__file__", str(folder / "library.py")), patch.object(library, "load", unkept):
        assert library.is_compiled()
        return library.kernels.__wrapped__()


@pytest.mark.parametrize("name", [name for name, compiler in COMPILERS.items() if is_there(compiler)])
def test_episodes_have_the_same_bits(name: str, tmp_path: Path) -> None:
    assert library.is_compiled()
    compiled = compiled_by(COMPILERS[name], tmp_path)
    assert digest_of_long_episodes(compiled) == digest_of_long_episodes(library.kernels())
