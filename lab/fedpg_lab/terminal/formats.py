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


def print_table(table: Table) -> None:
    """Print a table to standard output, as wide as it needs to be where there is no terminal."""
    console = Console(width=None if sys.stdout.isatty() else UNLIMITED)
    with console.capture() as captured:
        console.print(table)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
