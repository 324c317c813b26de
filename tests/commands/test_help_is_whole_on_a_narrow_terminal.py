"""The help of every command is whole at 80 columns: each option's name can be read and copied."""

from __future__ import annotations

import re

import pytest
import typer
from fedpg_client import cli as client_cli
from fedpg_common.cli.options import ADVANCED, PANELS
from fedpg_lab.cli import COMMANDS, LazyCommand, app
from fedpg_server import cli as server_cli
from support.terminal import command_line, shown

ESCAPE_SEQUENCE = r"\x1b\[[0-9;]*m"
USED_FIRST = (
    "--task",
    "--agents",
    "--byzantine",
    "--attack",
    "--algorithm",
    "--aggregator",
    "--trajectories",
    "--seed",
)
HELPS = [("fedpg",), ("fedpg-server",), ("fedpg-agent",), *(("fedpg", name) for name in COMMANDS)]


def options_of(command: str, *names: str) -> list[str]:
    """All spellings of a command's options that are meant for people."""
    if names:
        parsed = LazyCommand(names[0], *COMMANDS[names[0]]).load()
    else:
        applications = {"fedpg": app, "fedpg-server": server_cli.app, "fedpg-agent": client_cli.app}
        parsed = typer.main.get_command(applications[command])
    told = [parameter for parameter in parsed.params if not getattr(parameter, "hidden", False)]
    spellings = [spelling for parameter in told for spelling in parameter.opts + parameter.secondary_opts]
    return [spelling for spelling in spellings if spelling.startswith("--")]


@pytest.mark.parametrize("command", HELPS, ids=" ".join)
@pytest.mark.parametrize("columns", [80, 200])
def test_each_option_is_named_in_full(command: tuple[str, ...], columns: int) -> None:
    screen = shown(command_line(*command, "--help"), columns=columns)
    assert screen.code == 0
    text = re.sub(ESCAPE_SEQUENCE, "", screen.output)
    assert [option for option in options_of(*command) if option not in text.split()] == []
    assert "…" not in text, "a word is cut off"
    assert re.findall(r"<(?:bool|str|path|int|float)>", text) == [], "Python's types are no words for people"


@pytest.mark.parametrize("command", [("fedpg", "train"), ("fedpg", "compose"), ("fedpg-server",)], ids=" ".join)
def test_what_people_use_first_comes_first(command: tuple[str, ...]) -> None:
    text = re.sub(ESCAPE_SEQUENCE, "", shown(command_line(*command, "--help"), columns=80).output)
    panels = re.findall(r"╭─ (.+?) ─", text)
    assert [panel for panel in panels if panel in PANELS] == [panel for panel in PANELS if panel in panels]
    assert panels[0] == "Options"
    assert panels[-1] == ADVANCED
    first = text.partition(f"╭─ {panels[1]} ─")[0]
    assert [option for option in USED_FIRST if option not in first.split()] == []


def test_an_option_says_its_default_and_its_environment_variable() -> None:
    text = " ".join(
        re.sub(ESCAPE_SEQUENCE, "", shown(command_line("fedpg-server", "--help"), columns=200).output).split()
    )
    assert "How many agents, K. [env var: FEDPG_AGENTS] [default: 10]" in text
    assert "[env var: FEDPG_TRAJECTORIES] [default: the task's]" in text
