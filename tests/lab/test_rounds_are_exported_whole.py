"""`fedpg export` writes every field of every round, and what it writes is read back the same."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from fedpg_common.descriptions import describe
from fedpg_common.errors import ExitCode
from fedpg_server.learning.records import RoundRecord
from support.lab import Command, write_run
from support.protocol import make_round_record
from support.terminal import command_line, shown

FEDERATION = describe("CartPole-v1", agents=12, byzantine=1, trajectories=40)
RECORDS = [
    make_round_record(1, evaluation_returns=(0.1 + 0.2, 1e-17), gradient_norm=1 / 3),
    make_round_record(2, detection={}, distances={}, centre_distances={}, median_agent=None, training_return=None),
    make_round_record(3, evaluation_returns=(math.nan, 1.0), loss=math.inf, accepted=(1, 10, 12), filtered=(2,)),
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", FEDERATION, RECORDS)


def strict(text: str) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_as_json_lines(run: Path, fedpg: Command) -> None:
    code, text, error = fedpg("export", run, "--format", "jsonl")
    assert (code, error) == (0, "")
    rounds = [strict(line) for line in text.splitlines()]
    assert [entry["round"] for entry in rounds] == [1, 2, 3]
    fields = {field.name for field in dataclasses.fields(RoundRecord)} - {"round_number"}
    for entry in rounds:
        assert fields < set(entry)
        assert entry["run"] == str(run)
    assert rounds[0]["evaluation_returns"] == list(RECORDS[0].evaluation_returns)
    assert rounds[0]["gradient_norm"] == 1 / 3
    assert rounds[0]["parameters_digest"] == RECORDS[0].parameters_digest
    assert rounds[1]["training_return"] is None
    assert rounds[2]["loss"] is rounds[2]["evaluation_return"] is None
    assert [rounds[2]["verdicts"][str(agent)] for agent in (1, 2, 3, 10)] == [
        "accepted", "filtered", "absent", "accepted",
    ]  # fmt: skip


@pytest.mark.parametrize("options", [(), ("--format", "jsonl")])
def test_no_terminal_is_filled_with_them(run: Path, options: tuple[str, ...]) -> None:
    screen = shown(command_line("fedpg", "export", run, *options))
    assert screen.code == ExitCode.USAGE
    assert "name a file, as in --out rounds.csv, or pipe them" in " ".join(screen.output.split())
    assert RECORDS[0].parameters_digest not in screen.output


def test_as_a_table(run: Path, fedpg: Command) -> None:
    code, text, _ = fedpg("export", run)
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 3
    first, second, third = rows
    assert float(first["evaluation_return"]) == RECORDS[0].evaluation_return
    assert float(first["gradient_norm"]) == 1 / 3
    assert json.loads(first["evaluation_returns"]) == list(RECORDS[0].evaluation_returns)
    assert int(first["sampled_trajectories_agents"]) == 80
    assert first["sampled_trajectories_aborted"] == second["training_return"] == second["median_agent"] == ""
    assert first["inner_aborted"] == "true"
    assert second["detection_precision"] == second["centre_distances_1"] == ""
    assert third["verdicts_10"] == "accepted"
    columns = list(first)
    agents = [name for name in columns if name.startswith("verdicts_")]
    assert agents == [f"verdicts_{agent}" for agent in range(1, 13)]


def test_to_a_file_by_its_ending(run: Path, tmp_path: Path, fedpg: Command) -> None:
    for name, option in (("a.csv", "csv"), ("a.jsonl", "jsonl"), ("a.ndjson", "jsonl")):
        code, text, _ = fedpg("export", run, "--out", tmp_path / name)
        assert code == 0
        assert text == f"Wrote 3 rounds of 1 run: {tmp_path / name}\n"
        assert (tmp_path / name).read_text() == fedpg("export", run, "--format", option)[1]


def test_several_runs_are_told_apart(run: Path, tmp_path: Path, fedpg: Command) -> None:
    other = write_run(tmp_path / "other", describe("CartPole-v1", agents=4, trajectories=40), RECORDS[:1])
    _, text, _ = fedpg("export", tmp_path)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["run"] for row in rows] == [str(other)] + [str(run)] * 3
    assert rows[0]["verdicts_12"] == ""


def test_every_column_is_in_the_documentation(run: Path, fedpg: Command) -> None:
    page = (Path(__file__).parents[2] / "docs" / "runs.md").read_text(encoding="utf-8")
    _, text, _ = fedpg("export", run)
    for column in next(csv.reader(io.StringIO(text))):
        assert re.sub(r"_\d+$", "_N", column) in page, column


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["nowhere"], 6, "there is no folder nowhere"),
        (["run", "--out", "rounds.xlsx"], 2, "--out must end in .csv, .jsonl, .ndjson"),
        (["run", "--out", "no/rounds.csv"], 6, "cannot write no/rounds.csv"),
        (["run", "--out", "run", "--format", "csv"], 6, "is a folder"),
    ],
)
def test_bad_input_is_one_sentence(
    run: Path, fedpg: Command, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, sentence: str
) -> None:
    monkeypatch.chdir(run.parent)
    ended, _, text = fedpg("export", *arguments)
    assert (ended, len(text.splitlines())) == (code, 1), text
    assert sentence in text
