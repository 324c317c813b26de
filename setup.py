"""Compiles the kernels: a plain C library, called through ctypes, so that no Python headers are needed."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# No -ffast-math, no fused multiply-add: the same bits on every processor. See kernels.c.
FLAGS = [
    "-O3", "-std=gnu11", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared", "-g0",
    "-Wno-psabi", "-pthread",
]  # fmt: skip
FOLDER = "common/fedpg_common/learning/kernels"
SOURCE, PARTS = f"{FOLDER}/kernels.c", [f"{FOLDER}/inner_loop.h", f"{FOLDER}/second_thread.h"]


class BuildKernels(build_ext):
    """Compiles with whatever compiler there is. Without any, FedPG computes the same in numpy, more slowly."""

    def get_ext_filename(self, fullname: str) -> str:
        """A name that does not depend on Python's version, nor does the library."""
        return str(Path(*fullname.split("."))) + ".so"

    def build_extension(self, ext: Extension) -> None:
        """Compile and link in one go."""
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        own = [shlex.split(os.environ["CC"])] if os.environ.get("CC") else []
        with tempfile.TemporaryDirectory(prefix="fedpg-kernels-") as cache:
            self._compile(ext, target, own, cache)

    def _compile(self, ext: Extension, target: Path, own: list[list[str]], cache: str) -> None:
        # Zig compiles its own C library first and would leave fifty megabytes in the user's cache.
        environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
        # Zig compiles for the very processor that it runs on unless it is told otherwise; an image is moved to others.
        zig = [sys.executable, "-m", "ziglang", "cc", "-mcpu=baseline"]
        for compiler in (*own, ["cc"], ["gcc"], ["clang"], zig):
            try:
                subprocess.run([*compiler, *FLAGS, "-o", str(target), *ext.sources, "-lm"], check=True, env=environment)
                return
            except (OSError, subprocess.CalledProcessError) as error:
                print(f"{' '.join(compiler)} cannot compile {SOURCE}: {error}", file=sys.stderr)
        print("no C compiler works here: FedPG will compute in numpy, with the same results", file=sys.stderr)


setup(
    ext_modules=[Extension("fedpg_common.learning.kernels._kernels", [SOURCE], depends=PARTS, optional=True)],
    cmdclass={"build_ext": BuildKernels},
)
