"""The option that chooses observers, for the commands that serve a run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import typer

from fedpg_common.choices import Choice, Choices, parse_settings
from fedpg_common.cli.options import OUTPUT
from fedpg_common.errors import UsageError

OBSERVERS: Choices[Any] = Choices(
    "observer",
    {
        "checkpoints": "fedpg_server.observers.checkpointing:CheckpointExporter",
        "tensorboard": "fedpg_server.observers.telemetry:TensorBoard",
    },
)
"""What looks on while a run goes on (`fedpg_server.observers.base.Observer`)."""


def parse_observer(text: str) -> Choice:
    """The choice on a command line: NAME, or "NAME setting=value …" in one word. Raises UsageError."""
    try:
        name, *settings = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--observer takes NAME, or 'NAME setting=value', not {text!r}") from error
    return OBSERVERS.parse({"name": name, **parse_settings(settings)})


OBSERVER = typer.Option(
    help=f"What else looks on: {OBSERVERS.names}, or MODULE:NAME; with settings, 'NAME key=value' in one word. Repeat "
    "for several.",
    metavar="NAME",
    show_default=False,
    rich_help_panel=OUTPUT,
)
"""The option --observer of the commands that serve."""


def chosen_observers(tensorboard: bool, others: Sequence[str]) -> tuple[Choice, ...]:
    """Checkpoints, TensorBoard if it is wanted, and what --observer names in addition, or with other settings."""
    chosen = {"checkpoints": Choice("checkpoints")} | ({"tensorboard": Choice("tensorboard")} if tensorboard else {})
    for text in others:
        choice = parse_observer(text)
        chosen[choice.label if choice.modules else choice.name] = choice
    return tuple(chosen.values())
