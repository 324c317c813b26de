"""docs/results.md shows what the runs kept in docs/data come to, and its figures can be drawn of them again."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest
from fedpg_lab.experiments.plan import read_experiment, shipped
from fedpg_lab.figures.curves import find_runs
from support.documentation import ROOT
from support.lab import Command

DATA = ROOT / "docs" / "data"
PAGE = ROOT / "docs" / "results.md"
DATA_BYTES_MAX = 800_000
FOLDERS = sorted(place for place in DATA.iterdir() if place.is_dir())


@pytest.fixture(scope="module")
def results() -> ModuleType:
    """benchmarks/results.py as a module."""
    specification = importlib.util.spec_from_file_location("results_tables", ROOT / "benchmarks" / "results.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_number_of_the_tables_is_that_of_the_data(folder: Path, results: ModuleType) -> None:
    page = PAGE.read_text(encoding="utf-8")
    missing = [line for table in results.tables([folder]) for line in table.splitlines() if line not in page]
    assert not missing, "python benchmarks/results.py prints the tables:\n" + "\n".join(missing)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_data_is_of_an_experiment_that_a_reader_can_run(folder: Path) -> None:
    files = [folder.name] if folder.name in shipped() else map(str, DATA.glob(f"{folder.name}*.toml"))
    planned = [run.federation for file in files for run in read_experiment(file).runs]
    for run in find_runs([folder]):
        assert run.federation in planned, f"{run.folder}: no experiment has such a run"


def figure_commands() -> list[list[str]]:
    """The page's `fedpg figure` commands, without `fedpg`."""
    lines = re.findall(r"^fedpg (figure docs/data.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("arguments", figure_commands(), ids=lambda arguments: arguments[-1])
def test_the_pages_figures_are_drawn_of_the_data_again(
    arguments: list[str], fedpg: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    place = arguments.index("--out") + 1
    picture = Path(arguments[place])
    assert (ROOT / picture).with_suffix(".png").exists()
    assert f"]({picture.name})" in PAGE.read_text(encoding="utf-8")
    arguments[place] = str(tmp_path / picture.name)
    code, text, error = fedpg(*arguments)
    assert code == 0, error
    assert text.startswith("Drew ")
    assert (tmp_path / picture.name).read_bytes().startswith(b"\x89PNG")


def test_the_page_says_how_each_of_its_figures_is_drawn() -> None:
    shown = set(re.findall(r"\]\(([\w-]+\.png)\)", PAGE.read_text(encoding="utf-8")))
    drawn = {Path(arguments[arguments.index("--out") + 1]).name for arguments in figure_commands()}
    assert shown == drawn


def test_the_data_stays_small() -> None:
    size = sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file())
    assert size < DATA_BYTES_MAX
