"""`fedpg faults` that is interrupted heals what has begun, reports what it has seen, and says so by its exit code."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from fedpg_common.errors import ExitCode
from fedpg_lab.faults.reference import NAME as REFERENCE
from support.lab import Command
from support.played_command import TINY, StoredFederation, outcomes


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
