"""`fedpg faults` prints a plan, or runs a scenario and judges it; its exit code says how it went, a sentence why."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fedpg_common.errors import ExitCode
from fedpg_common.learning.parameters import digest
from fedpg_lab.commands import faults as faults_cli
from fedpg_lab.faults.backend import FaultKind, UnsupportedFaultError
from fedpg_lab.faults.reference import NAME as REFERENCE
from fedpg_lab.faults.scenario import read_scenario, shipped
from fedpg_lab.runs.folders import load_run
from fedpg_server.storage.rows import Ballot, VoteRow
from fedpg_server.storage.store import STORE_NAME, Store
from support.faults import PlayedFederation
from support.lab import Command, write_run
from support.protocol import initial_state, make_round_record

TINY = """
title = "A tiny scenario"
at_most_s = 300
[federation]
task = "CartPole-v1"
agents = 3
trajectories = 1000
round_timeout_s = 1e5               # every round waits for everybody
[[fault]]
kind = "kill"
on = "1 agent"
at_round = 1
for_s = 0.5
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A scenario's file in a folder in which nothing else lies."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@dataclass
class StoredFederation(PlayedFederation):
    """A played federation of three that leaves a store of one round in the run folder. Each look takes it a second."""

    ends_s: float = 1.0
    leaves_s: float = 2.0
    has_store: bool = True

    def supervise(self) -> bool:
        """Let time pass."""
        self.now_s += 1.0
        return super().supervise()

    def finish(self, folder: Path) -> None:
        """Leave a run in which everybody voted."""
        super().finish(folder)
        if not self.has_store:
            return
        state = initial_state()
        record = make_round_record(1, trajectories_total=1000, accepted=(1, 2, 3), filtered=(), absent=(),
                                   parameters_digest=digest(state.theta))  # fmt: skip
        write_run(folder, read_scenario(str(folder.parent.parent / "tiny.toml")).federation, [record])
        store = Store.open(folder / STORE_NAME)
        store.commit([VoteRow(1, agent, bytes(32), Ballot(state.theta, b"")) for agent in (1, 2, 3)])
        store.close()


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Callable[..., StoredFederation]:
    """Have the command run a federation that is only played."""

    def play(**fields: Any) -> StoredFederation:
        federation = StoredFederation(**fields)
        monkeypatch.setattr(faults_cli, "make_backend", lambda *_arguments: federation)
        return federation

    return play


def is_one_sentence(error: str) -> bool:
    """Whether a command that failed said nothing but what is wrong."""
    return error.startswith("fedpg: ") and len(error.splitlines()) == 1


def after_progress(error: str) -> str:
    """What a command said once its display was over; that begins each line with the run's name."""
    return "".join(line for line in error.splitlines(keepends=True) if not line.startswith("tiny  "))


