"""`fedpg faults` runs a scenario and judges it; its exit code says how it went, a sentence why."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from fedpg_common.errors import ExitCode
from fedpg_lab.faults.backend import UnsupportedFaultError
from fedpg_lab.faults.reference import NAME as REFERENCE
from fedpg_lab.faults.scenario import read_scenario
from fedpg_lab.runs.folders import load_run
from fedpg_server.storage.store import STORE_NAME
from support.lab import Command
from support.played_command import StoredFederation, outcomes


def after_progress(error: str) -> str:
    """What a command said once its display was over; that begins each line with the run's name."""
    return "".join(line for line in error.splitlines(keepends=True) if not line.startswith("tiny  "))


def test_a_real_run_through_a_fault_holds_what_was_promised(tiny: Path, fedpg: Command) -> None:
    code, text, error = fedpg("faults", tiny, "--out", tiny.parent / "runs", "--seed", 7)
    folder = tiny.parent / "runs" / "tiny"
    assert code == 0, error + text
    assert f"See {folder / 'faults.html'}\n" in text
    assert "violated" not in text
    assert [line.split("  ")[-1].partition(" ")[0] for line in error.splitlines() if "kill" in line] == [
        "kill",
        "healed:",
    ]
    for name in ("faults.png", "faults.json", "faults.html", "returns.png", "summary.json", STORE_NAME):
        assert (folder / name).stat().st_size > 0
    fields = json.loads((folder / "faults.json").read_text(encoding="utf-8"))
    ((fault,), (planned,)) = fields["happened"], fields["planned"]
    assert fault["label"] == planned["label"] == read_scenario(str(tiny), 7).planned[0].label
    assert fault["reason"] == "over"
    assert fields["command"] == f"fedpg faults {tiny} --backend local --seed 7"
    assert set(outcomes(folder).values()) == {"holds"}
    assert outcomes(folder)[REFERENCE] == "holds"
    run = load_run(folder)
    assert run.is_complete
    assert run.federation.seed == 7
    assert not any(record.absent for record in run.records)


def test_what_does_not_hold_is_named_and_has_an_exit_code(
    tiny: Path, fedpg: Command, played: Callable[..., StoredFederation]
) -> None:
    played(opens_s=(0.0, 0.5))  # its status tells of a first round with other parameters than the store has
    code, text, error = fedpg("faults", tiny, "--out", tiny.parent / "runs", "--no-reference")
    folder = tiny.parent / "runs" / "tiny"
    assert code == ExitCode.VIOLATED
    told = "what the server has told is stored"
    assert error.splitlines()[-1] == f"fedpg: an invariant is violated: {told}; see {folder / 'faults.html'}"
    (line,) = [line for line in text.splitlines() if told in line]
    assert "violated" in line
    assert {name for name, outcome in outcomes(folder).items() if outcome == "violated"} == {told}
    assert outcomes(folder)[REFERENCE] == "not checked"
    assert "--no-reference" in json.loads((folder / "faults.json").read_text(encoding="utf-8"))["command"]


def test_a_run_that_does_not_end_is_no_success(
    tiny: Path, fedpg: Command, played: Callable[..., StoredFederation]
) -> None:
    def on_call(call: str) -> None:
        if call == "supervise":
            raise UnsupportedFaultError("it broke on the way")

    played(on_call=on_call)
    code, text, error = fedpg("faults", tiny, "--out", tiny.parent / "runs", "--no-reference")
    assert code == ExitCode.VIOLATED
    assert error.splitlines()[-1].startswith("fedpg: an invariant is violated: the run reaches its end; see ")
    assert "it did not end: failed; it broke on the way" in text


def test_a_run_that_fails_without_a_store_is_one_sentence(
    tiny: Path, fedpg: Command, played: Callable[..., StoredFederation]
) -> None:
    def on_call(call: str) -> None:
        if call == "status":
            raise UnsupportedFaultError("no space is left for the store")

    played(has_store=False, on_call=on_call)
    code, _, error = fedpg("faults", tiny, "--out", tiny.parent / "runs")
    assert (code, after_progress(error)) == (ExitCode.STORAGE, "fedpg: no space is left for the store\n")


def test_the_table_of_the_invariants_is_whole_where_there_is_no_terminal(
    tiny: Path, fedpg: Command, played: Callable[..., StoredFederation]
) -> None:
    played()
    code, text, _ = fedpg("faults", tiny, "--out", tiny.parent / "runs", "--no-reference")
    assert code == 0
    found = outcomes(tiny.parent / "runs" / "tiny")
    lines: Sequence[str] = [line.strip() for line in text.splitlines()]
    for name, outcome in found.items():
        assert any(line.startswith(name) and outcome in line.removeprefix(name) for line in lines)
