"""The version of this installation, from its metadata: the one place that knows it."""

from __future__ import annotations

from functools import cache

DISTRIBUTION = "fedpg"
UNKNOWN = "unknown"


@cache
def version() -> str:
    """The installed version, for example "0.1.0"; "unknown" where the code runs without being installed."""
    from importlib.metadata import PackageNotFoundError, version  # costs a tenth of a command's start

    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return UNKNOWN
