"""Generate the Python of the contract from its .proto files, or check that it is in step with them.

Usage: python proto/generate.py [--check]
"""

from __future__ import annotations

import filecmp
import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
SOURCES = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("fedpg/v1/*.proto"))


def generate(out: Path) -> None:
    """Write *_pb2.py, *_pb2_grpc.py and their type stubs below `out`. Raises SystemExit if protoc fails."""
    well_known = resources.files("grpc_tools") / "_proto"
    arguments = ["protoc", f"-I{ROOT}", f"-I{well_known}", f"--python_out={out}", f"--grpc_python_out={out}"]
    # The plugins lie beside this interpreter, which need not be on the PATH.
    programs = Path(sys.executable).parent
    arguments += [f"--plugin={name}={programs / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    arguments += [f"--mypy_out=quiet:{out}", f"--mypy_grpc_out=quiet:{out}", *SOURCES]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed")


def differing(fresh: Path) -> list[str]:
    """Generated files that differ between `fresh` and the committed ones, or exist on one side only."""
    made = {path.relative_to(fresh) for path in fresh.rglob("*_pb2*")}
    committed = {path.relative_to(ROOT) for path in ROOT.rglob("*_pb2*.py*") if path.suffix in (".py", ".pyi")}
    return sorted(
        str(name)
        for name in made | committed
        if not ((fresh / name).exists() and (ROOT / name).exists())
        or not filecmp.cmp(fresh / name, ROOT / name, shallow=False)
    )


def main() -> None:
    """Generate in place, or with --check compare and exit with 1 if anything differs."""
    if sys.argv[1:] == ["--check"]:
        with tempfile.TemporaryDirectory() as folder:
            generate(Path(folder))
            if stale := differing(Path(folder)):
                raise SystemExit(f"out of step with the .proto files: {', '.join(stale)}; run `make proto`")
        print("The generated code is in step with the .proto files.")
    elif sys.argv[1:]:
        raise SystemExit(__doc__)
    else:
        generate(ROOT)


if __name__ == "__main__":
    main()
