"""What the commands' options have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from fedpg_common.bootstrap import LOG_LEVELS
from fedpg_common.cli.command_line import complete
from fedpg_common.errors import UsageError

SETTINGS = "Settings"
SEVERAL = "Several runs or groups"
OUTPUT = "Output"
NETWORK = "Network"
ADVANCED = "Advanced"
PANELS = (None, SETTINGS, SEVERAL, OUTPUT, NETWORK, ADVANCED)
"""Panels of a command's help, in their order: what people use first stands before them, in none."""

LogLevel = Annotated[
    str,
    typer.Option(
        rich_help_panel=ADVANCED,
        help="debug, info, warning or error.",
        metavar="LEVEL",
        autocompletion=complete([level.lower() for level in LOG_LEVELS]),
    ),
]


def refuse_ignored_options(context: typer.Context | None, taken: Sequence[str]) -> None:
    """Raise UsageError for options that --resume would ignore: all given on the command line but those `taken`.

    An environment variable, which may be meant for other commands, is not such an option.
    """
    ignored = [
        parameter.opts[0]
        for parameter in (() if context is None else context.command.params)
        if context is not None
        and parameter.name is not None
        and parameter.name not in taken
        and is_given(context, parameter.name)
    ]
    if ignored:
        raise UsageError(
            f"--resume takes the run's settings from its store and would ignore {', '.join(ignored)}: "
            f"leave {'it' if len(ignored) == 1 else 'them'} out"
        )


def is_given(context: typer.Context, name: str) -> bool:
    """Whether a parameter stands on the command line, and not in the environment or the defaults."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
