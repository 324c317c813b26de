"""proto <- common <- server, client <- lab: no package imports one above it, and server and client never each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "proto/fedpg": {"fedpg"},
    "common/fedpg_common": {"fedpg", "fedpg_common"},
    "server/fedpg_server": {"fedpg", "fedpg_common", "fedpg_server"},
    "client/fedpg_client": {"fedpg", "fedpg_common", "fedpg_client"},
    "lab/fedpg_lab": {"fedpg", "fedpg_common", "fedpg_server", "fedpg_client", "fedpg_lab"},
}
OURS = {"fedpg", *(Path(folder).name for folder in MAY_IMPORT)}


def imports_of(path: Path) -> Iterator[str]:
    """The top-level packages that a module names, wherever in it it does."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_package_imports_only_what_lies_below_it(folder: str) -> None:
    modules = sorted((ROOT / folder).rglob("*.py"))
    assert modules
    upwards = {
        str(path.relative_to(ROOT)): bad
        for path in modules
        if (bad := (set(imports_of(path)) & OURS) - MAY_IMPORT[folder])
    }
    assert upwards == {}


def test_the_walk_sees_imports_within_functions(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("import os\n\ndef f():\n    from fedpg_server import run\n    import fedpg_lab.cli\n")
    assert set(imports_of(path)) == {"os", "fedpg_server", "fedpg_lab"}
