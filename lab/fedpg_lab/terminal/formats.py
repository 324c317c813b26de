"""What the commands that read have in common: the form of their answer."""

from __future__ import annotations

import sys
from enum import StrEnum

from rich.console import Console
from rich.table import Table

UNLIMITED = 10_000
"""Columns of a table that goes to a file or a pipe: nothing is folded there."""


class Format(StrEnum):
    """For people or for programs."""

    TABLE = "table"
    JSON = "json"


def width_of_output() -> int:
    """Columns of the terminal that standard output is, or as many as anybody wants where there is none."""
    return Console().width if sys.stdout.isatty() else UNLIMITED


def print_table(table: Table) -> None:
    """Print a table to standard output, as wide as it needs to be where there is no terminal."""
    sys.stdout.write("".join(f"{line}\n" for line in table_lines(table, width_of_output())))


def table_lines(table: Table, width: int = UNLIMITED) -> list[str]:
    """A table as text of so many columns at most."""
    console = Console(width=width)
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]