# The plan -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", shipped())
def test_a_dry_run_prints_what_will_happen_to_whom_and_makes_nothing(
    name: str, tmp_path: Path, fedpg: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_nothing(*_arguments: object) -> None:
        raise AssertionError("a dry run has no backend")

    monkeypatch.setattr(faults_cli, "make_backend", make_nothing)
    monkeypatch.chdir(tmp_path)
    code, text, error = fedpg("faults", name, "--dry-run")
    assert (code, error) == (0, "")
    scenario = read_scenario(name)
    assert f"{scenario.title}: seed {scenario.seed}\n" in text
    assert f"quorum {scenario.federation.quorum}, {scenario.federation.task.trajectories} trajectories" in text
    lines = [line.split() for line in text.splitlines()]
    for planned in scenario.planned:
        told = [str(planned.number), *planned.label.split(), *planned.start.split(), *planned.duration.split()]
        assert told in lines
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_shows_the_plan_of_the_seed_asked_for(tmp_path: Path, fedpg: Command) -> None:
    path = tmp_path / "many.toml"
    path.write_text(TINY.replace("agents = 3", "agents = 50"))
    plans = {fedpg("faults", path, "--dry-run", "--seed", seed)[1].replace(f"seed {seed}", "") for seed in range(8)}
    assert len(plans) > 1
    assert fedpg("faults", path, "--dry-run", "--seed", 3) == fedpg("faults", path, "--dry-run", "--seed", 3)


def test_the_help_tells_how_to_write_a_scenario_and_how_it_ends(fedpg: Command) -> None:
    code, text, _ = fedpg("faults", "--help")
    assert code == 0
    words = squeezed(text)
    for told in [
        *(kind.value for kind in FaultKind), *shipped(), "[[fault]]", "--dry-run", "--backend", "--seed", "--reference",
        "--out", "faults.png (", "faults.json", "faults.html", "0 the run ended", "2 bad option", "6 a folder",
        "8 an invariant", "130 Ctrl-C", "143 terminated",
    ]:  # fmt: skip
        assert squeezed(told) in words


def test_the_scenario_in_the_help_can_be_run(tmp_path: Path, fedpg: Command) -> None:
    _, text, _ = fedpg("faults", "--help")
    _, _, rest = text.partition("A scenario file:")
    sample, _, _ = rest.partition("Whatever happens")
    (tmp_path / "sample.toml").write_text(textwrap.dedent(sample), encoding="utf-8")
    code, text, error = fedpg("faults", tmp_path / "sample.toml", "--dry-run")
    assert code == 0, error
    assert "A majority is cut off: seed 0" in text


def squeezed(text: str) -> str:
    """Without the spaces and lines that depend on where a box is wrapped."""
    return "".join(text.replace("│", " ").split())


# Refused --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["meteorite"], "unknown scenario 'meteorite': choose one of agent-crash, "),
        (["no.toml"], "scenario file no.toml cannot be read: No such file"),
        (["broken.toml"], "scenario broken.toml is not TOML: "),
        (["unkind.toml"], "scenario unkind.toml: fault 1: unknown kind 'explode': choose one of kill, "),
        (["tiny.toml", "--seed", "-1"], "scenario tiny.toml: seed must be a whole number from 0 to 2**63 - 1, not -1"),
    ],
)
def test_a_bad_scenario_is_one_sentence_and_makes_nothing(
    arguments: list[str], sentence: str, tiny: Path, fedpg: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny.parent)
    Path("broken.toml").write_text("[[fault\n")
    Path("unkind.toml").write_text(TINY.replace('"kill"', '"explode"'))
    before = sorted(tiny.parent.iterdir())
    for dry_run in ([], ["--dry-run"]):
        code, text, error = fedpg("faults", *arguments, *dry_run)
        assert (code, text) == (ExitCode.USAGE, "")
        assert is_one_sentence(error)
        assert sentence in error
    assert sorted(tiny.parent.iterdir()) == before


@pytest.mark.parametrize("option", [["--backend", "cloud"], ["--seed", "few"], ["--no-such-option"]])
def test_a_bad_option_is_refused(option: list[str], tiny: Path, fedpg: Command) -> None:
    code, text, error = fedpg("faults", tiny, *option)
    assert (code, text) == (ExitCode.USAGE, "")
    assert "Traceback" not in error
    assert option[0] in error


def test_a_scenario_is_needed(fedpg: Command) -> None:
    code, text, error = fedpg("faults")
    assert (code, text) == (ExitCode.USAGE, "")
    assert "Missing argument" in error


def test_a_fault_that_cannot_be_made_here_is_refused(
    tiny: Path, fedpg: Command, played: Callable[..., StoredFederation]
) -> None:
    def on_call(call: str) -> None:
        if call == "check":
            raise UnsupportedFaultError("the machine has no network namespaces")

    federation = played(on_call=on_call)
    code, _, error = fedpg("faults", tiny, "--out", tiny.parent / "runs")
    assert code == ExitCode.USAGE
    assert error == f"fedpg: scenario {tiny}, backend local: the machine has no network namespaces\n"
    assert federation.calls == ["check"]
    assert not (tiny.parent / "runs").exists()


def test_containers_without_their_library_are_one_sentence(tiny: Path) -> None:
    # In a process of its own, in which it is as if the library were not installed.
    program = "import sys; sys.modules['docker'] = None; from fedpg_lab.cli import main; main()"
    command: list[str | Path] = [
        sys.executable,
        "-c",
        program,
        "faults",
        tiny,
        "--backend",
        "docker",
        "--out",
        tiny.parent / "runs",
    ]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == ExitCode.USAGE
    assert is_one_sentence(ended.stderr)
    assert "--backend docker needs the package" in ended.stderr
    assert "install fedpg with its extra [docker]" in ended.stderr
    assert not (tiny.parent / "runs").exists()


