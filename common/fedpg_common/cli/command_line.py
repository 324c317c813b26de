"""What the three commands' options share: the version, completion, and numbers that are numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import ParameterInfo

from fedpg_common.cli.version import version

F = TypeVar("F", bound=Callable[..., Any])


def judging_paths(command: F) -> F:
    """A command that opens its paths before it judges them.

    Typer would refuse what its user may not read as a wrong option, also a folder that is only to be written.
    """
    hints = get_type_hints(command, include_extras=True)
    for hint in hints.values():
        for extra in getattr(hint, "__metadata__", ()):
            if isinstance(extra, ParameterInfo):
                extra.readable = False
    command.__annotations__ = hints
    return command


def explained(text: str) -> Callable[[F], F]:
    """A command whose help goes on with this text after its docstring, which is the first sentence."""

    def explain(command: F) -> F:
        command.__doc__ = f"{command.__doc__ or ''}\n\n{text}"
        return command

    return explain


def in_plain_words(params: list[Any]) -> list[Any]:
    """The parameters of a command, to be told of in help without the names of Python's types.

    A flag takes no value, and an argument's name says what it is.
    """
    for param in params:
        if param.param_type_name == "argument":
            param.metavar = param.metavar or param.name.upper()
            param.display_type_rich = _no_type
        elif getattr(param, "is_flag", False):
            param.metavar = param.metavar or ""
    return params


def _no_type(ctx: Any) -> None:
    """In place of an argument's type."""


class Command(TyperCommand):
    """A command whose help is for people."""

    def get_params(self, ctx: Any) -> list[Any]:
        """See `in_plain_words`."""
        return in_plain_words(super().get_params(ctx))


class Group(TyperGroup):
    """Commands whose help is for people."""

    def get_params(self, ctx: Any) -> list[Any]:
        """See `in_plain_words`."""
        return in_plain_words(super().get_params(ctx))


def print_version(wanted: bool) -> None:
    """The callback of --version: print it and end."""
    if wanted:
        typer.echo(version())
        raise typer.Exit


VERSION = typer.Option(
    "--version", help="Print the version and end.", callback=print_version, is_eager=True, metavar=""
)


def complete(choices: Iterable[str]) -> Callable[[str], list[str]]:
    """Shell completion of an option among these words."""
    words = list(choices)
    return lambda incomplete: [word for word in words if word.startswith(incomplete)]


def finite(value: float | None) -> float | None:
    """The callback of an option in seconds or another plain amount: refuse NaN and infinity, which compare oddly."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value
