"""The help of every command is whole at 80 columns: each option's name can be read and copied."""

from __future__ import annotations

import re

import pytest
import typer
from fedpg_client import cli as client_cli
from fedpg_lab.cli import COMMANDS, LazyCommand, app
from fedpg_server import cli as server_cli
from support.terminal import command_line, shown

ESCAPE_SEQUENCE = r"\x1b\[[0-9;]*m"
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
    words = re.sub(ESCAPE_SEQUENCE, "", screen.output).split()
    assert [option for option in options_of(*command) if option not in words] == []
