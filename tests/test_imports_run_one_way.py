"""proto <- common <- server, client <- lab: no package imports one above it, and server and client never each other.

Inside a package the same holds for its rooms (folders, and modules that lie beside them): there is an order in which
each imports only what comes before it.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
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


def modules_named_in(path: Path, package: Path) -> Iterator[str]:
    """The modules of `package`, as paths below it, that a module names."""
    yield from named_in(ast.parse(path.read_text(encoding="utf-8")), package.name)


def named_in(tree: ast.AST, package: str) -> Iterator[str]:
    """The modules of `package`, or names in them, as paths below it, that a program names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            named = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in named:
            top, *rest = name.split(".")
            if top == package and rest:
                yield "/".join(rest)


def rooms_of(package: Path) -> dict[str, set[str]]:
    """For each room of a package, the rooms that its modules import."""
    imports = defaultdict(set)
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).parts[0].removesuffix(".py")
        for named in modules_named_in(path, package):
            imports[room].add(named.partition("/")[0])
        imports[room].discard(room)
    return dict(imports)


@pytest.mark.parametrize("folder", sorted(set(MAY_IMPORT) - {"proto/fedpg"}))
def test_the_rooms_of_a_package_import_one_way(folder: str) -> None:
    rooms = rooms_of(ROOT / folder)
    assert any(rooms.values())
    try:
        tuple(TopologicalSorter(rooms).static_order())
    except CycleError as error:
        pytest.fail(f"these rooms of {folder} import each other in a circle: {' -> '.join(error.args[1])}")


def modules_of(package: Path) -> dict[str, set[str]]:
    """For each module of a package, those that it imports while it is imported itself."""
    imports: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        named = {name for name in named_in(tree, package.name) if (package / name).with_suffix(".py").is_file()}
        named |= {name.rpartition("/")[0] for name in named_in(tree, package.name)} & known_modules(package)
        imports[str(path.relative_to(package).with_suffix(""))] = named
    return imports


def known_modules(package: Path) -> set[str]:
    """The modules of a package, as paths below it."""
    return {str(path.relative_to(package).with_suffix("")) for path in package.rglob("*.py")}


@pytest.mark.parametrize("folder", sorted(set(MAY_IMPORT) - {"proto/fedpg"}))
def test_no_module_needs_itself_to_be_imported(folder: str) -> None:
    try:
        tuple(TopologicalSorter(modules_of(ROOT / folder)).static_order())
    except CycleError as error:
        pytest.fail(f"these modules of {folder} import each other in a circle: {' -> '.join(error.args[1])}")


def test_a_circle_of_rooms_is_seen(tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "cellar").mkdir(parents=True)
    (package / "cellar" / "wine.py").write_text("from package import attic\n")
    (package / "attic.py").write_text("def f():\n    from package.cellar.wine import bottle\n")
    with pytest.raises(CycleError):
        tuple(TopologicalSorter(rooms_of(package)).static_order())


def test_a_circle_of_modules_is_seen_in_one_room_too(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "hen.py").write_text("from package.egg import shell\n")
    (package / "egg.py").write_text("from package import hen\n")
    with pytest.raises(CycleError):
        tuple(TopologicalSorter(modules_of(package)).static_order())
