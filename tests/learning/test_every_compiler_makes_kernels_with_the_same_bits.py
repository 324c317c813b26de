"""Whatever compiles the kernels, CartPole's episodes have the bits of Gymnasium's sine and cosine.

Zig, which compiles where nothing else is at hand, has a sine of its own, which is not to be used.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from fedpg_common.environments import make_environments
from fedpg_common.environments.cartpole import CartPoleBatch
from fedpg_common.learning.kernels import library
from fedpg_common.learning.kernels.interface import Kernels
from fedpg_common.tasks import CARTPOLE

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


def episodes(kernels: Kernels) -> list[bytes]:
    """Long ones, of a linear controller: what differs in the last bit of an angle needs time to be seen."""
    environments = make_environments(CARTPOLE)
    assert isinstance(environments, CartPoleBatch)
    pushes = np.array([0.5, 1.0, 10.0, 5.0])
    theta = np.concatenate((pushes, -pushes, [0, 0], [-1, 1, 1, -1], [0, 0])).astype(np.float32)
    uniforms = np.random.default_rng(3).random(100_000, np.float32)
    results = kernels.open_mlp((4, 2, 2), "relu", theta).cartpole(environments.physics, np.arange(200), 500, uniforms)
    environments.close()
    assert len(results[1]) > 50_000
    return [result.tobytes() for result in results]


@pytest.mark.parametrize("name", COMPILERS)
def test_episodes_have_the_same_bits(name: str, tmp_path: Path) -> None:
    if not is_there(COMPILERS[name]):
        pytest.skip(f"{name} is not installed")
    assert library.is_compiled()
    assert episodes(compiled_by(COMPILERS[name], tmp_path)) == episodes(library.kernels())
