"""One server per run: advisory locks, and a watch on the files that a server holds."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from fedpg_common.errors import StorageError
from fedpg_common.files import reason, shown

LOCK_ATTEMPTS, LOCK_PAUSE_S = 10, 0.05
"""A reader that asks whether the run is live holds the lock for an instant."""


class Lock:
    """Exclusive, released by the system when the process ends.

    It is on a file beside the store and on the folder itself: whoever deletes the file does not free the run. The store
    itself is left to SQLite, whose locks end when anybody in the process closes that file.
    """

    def __init__(self, store: Path) -> None:
        """Take the lock. Raises StorageError."""
        self._held: list[int] = []
        try:
            try:
                self._held.append(os.open(_lock_path(store), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))
            except OSError as error:
                raise StorageError(f"cannot write in {shown(store.parent)}: {reason(error)}") from error
            with suppress(OSError):  # some systems open no folders
                self._held.append(os.open(store.parent, os.O_RDONLY | os.O_CLOEXEC))
            for file in self._held:
                if not _lock(file, fcntl.LOCK_EX, LOCK_ATTEMPTS):
                    raise StorageError(f"{store} is in use by another server")
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let others have it. May be called again."""
        while self._held:
            os.close(self._held.pop())


def _lock_path(store: Path) -> Path:
    return store.with_suffix(".lock")


def _lock(file: int, kind: int, attempts: int) -> bool:
    """Whether the lock could be had. A file system without locks of a kind gives them to everybody."""
    for attempt in range(1, attempts + 1):
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if attempt < attempts:
                time.sleep(LOCK_PAUSE_S)
        except OSError:
            return True
    return False


def is_held(store: Path) -> bool:
    """Whether a server has the store open. False where that cannot be seen."""
    for path in (_lock_path(store), store.parent):
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if not _lock(file, fcntl.LOCK_SH, 1):
                return True
        finally:
            os.close(file)
    return False


class Watch:
    """Notices that a file which a server holds open has been removed or replaced: what it writes would be lost."""

    def __init__(self, *paths: Path) -> None:
        """Watch these files as they are now, and those that appear from now on."""
        self._seen = {path: _identity(path) for path in paths}

    def check(self) -> None:
        """Raise StorageError if one is not there any more."""
        for path, seen in self._seen.items():
            now = _identity(path)
            if seen is None:
                self._seen[path] = now
            elif now != seen:
                what = "removed" if now is None else "replaced"
                raise StorageError(
                    f"{path} has been {what} while the server used it: the run cannot be stored any more; put the "
                    "folder back from a copy and resume it, or start a new run"
                )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
