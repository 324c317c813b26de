"""The states of a run."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """How a run is."""

    LIVE = "live"
    """A server holds its store."""
    UNFINISHED = "unfinished"
    """It can be resumed."""
    FINISHED = "finished"
    FAILED = "failed"
    """It ended with an error, which its summary tells; it can be resumed."""
    UNREADABLE = "unreadable"
    """Damaged, of another program or version, or not to be opened."""
