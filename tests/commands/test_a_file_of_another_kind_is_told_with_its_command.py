"""A file that is given to another kind's command: the sentence says what it is, and which command takes it."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import tomli_w
from fedpg_common.descriptions import describe
from fedpg_common.errors import ExitCode
from fedpg_common.file_kinds import FileKind, kind_of
from fedpg_common.tasks import task_to_fields
from support.lab import Command

TASK = tomli_w.dumps(task_to_fields(describe("CartPole-v1").task))
FILES = {
    FileKind.TASK: TASK,
    FileKind.FEDERATION: 'task = "CartPole-v1"\nagents = 3\n',
    FileKind.EXPERIMENT: '[[federation]]\ntask = "CartPole-v1"\n',
    FileKind.SCENARIO: '[federation]\ntask = "CartPole-v1"\n[[fault]]\nkind = "kill"\ntarget = 1\nat_round = 2\n',
}
COMMANDS = {
    FileKind.TASK: ("train", "--task"),
    FileKind.FEDERATION: ("train", "--federation"),
    FileKind.EXPERIMENT: ("experiment",),
    FileKind.SCENARIO: ("faults",),
}


@pytest.mark.parametrize(("given", "wanted"), itertools.permutations(FileKind, 2))
def test_a_file_in_anothers_place(tmp_path: Path, fedpg: Command, given: FileKind, wanted: FileKind) -> None:
    file = tmp_path / "my file.toml"
    file.write_text(FILES[given])
    code, output, error = fedpg(*COMMANDS[wanted], file, "--out", tmp_path / "runs")
    assert (code, output) == (ExitCode.USAGE, "")
    name, _ = given.value
    assert f"{file}: this is {name}: fedpg {' '.join(COMMANDS[given])} '{file}' " in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_matrix_is_an_experiment_too(tmp_path: Path, fedpg: Command) -> None:
    (tmp_path / "rules.toml").write_text('[matrix]\ntask = "CartPole-v1"\n')
    code, _, error = fedpg("train", "--task", tmp_path / "rules.toml")
    assert code == ExitCode.USAGE
    assert "this is an experiment: fedpg experiment" in error


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"title": "x"},
        {"gamma": 0.9},
        {"byzantine": 3},
        {"agnts": 3},
        {"federation": [3]},
        {"federation": [{}]},
        {"federation": 3},
    ],
)
def test_what_tells_no_kind_is_left_to_whoever_reads_it(fields: dict[str, object]) -> None:
    assert kind_of(fields) is None
