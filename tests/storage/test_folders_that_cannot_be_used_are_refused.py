"""A folder that cannot be searched, is a file, a loop, too long or not UTF-8 is one sentence and exit code 6."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fedpg_common.descriptions import describe
from fedpg_common.errors import StorageError, UsageError
from fedpg_common.federation import name_of
from fedpg_common.files import Kind, look, require_name, shown, write_whole
from support.lab import Command, small_federation
from support.privileges import as_an_ordinary_user

READERS = (["evaluate"], ["figure"], ["report"], ["export"], ["runs"], ["tensorboard"], ["train", "--resume"])
WRITERS = (["train", "--agents", "1", "--trajectories", "5", "--out"], ["experiment", "figure-1", "--quick", "--out"],
           ["faults", "agent-crash", "--out"])  # fmt: skip


@pytest.fixture
def places(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """Unusable paths by what is wrong with them."""
    locked = tmp_path / "locked"
    (locked / "sub").mkdir(parents=True)
    (tmp_path / "file").write_text("a file")
    (tmp_path / "loop").symlink_to("loop")
    locked.chmod(0)
    yield {
        "unsearchable": locked / "sub",
        "locked itself": locked,
        "below a file": tmp_path / "file" / "sub",
        "loop": tmp_path / "loop",
        "long": tmp_path / ("x" * 300),
        "not UTF-8": Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")),
    }
    locked.chmod(0o755)


@pytest.mark.parametrize("kind", ["unsearchable", "locked itself", "below a file", "loop", "long", "not UTF-8"])
@pytest.mark.parametrize("command", [*READERS, *WRITERS], ids=lambda command: command[0] + command[-1])
def test_in_every_command(command: list[str], kind: str, places: dict[str, Path], fedpg: Command) -> None:
    before = sorted(places["below a file"].parent.parent.iterdir())
    with as_an_ordinary_user():
        code, _, text = fedpg(*command, places[kind])
    assert code == 6, text
    sentences = [line for line in text.splitlines() if line.startswith("fedpg: ")]
    assert len(sentences) == 1, text
    assert "Traceback" not in text
    assert sorted(places["below a file"].parent.parent.iterdir()) == before, "nothing was made"


@pytest.mark.parametrize("out", ["out", "out/deep"])
def test_a_name_that_is_too_long_leaves_nothing(out: str, tmp_path: Path, fedpg: Command) -> None:
    code, _, text = fedpg("train", "--agents", "1", "--trajectories", "5", "--out", tmp_path / out, "--name", "x" * 300)
    assert code == 6, text
    assert "File name too long" in text.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_to_write_to_need_not_be_readable(tmp_path: Path, fedpg: Command) -> None:
    drop = tmp_path / "drop"
    drop.mkdir()
    drop.chmod(0o333)
    with as_an_ordinary_user():
        code, _, text = fedpg("certs", "--agents", "1", "--out", drop)
    assert code == 0, text


def test_a_path_is_looked_at(places: dict[str, Path], tmp_path: Path) -> None:
    assert look(tmp_path) is Kind.FOLDER
    assert look(tmp_path / "file") is Kind.FILE
    assert look(places["below a file"]) is look(tmp_path / "nowhere") is Kind.MISSING
    for kind in ("loop", "long", "not UTF-8"):
        with pytest.raises(StorageError, match="cannot be"):
            look(places[kind])


def test_a_path_is_shown_in_one_line() -> None:
    assert shown(Path("a[red]\nb\x1b")) == "a[red]\\nb\\x1b"
    assert shown(Path(os.fsdecode(b"caf\xe9"))) == "caf\\xe9"
    assert shown(Path("größe")) == "größe"


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(StorageError, match="cannot write"):
        write_whole(tmp_path / "taken", "text")
    write_whole(tmp_path / "file", "text")
    assert (tmp_path / "file").read_text() == "text"


@pytest.mark.parametrize("name", ["../x", "a/b", "/a", "..", ".", "", "a\nb"])
def test_a_name_does_not_leave_its_folder(name: str, tmp_path: Path, fedpg: Command) -> None:
    with pytest.raises(UsageError, match="--name must be the name of a folder"):
        require_name(name, "--name")
    code, _, text = fedpg("train", "--agents", "1", "--trajectories", "5", "--out", tmp_path / "out", "--name", name)
    assert code == 2
    assert "--name must be the name of a folder" in text
    assert list(tmp_path.iterdir()) == []


def test_a_tasks_name_does_not_leave_its_folder() -> None:
    task = describe("CartPole-v1").task

    federation = replace(small_federation(), task=replace(task, name="../../escape"))
    assert "/" not in name_of(federation)
