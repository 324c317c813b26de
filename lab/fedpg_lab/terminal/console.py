"""The one place where consoles are made: text is shown as it is, whatever brackets, numbers or colons it holds."""

from __future__ import annotations

from typing import Any

from rich.console import Console

WIDTH_IN_A_FILE = 200
"""Columns of a table that is not on a terminal."""


class PlainConsole(Console):
    """Leaves a reader that has gone away to the command's end, which knows the exit code for it."""

    def on_broken_pipe(self) -> None:
        """Raise it again."""
        raise  # rich calls this where it handles the BrokenPipeError


def make_console(*, stderr: bool = False, **options: Any) -> Console:
    """A console that takes no text for markup: paths, names and errors are other people's words."""
    return PlainConsole(stderr=stderr, markup=False, highlight=False, emoji=False, **options)


def table_console() -> Console:
    """Standard output for a table: as wide as the terminal, or as wide as need be in a file."""
    console = make_console()
    return console if console.is_terminal else make_console(width=WIDTH_IN_A_FILE)
