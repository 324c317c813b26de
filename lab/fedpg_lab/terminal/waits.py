"""What a command of one process waits for, said to whoever looks on: an environment that does not return is silent."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fedpg_common.waits import Waiting, telling_of_waits


@contextmanager
def waits_are_told() -> Iterator[None]:
    """Meanwhile, say on standard error what others' code keeps the command waiting for, and when it returns."""
    with telling_of_waits(_tell):
        yield


def _tell(_thread: int, waiting: Waiting | None) -> None:
    # Not `typer.echo`, which writes past a progress bar, and into it.
    print(f"fedpg: {waiting if waiting is not None else 'that has returned'}", file=sys.stderr, flush=True)
