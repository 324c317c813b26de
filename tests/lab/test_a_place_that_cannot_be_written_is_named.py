"""An output that cannot be, a folder in place of a file or the other way round, is one sentence that names it."""

from __future__ import annotations

from pathlib import Path

import pytest
from fedpg_common.errors import ExitCode
from fedpg_lab.local.in_process.rounds import RunOptions, play
from support.lab import Command, small_federation

FOLDERS = [
    ("certs", "--agents", "2"),
    ("compose", "--agents", "2"),
    ("train", "--agents", "2"),
    ("faults", "agent-crash"),
    ("report", "RUN"),
    ("export", "RUN", "--format", "figures"),
]
FILES = [("figure", "--out", ".png"), ("export", "--out", ".csv"), ("evaluate", "--video", ".gif")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    play(RunOptions(folder, small_federation()), lambda _federation, _record: None)
    return folder


@pytest.mark.parametrize("command", FOLDERS, ids=lambda command: command[0])
@pytest.mark.parametrize("below", ["", "sub", "sub/sub"])
def test_a_file_where_a_folder_is_wanted(
    command: tuple[str, ...], below: str, run: Path, tmp_path: Path, fedpg: Command
) -> None:
    """Also where it stands in the place of a folder further up."""
    file = tmp_path / "taken"
    file.write_text("mine")
    arguments = [str(run) if part == "RUN" else part for part in command]
    code, _, said = fedpg(*arguments, "--out", str(file / below))
    assert code == ExitCode.STORAGE
    assert f"{file} is not a folder: choose another" in said
    assert file.read_text() == "mine"


@pytest.mark.parametrize(("command", "option", "suffix"), FILES)
def test_a_folder_where_a_file_is_wanted(
    command: str, option: str, suffix: str, run: Path, tmp_path: Path, fedpg: Command
) -> None:
    folder = tmp_path / f"taken{suffix}"
    folder.mkdir()
    code, _, said = fedpg(command, str(run), option, str(folder))
    assert (code, f"{folder}" in said, "it is a folder" in said) == (ExitCode.STORAGE, True, True)


@pytest.mark.parametrize(("command", "option", "suffix"), FILES)
def test_a_file_whose_folder_is_not_there(
    command: str, option: str, suffix: str, run: Path, tmp_path: Path, fedpg: Command
) -> None:
    (tmp_path / "file").touch()
    for place, why in ((tmp_path / "none", "there is no folder {}"), (tmp_path / "file", "{} is a file")):
        code, _, said = fedpg(command, str(run), option, str(place / f"x{suffix}"))
        assert code == ExitCode.STORAGE
        assert why.format(place) in said
