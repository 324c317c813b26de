"""Every command runs in a terminal, wide or narrow, coloured, plain or dumb, and shows there what is going on."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest
from support.terminal import ROOT, Shown, Terminal, command_line, environment, shown

XTERM = {"TERM": "xterm-256color"}
TERMINALS = {
    "narrow": (80, XTERM),
    "wide": (200, XTERM),
    "without colours": (80, {**XTERM, "NO_COLOR": "1"}),
    "dumb": (80, {"TERM": "dumb"}),
}
SMALL = ("--trajectories", "60", "--agents", "4", "--byzantine", "1", "--no-tensorboard")
SCENARIO = """
title = "Nothing fails"
[federation]
task = "CartPole-v1"
agents = 3
trajectories = 40
"""
EXPERIMENT = """
title = "Two runs"
seeds = 2
[[federation]]
task = "CartPole-v1"
agents = 3
trajectories = 20
"""


def run(name: str, folder: Path, *arguments: object) -> Shown:
    columns, variables = TERMINALS[name]
    return shown(command_line("fedpg", *arguments), columns=columns, cwd=folder, env=environment(**variables))


def assert_well(screen: Shown) -> None:
    """It ended well, and no line of a display was wrapped or left behind by the next."""
    assert screen.code == 0, screen.output
    assert "Traceback" not in screen.output
    assert sum("━" in line or "----" in line for line in screen.screen) <= 2, "more bars than runs: they were torn"


def drawn(screen: Shown) -> str:
    """All that was to be seen at one time or another."""
    return "\n".join("\n".join(lines) for lines in screen.screens)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the runs of this module are."""
    return tmp_path_factory.mktemp("terminal")


@pytest.mark.parametrize("name", TERMINALS)
def test_training(name: str, runs: Path) -> None:
    screen = run(name, runs, "train", *SMALL, "--name", name)
    assert_well(screen)
    seen = drawn(screen)
    assert "starting the server" in seen
    assert re.search(r"return \d+\.\d  accepted \d", seen)
    assert re.search(
        r"Done: final return \d+\.\d \(mean of the last 5 %\), last \d+\.\d, best \d+\.\d\n"
        r"\d+ rounds? in \d+ s; picture",
        seen,
    )
    assert f"runs/{name}/returns.png" in "".join(screen.screen)
    assert (runs / "runs" / name / "summary.json").is_file()


def test_no_line_of_the_display_is_wider_than_the_terminal(tmp_path: Path) -> None:
    name = "a-name-of-a-run-that-is-much-too-long-to-stand-before-a-bar-on-a-narrow-terminal"
    screen = run("narrow", tmp_path, "train", *SMALL, "--name", name)
    assert_well(screen)
    bars = [line for lines in screen.screens for line in lines if "━" in line and "/60" in line]
    assert bars, screen.output
    for bar in bars:
        assert re.search(r"^a-name.*….*terminal ━+[╸╺]?━* \d+/60$", bar), bar


def test_seeds_are_counted(tmp_path: Path) -> None:
    screen = run("narrow", tmp_path, "train", *SMALL, "--runs", "2", "--name", "twice")
    assert_well(screen)
    seen = drawn(screen)
    assert "twice seed 0 (1 of 2) ━" in seen
    assert "twice seed 1 (2 of 2) ━" in seen
    assert "All seeds in one picture: runs/twice/returns.png" in seen


@pytest.mark.parametrize("name", ["narrow", "dumb"])
def test_faults(name: str, tmp_path: Path) -> None:
    (tmp_path / "calm.toml").write_text(SCENARIO)
    screen = run(name, tmp_path, "faults", "calm.toml")
    assert_well(screen)
    seen = drawn(screen)
    assert "starting the server and the agents" in seen
    assert "reference without faults" in seen
    assert "one vote per agent" in seen
    assert "faults.html" in seen


@pytest.mark.parametrize("name", ["narrow", "dumb"])
def test_an_experiment(name: str, tmp_path: Path) -> None:
    (tmp_path / "two.toml").write_text(EXPERIMENT)
    screen = run(name, tmp_path, "experiment", "two.toml")
    assert_well(screen)
    assert "2 of 2 runs are complete" in drawn(screen)


