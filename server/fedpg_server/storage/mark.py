"""The high-water mark beside a store: how far it had got when it last answered anybody.

A log of writes that is cut short by a flipped bit, or missing, leaves a store that is sound and too old. The mark
tells. It is written after each transaction and before anything of it is answered, in two places by turns: whatever
happens to one of them, the other says at least how far the transaction before had got.
"""

from __future__ import annotations

import logging
import os
from hashlib import sha256
from pathlib import Path

from fedpg_common.errors import StorageError
from fedpg_common.files import Kind, look, reason, shown

from fedpg_server.storage.damage import advice, damaged
from fedpg_server.storage.seal import Point

MARK_SUFFIX = ".mark"
SLOTS, SLOT_BYTES = 2, 160
_sync = getattr(os, "fdatasync", os.fsync)  # the file keeps its size

log = logging.getLogger(__name__)


def mark_path(store: Path) -> Path:
    """Where a store's mark lies."""
    return store.with_suffix(MARK_SUFFIX)


class Mark:
    """The mark of a store that this process writes."""

    def __init__(self, store: Path) -> None:
        """Take up or make the file. Raises OSError."""
        self.path = mark_path(store)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    @classmethod
    def make(cls, store: Path, point: Point) -> None:
        """Make the file of a store that is about to be there. Raises OSError."""
        mark = cls(store)
        try:
            mark.write(point)
            os.fsync(mark._file)
        finally:
            mark.close()

    def write(self, point: Point) -> None:
        """Note how far the store has got; on return it is on the disk. Raises OSError."""
        os.pwrite(self._file, _slot(point), point.sequence % SLOTS * SLOT_BYTES)
        _sync(self._file)

    def close(self) -> None:
        """Release the file."""
        os.close(self._file)


def _slot(point: Point) -> bytes:
    text = f"transaction {point.sequence} round {point.round_number} content {point.digest.hex()}"
    return f"{text} {_check(text)}".ljust(SLOT_BYTES - 1).encode("ascii") + b"\n"


def _check(text: str) -> str:
    return sha256(text.encode("ascii")).hexdigest()[:32]


def read_mark(store: Path) -> Point | None:
    """The mark of a store; None without one. Raises StorageError if it cannot be read, or is damaged in both places."""
    path = mark_path(store)
    if look(path) is Kind.MISSING:
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StorageError(f"{shown(path)} cannot be read: {reason(error)}") from error
    points = [point for i in range(SLOTS) if (point := _parse(content[i * SLOT_BYTES : (i + 1) * SLOT_BYTES]))]
    if not points:
        raise StorageError(f"{shown(path)} is damaged: it cannot be told whether {store} is complete: {advice(store)}")
    return max(points, key=lambda point: point.sequence)


def _parse(slot: bytes) -> Point | None:
    """What one place says; None if that is not what was written there."""
    words = slot.decode("ascii", "backslashreplace").split()
    if len(words) != 7 or _check(" ".join(words[:6])) != words[6]:
        return None
    return Point(int(words[1]), int(words[3]), bytes.fromhex(words[5]))


def require_reached(store: Path, point: Point, mark: Point | None, ahead_max: int | None) -> None:
    """Raise StorageError if a store at `point` is not the one that was marked, or an older one.

    It may be ahead by `ahead_max` transactions, if that is given: a process that dies may leave out the last mark.
    """
    if mark is None:
        return
    if point.sequence < mark.sequence:
        where = f"after round {point.round_number}, but had got to round {mark.round_number}"
        if point.round_number == mark.round_number:
            where = f"in the round after {point.round_number}, but has lost answers of that round"
        raise damaged(store, f"it is as it was {where}; its log of writes ({store.name}-wal) is missing or damaged")
    is_other = point.sequence == mark.sequence and point.digest != mark.digest
    if is_other or (ahead_max is not None and point.sequence > mark.sequence + ahead_max):
        raise StorageError(f"{store} does not belong to {mark_path(store).name} beside it: {advice(store)}")
