"""`fedpg faults` prints a plan, tells how to write one, and refuses what cannot be with one sentence."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from fedpg_common.errors import ExitCode
from fedpg_lab.commands import faults as faults_cli
from fedpg_lab.faults.backend import FaultKind, UnsupportedFaultError
from fedpg_lab.faults.scenario import read_scenario, shipped
from support.lab import Command
from support.played_command import TINY, StoredFederation, is_one_sentence


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
