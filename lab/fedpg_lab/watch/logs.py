"""The log of a run's server, read as it grows: where it serves, how often it was started, what it tells."""

from __future__ import annotations

import re
from collections import deque
from pathlib import Path

from fedpg_common.words import on_one_line

LOG = Path("logs", "server.log")
LINES_MAX = 200
CHUNK_BYTES = 1 << 20
STARTED = re.compile(r"run (\S+) at (\S+): ")
ROUND = re.compile(r"^\d\d:\d\d:\d\d INFO +server +round (\d+)  ")
"""A closed round: the page shows these otherwise."""


class ServerLog:
    """What the log in a run folder tells. A run without one has no lines."""

    def __init__(self, folder: Path) -> None:
        """Nothing is read yet."""
        self._path = folder / LOG
        self._forget()

    def _forget(self) -> None:
        self._offset = 0
        self._rest = b""
        self.lines: deque[str] = deque(maxlen=LINES_MAX)
        """The latest lines but those of closed rounds."""
        self.count = 0
        """How many of these there have been."""
        self.starts = 0
        """How often a server process began to serve the run."""
        self.started_after: list[int] = []
        """The last round that had ended by the log when each of them began."""
        self._round = 0
        self.address: str | None = None
        """Where the latest of them serves."""

    def read(self) -> None:
        """Read what is new. A log that cannot be read tells nothing."""
        try:
            with self._path.open("rb") as file:
                if file.seek(0, 2) < self._offset:  # another run's
                    self._forget()
                file.seek(self._offset)
                while chunk := file.read(CHUNK_BYTES):
                    self._offset += len(chunk)
                    *whole, self._rest = (self._rest + chunk).split(b"\n")
                    for line in whole:
                        self._take(on_one_line(line.decode("utf-8", "replace")))
        except OSError:
            return

    def _take(self, line: str) -> None:
        started = STARTED.search(line)
        if started:
            self.starts += 1
            self.started_after.append(self._round)
            self.address = started.group(2)
        if round_ := ROUND.match(line):
            self._round = int(round_.group(1))
        elif line.strip():
            self.lines.append(line)
            self.count += 1
