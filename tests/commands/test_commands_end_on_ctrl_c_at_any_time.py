"""Ctrl-C ends every command at any time, also twice in a row: exit code 130, no traceback, no process left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.lab import run_federation, small_federation
from support.processes import new_tag, wait_until_none_is_left
from support.terminal import MODULES, Shown, Terminal, command_line, environment

ENDLESS = ("--trajectories", "1000000", "--agents", "3")
READY = "started"
TRAIN_DELAYS_S = (0.0, 0.05, 0.2, 0.4, 0.7, 1.0, 1.4, 1.8, 2.2, 2.6, 3.0, 4.0)
DELAYS_S = (0.0, 0.4, 1.5, 3.0)
SCENARIO = """
title = "Nothing fails"
[federation]
task = "CartPole-v1"
agents = 3
trajectories = 1000000
"""
EXPERIMENT = """
title = "Long runs"
seeds = 2
[[federation]]
task = "CartPole-v1"
agents = 3
trajectories = 1000000
"""


def from_the_entry_on(command: str, *arguments: object) -> list[str]:
    """A command that says when its own code has begun: how the interpreter starts before that is not ours."""
    program = (
        "import os, sys, fedpg_common.cli.entry as entry; entry._heed_signals_at_once(); "
        f"sys.argv[0] = {command!r}; os.write(1, b'{READY}\\r\\n'); "
        f"from {MODULES[command]}.__main__ import main; main()"
    )
    return [sys.executable, "-c", program, *map(str, arguments)]


def interrupted(folder: Path, delay_s: float, presses: int, command: str, *arguments: object) -> Shown:
    """Press Ctrl-C so long after the start; wait for the command and all that it started."""
    tag = new_tag()
    variables = environment(TERM="xterm-256color") | dict([tag])
    terminal = Terminal(from_the_entry_on(command, *arguments), cwd=folder, env=variables)
    terminal.read_until(READY)
    until_s = time.monotonic() + delay_s
    while (left_s := until_s - time.monotonic()) > 0 and terminal.read(left_s):
        pass
    terminal.press_ctrl_c()
    for _ in range(presses - 1):
        terminal.read(0.1)
        terminal.press_ctrl_c()
    screen = terminal.end()
    wait_until_none_is_left(tag)
    return screen


def assert_interrupted(screen: Shown, *codes: int) -> None:
    assert "Traceback" not in screen.output, screen.output
    assert "Exception ignored" not in screen.output, screen.output
    assert screen.code in (130, *codes), screen.output


@pytest.mark.parametrize("delay_s", TRAIN_DELAYS_S)
def test_training(tmp_path: Path, delay_s: float) -> None:
    screen = interrupted(tmp_path, delay_s, 1, "fedpg", "train", *ENDLESS)
    assert_interrupted(screen)
    assert "nterrupted" in screen.output, "it says so at every moment"


@pytest.mark.parametrize("delay_s", DELAYS_S)
@pytest.mark.parametrize("presses", [2, 5])
def test_training_with_impatience(tmp_path: Path, delay_s: float, presses: int) -> None:
    assert_interrupted(interrupted(tmp_path, delay_s, presses, "fedpg", "train", *ENDLESS))


@pytest.mark.parametrize("delay_s", DELAYS_S)
@pytest.mark.parametrize(
    "command",
    [
        ("fedpg-server", "--listen", "127.0.0.1:0", "--out", "run"),
        ("fedpg-agent", "--server", "127.0.0.1:1", "--agent", "1"),
        ("fedpg", "faults", "endless.toml"),
        ("fedpg", "experiment", "endless-runs.toml"),
    ],
)
def test_what_does_not_end_by_itself(tmp_path: Path, command: tuple[str, ...], delay_s: float) -> None:
    (tmp_path / "endless.toml").write_text(SCENARIO)
    (tmp_path / "endless-runs.toml").write_text(EXPERIMENT)
    assert_interrupted(interrupted(tmp_path, delay_s, 2 if delay_s else 1, *command))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    run_federation(small_federation(agents=2, byzantine=0), folder)
    return folder


@pytest.mark.parametrize("delay_s", DELAYS_S)
@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "--help"),
        ("figure", "{}", "--out", "figure.png"),
        ("evaluate", "{}", "--episodes", "10000"),
        ("status", "--server", "192.0.2.1:1"),
    ],
)
def test_what_ends_by_itself(tmp_path: Path, finished: Path, arguments: tuple[str, ...], delay_s: float) -> None:
    filled = [argument.format(finished) for argument in arguments]
    assert_interrupted(interrupted(tmp_path, delay_s, 1, "fedpg", *filled), 0, 3)  # it may have ended before


def test_a_termination_is_another_exit_code(tmp_path: Path) -> None:
    for delay_s in (0.0, 0.5, 3.0):
        terminal = Terminal(from_the_entry_on("fedpg", "train", *ENDLESS), cwd=tmp_path)
        terminal.read_until(READY)
        until_s = time.monotonic() + delay_s
        while (left_s := until_s - time.monotonic()) > 0 and terminal.read(left_s):
            pass
        terminal.process.send_signal(signal.SIGTERM)
        ended = terminal.end()
        assert ended.code == 143, ended.output
        assert "Traceback" not in ended.output


@pytest.mark.parametrize("module", MODULES.values())
def test_nothing_is_imported_before_signals_are_heeded(module: str) -> None:
    program = (
        f"import enum, sys; before = set(sys.modules); import {module}.__main__; print(*set(sys.modules) - before)"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) - {"signal", "__future__"} <= {
        module,
        f"{module}.__main__",
        "fedpg_common",
        "fedpg_common.cli",
        "fedpg_common.cli.entry",
    }


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("train", "--help"), ("compose", "--agents", "2000"), ("evaluate", "{}", "--episodes", "50")],
)
def test_a_reader_that_has_seen_enough_is_no_error(finished: Path, arguments: tuple[str, ...]) -> None:
    filled = [argument.format(finished) for argument in arguments]
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        command_line("fedpg", *filled), stdout=writer, stderr=subprocess.PIPE, text=True, timeout=300, check=False
    )
    os.close(writer)
    assert ended.returncode == 141
    assert ended.stderr == ""


def test_a_full_disk_behind_the_output_is_one_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            command_line("fedpg", "compose"), stdout=full, stderr=subprocess.PIPE, text=True, timeout=300, check=False
        )
    assert ended.returncode == 6
    assert ended.stderr == "fedpg: the output cannot be written: No space left on device\n"
