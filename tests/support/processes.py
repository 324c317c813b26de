"""Processes that a test has started, directly or not."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

LEFT_AT_MOST_S = 120.0


def new_tag() -> tuple[str, str]:
    """The name and value of an environment variable by which all descendants of a process are found."""
    return "FEDPG_TEST_TAG", uuid.uuid4().hex


def left_over(tag: tuple[str, str]) -> dict[int, str]:
    """The command lines of the processes that have this tag in their environment, by process id."""
    text = "=".join(tag).encode()
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if text in (entry / "environ").read_bytes():
                found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue  # it has just ended, or is another user's
    return found


def wait_until_none_is_left(tag: tuple[str, str]) -> None:
    """Fail if the processes with this tag do not end."""
    deadline_s = time.monotonic() + LEFT_AT_MOST_S
    while left := left_over(tag):
        assert time.monotonic() < deadline_s, left
        time.sleep(0.05)
