"""Log lines that an agent can cause, without end if it likes: the first ones, then fewer and fewer."""

from __future__ import annotations

import logging
from collections import Counter

ALL_UP_TO = 10
KEYS_MAX = 4096
OTHERS = "others"


class SparseLog:
    """Logs the first ten messages under a key, then the 16th, 32nd, 64th, … Keys beyond 4096 share one.

    What a message has of control characters, such as a terminal's escapes, is not passed on.
    """

    def __init__(self, log: logging.Logger) -> None:
        """Nothing has been logged."""
        self._log = log
        self._counts: Counter[str] = Counter()

    def write(self, level: int, key: str, message: str) -> None:
        """Log the message, or only count it."""
        if key not in self._counts and len(self._counts) >= KEYS_MAX:
            key = OTHERS
        self._counts[key] += 1
        message = printable(message)
        count = self._counts[key]
        if count <= ALL_UP_TO:
            self._log.log(level, "%s", message)
        elif count & (count - 1) == 0:  # a power of two
            self._log.log(level, "%s (number %d of its kind; not all are logged)", message, count)


def printable(text: str) -> str:
    """The same text in one line that does nothing to a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