def test_the_commands_that_read_a_run(runs: Path) -> None:
    folder = runs / "runs" / "read"
    assert_well(run("narrow", runs, "train", *SMALL, "--name", folder.name))
    for arguments in (
        ("runs", runs / "runs"),
        ("export", folder, "--out", runs / "rounds.csv"),
        ("evaluate", folder, "--episodes", "2"),
        ("figure", folder, "--out", runs / "figure.png"),
        ("compose", "--agents", "3"),
        ("certs", "--agents", "2", "--out", runs / "certs"),
    ):
        assert_well(run("narrow", runs, *arguments))


def test_tensorboard(runs: Path) -> None:
    run("narrow", runs, "train", "--trajectories", "20", "--agents", "2", "--name", "curves")
    terminal = Terminal(command_line("fedpg", "tensorboard", "runs/curves", "--port", "0"), cwd=runs)
    terminal.read_until("(Ctrl-C ends it)")
    terminal.press_ctrl_c()
    ended = terminal.end()
    assert ended.code == 0
    assert "Traceback" not in ended.output


def test_make_train(tmp_path: Path) -> None:
    make = shutil.which("make")
    assert make is not None
    arguments = f"ARGS=--trajectories 40 --no-tensorboard --out {tmp_path}"
    screen = shown([make, "--no-print-directory", "-o", ".venv/.installed", "train", arguments], cwd=ROOT)
    assert_well(screen)
    assert "Done: final return" in drawn(screen)


def test_make_train_without_more_shows_two_defences() -> None:
    make = shutil.which("make")
    assert make is not None
    command = [make, "--no-print-directory", "-n", "-o", ".venv/.installed", "train"]
    assert subprocess.check_output(command, cwd=ROOT, text=True) == ".venv/bin/fedpg experiment defence\n"


def test_without_a_terminal_there_is_a_line_at_once_and_no_escape_sequence(tmp_path: Path) -> None:
    ended = subprocess.run(
        command_line("fedpg", "train", *SMALL, "--name", "piped"),
        cwd=tmp_path, env=environment(TERM="xterm-256color"), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "\x1b" not in ended.stdout + ended.stderr
    assert ended.stderr.startswith("piped  starting the server\n")
    assert "Done: final return" in ended.stderr


def test_with_its_standard_streams_closed(tmp_path: Path) -> None:
    shell = f"exec {shlex.join(command_line('fedpg', 'train', *SMALL, '--name', 'closed'))} <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", shell], cwd=tmp_path, timeout=300, check=False).returncode == 0
    assert (tmp_path / "runs" / "closed" / "summary.json").is_file()


def children_of(pid: int) -> list[int]:
    """The processes that this one has started, in the order of their start."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                found.append((int(fields[19]), int(stat.parent.name)))
    return [child for _, child in sorted(found)]


def test_a_restart_is_told_above_the_bar(tmp_path: Path) -> None:
    arguments = ("train", "--trajectories", "1000000", "--agents", "3", "--name", "killed")
    terminal = Terminal(command_line("fedpg", *arguments), cwd=tmp_path)
    terminal.read_until("accepted 3")
    fork_server = children_of(terminal.process.pid)[-1]
    server, *agents = children_of(fork_server)
    assert len(agents) == 3
    os.kill(agents[-1], signal.SIGKILL)
    terminal.read_until("starting it again")
    os.kill(server, signal.SIGKILL)
    terminal.read_until("resuming")
    terminal.read_until("━", after="resuming")  # a line that Ctrl-C meets half drawn need not stay
    terminal.press_ctrl_c()
    ended = terminal.end()
    assert ended.code == 130, ended.output
    (killed,) = lines_with("was killed by SIGKILL: starting it again", ended.screen)
    assert re.match(r"\d\d:\d\d:\d\d WARNING fedpg  agent-\d ", killed)
    assert lines_with("the server was killed by SIGKILL: resuming", ended.screen)
    assert len(lines_with("━", ended.screen)) == 1
    assert ended.screen.index(killed) < ended.screen.index(lines_with("━", ended.screen)[0])


def lines_with(text: str, lines: Iterable[str]) -> list[str]:
    return [line for line in lines if text in line]


def test_names_are_not_markup(tmp_path: Path) -> None:
    screen = run("narrow", tmp_path, "train", *SMALL, "--name", "lr[red]=1", "--out", "runs[/b]")
    assert_well(screen)
    assert lines_with("runs[/b]/lr[red]=1/returns.png", screen.screen)
    assert lines_with("lr[red]=1 ━", screen.screen)
    assert (tmp_path / "runs[/b]" / "lr[red]=1" / "returns.png").is_file()