def test_a_folder_that_cannot_be_used_is_one_sentence(tiny: Path, fedpg: Command) -> None:
    (tiny.parent / "runs" / "taken").mkdir(parents=True)
    code, _, error = fedpg("faults", tiny, "--out", tiny.parent / "runs", "--name", "taken")
    assert (code, is_one_sentence(error)) == (ExitCode.STORAGE, True)
    assert f"{tiny.parent / 'runs' / 'taken'} exists already" in error
    code, _, error = fedpg("faults", tiny, "--out", tiny)
    assert (code, is_one_sentence(error)) == (ExitCode.STORAGE, True)
    assert f"{tiny} is not a folder" in error


# Judged ---------------------------------------------------------------------------------------------------------------


def outcomes(folder: Path) -> dict[str, str]:
    """Each invariant's outcome, from the JSON."""
    fields = json.loads((folder / "faults.json").read_text(encoding="utf-8"))
    return {finding["invariant"]: finding["outcome"] for finding in fields["invariants"]}


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


# Interrupted ----------------------------------------------------------------------------------------------------------


def interrupting(call: str, number: signal.Signals) -> Callable[[str], None]:
    """A signal comes when that call is made for the first time."""
    left = [number]

    def on_call(made: str) -> None:
        if made == call and left:
            signal.raise_signal(left.pop())

    return on_call


STOPS = [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.TERMINATED)]


@pytest.mark.parametrize(("number", "code"), STOPS)
@pytest.mark.parametrize("call", ["status", "apply 1", "finish"])
def test_an_interrupted_run_is_healed_reported_and_has_its_exit_code(
    call: str, number: signal.Signals, code: ExitCode, tiny: Path, fedpg: Command,
    played: Callable[..., StoredFederation],
) -> None:  # fmt: skip
    tiny.write_text(TINY.replace('"1 agent"', "[1]"))
    federation = played(ends_s=60.0, leaves_s=60.0, on_call=interrupting(call, number))
    if call == "finish":
        federation.ends_s, federation.leaves_s = 1.0, 2.0
    before = [signal.getsignal(number) for number, _ in STOPS]
    ended, text, error = fedpg("faults", tiny, "--out", tiny.parent / "runs")
    assert ended == code, error
    assert "Traceback" not in error
    assert [signal.getsignal(number) for number, _ in STOPS] == before
    assert federation.calls[-1] == "close"
    assert len(federation.healed) == len(federation.applied)
    if call == "finish":  # before it had left its store
        assert not (tiny.parent / "runs" / "tiny" / "faults.html").exists()
        return
    found = outcomes(tiny.parent / "runs" / "tiny")
    assert found["the run reaches its end"] == found[REFERENCE] == "not checked"
    assert "faults.html" in text


@pytest.mark.parametrize(("number", "code"), STOPS)
def test_an_interrupted_reference_is_not_taken_for_success(
    number: signal.Signals, code: ExitCode, tiny: Path, fedpg: Command, played: Callable[..., StoredFederation],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def compare(*_arguments: object) -> None:
        signal.raise_signal(number)

    played()
    monkeypatch.setattr("fedpg_lab.faults.reference.compare_with_reference", compare)
    ended, text, error = fedpg("faults", tiny, "--out", tiny.parent / "runs")
    assert ended == code, error
    assert "the reference was interrupted" in text
    assert outcomes(tiny.parent / "runs" / "tiny")[REFERENCE] == "not checked"


@pytest.mark.parametrize(("number", "code"), STOPS)
def test_a_start_that_is_interrupted_ends_quietly(
    number: signal.Signals, code: ExitCode, tiny: Path, fedpg: Command, played: Callable[..., StoredFederation]
) -> None:
    federation = played(on_call=interrupting("start", number))
    ended, text, error = fedpg("faults", tiny, "--out", tiny.parent / "runs")
    assert (ended, text) == (code, "")
    assert "Traceback" not in error
    assert federation.calls == ["check", "start", "close"]


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
