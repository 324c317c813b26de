"""A part of one's own is named by its module: a file's name, and a module that another hides, are told as such."""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fedpg_common.choices import Choices
from fedpg_common.environments import make_environments
from fedpg_common.errors import ExitCode, UsageError
from fedpg_common.modules import make_folders_importable
from fedpg_common.tasks import CARTPOLE
from support.terminal import command_line, environment

RULES = Choices[object]("aggregator", {"mean": "statistics:mean"})
CLASS = "class Good:\n    pass\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder whose modules can be imported."""
    import sys

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    make_folders_importable()
    yield tmp_path
    for name in ("a_rule_of_mine", "a_package_of_mine", "a_package_of_mine.py"):
        sys.modules.pop(name, None)


def refusal(name: str) -> str:
    with pytest.raises(UsageError) as refused:
        RULES.find(RULES.parse(name).name)
    return str(refused.value)


@pytest.mark.parametrize("is_there", [True, False])
def test_a_file_with_its_suffix(folder: Path, is_there: bool) -> None:
    if is_there:
        (folder / "a_rule_of_mine.py").write_text(CLASS)
    sentence = "aggregator a_rule_of_mine.py:Good: a module is named, and not its file: write a_rule_of_mine:Good"
    assert refusal("a_rule_of_mine.py:Good") == sentence


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("./rule.py:Good", "write rule:Good"),
        ("sub/rule.py:Good", "write rule:Good, in its folder sub or with that on PYTHONPATH"),
        ("/a/b/rule.py:Good", "write rule:Good, in its folder /a/b or"),
        ("sub\\rule.py:Good", "write rule:Good, in its folder sub or"),
        ("sub/rule:Good", "write rule:Good, in its folder sub or"),
        ("rule.py", "write rule:NAME"),
        ("my-rule.py:Good", "give my-rule.py a name of letters, digits and underscores"),
    ],
)
def test_a_path_or_a_file_alone(name: str, meant: str) -> None:
    assert f"a module is named, and not its file: {meant}" in refusal(name)


@pytest.mark.parametrize("name", ["krumm", "a b", "x.y", ""])
def test_other_names_are_no_files(name: str) -> None:
    assert "choose one of mean, or MODULE:NAME" in refusal(name)


def test_a_package_may_have_a_module_called_py(folder: Path) -> None:
    (folder / "a_package_of_mine").mkdir()
    (folder / "a_package_of_mine" / "__init__.py").write_text("")
    (folder / "a_package_of_mine" / "py.py").write_text(CLASS)
    assert callable(RULES.find(RULES.parse("a_package_of_mine.py:Good").name))


def test_an_environment_in_a_file(folder: Path) -> None:
    import dataclasses

    with pytest.raises(UsageError, match="a module is named, and not its file: write no_such_worlds:Maze-v0"):
        make_environments(dataclasses.replace(CARTPOLE, environment="no_such_worlds.py:Maze-v0"))


@pytest.mark.parametrize("name", ["statistics:Good", "statistics.rules:Good"])
def test_a_module_that_python_has_already(folder: Path, name: str) -> None:
    (folder / "statistics.py").write_text(CLASS)
    hidden = f"which hides {folder / 'statistics.py'}: give that file another name"
    assert refusal(name).endswith(f"; statistics is the module in {statistics.__file__}, {hidden}")
    (folder / "statistics.py").unlink()
    assert "hides" not in refusal(name)


def test_a_module_that_is_built_into_python(folder: Path) -> None:
    (folder / "time.py").write_text(CLASS)
    assert f"time is a module that is built into Python, which hides {folder / 'time.py'}" in refusal("time:Good")


def test_a_package_that_is_installed(folder: Path) -> None:
    import numpy as np

    (folder / "numpy").mkdir()
    (folder / "numpy" / "__init__.py").write_text(CLASS)
    sentence = refusal("numpy:Good")
    assert f"{np.__file__}, which hides {folder / 'numpy' / '__init__.py'}" in sentence


def test_an_environments_module_that_another_hides(folder: Path) -> None:
    import dataclasses

    (folder / "statistics.py").write_text("import gymnasium\n")
    task = dataclasses.replace(CARTPOLE, environment="statistics:Maze-v0", module_folder=str(folder))
    with pytest.raises(UsageError, match=r"which hides .*statistics\.py: give that file another name"):
        make_environments(task)


@pytest.mark.parametrize("options", [("--in-process",), ()])
def test_files_named_as_python_s_own_modules_do_no_harm_to_a_run(tmp_path: Path, options: tuple[str, ...]) -> None:
    working = tmp_path / "working"
    working.mkdir()
    for name in ("random", "tempfile", "signal", "numpy", "struct"):
        (working / f"{name}.py").write_text("raise RuntimeError('this is not the module that was meant')\n")
    python, _, program, *arguments = command_line("fedpg", "train", "--agents", 2, "--trajectories", 16, *options)
    script = tmp_path / "fedpg"  # as the installed script, which lies elsewhere, and so hides no module
    script.write_text(program)
    command = [python, str(script), *arguments, "--no-tensorboard"]
    ended = subprocess.run(command, cwd=working, env=environment(), capture_output=True, text=True, timeout=300)
    assert ended.returncode == ExitCode.OK, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Done: final return" in ended.stderr
