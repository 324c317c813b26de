"""SQLite as the store uses it: connections, the lock beside the file, checks, and errors that a user can act on."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedpg_common.errors import StorageError

APPLICATION_ID = 0x46504752  # "FPGR"
FORMAT_VERSION = 2
SCHEMA = """
CREATE TABLE run (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE rounds (            -- that take no more votes
    round INTEGER PRIMARY KEY,
    closed INTEGER NOT NULL,     -- 1
    record TEXT                  -- RoundRecord as JSON, once improved
);
CREATE TABLE votes (
    round INTEGER NOT NULL, agent INTEGER NOT NULL,
    digest BLOB NOT NULL,        -- SHA-256 of the gradient's bytes
    report BLOB NOT NULL,        -- WorkReport message
    PRIMARY KEY (round, agent)
) WITHOUT ROWID;
CREATE TABLE gradients (         -- of each agent's latest vote: the next one takes its place
    agent INTEGER PRIMARY KEY,
    round INTEGER NOT NULL,
    gradient BLOB NOT NULL       -- little-endian float32
);
CREATE TABLE conflicts (         -- equivocations: the first differing digest is evidence enough
    round INTEGER NOT NULL, agent INTEGER NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (round, agent)
);
CREATE TABLE verdicts (          -- of the submissions that were not accepted
    agent INTEGER NOT NULL, verdict INTEGER NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (agent, verdict)
);
CREATE TABLE states (            -- after each round; 0 is the start
    round INTEGER PRIMARY KEY,
    steps INTEGER NOT NULL,      -- of the optimizer
    digest BLOB NOT NULL         -- SHA-256 of all vectors with their names, and of the steps
);
CREATE TABLE vectors (           -- the states' vectors: theta of every round, the others of the latest
    round INTEGER NOT NULL, name TEXT NOT NULL,
    data BLOB NOT NULL,          -- little-endian float32
    PRIMARY KEY (round, name)
);
"""


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """A connection in autocommit mode, so that transactions are written out. `mode` is "ro", "rw" or "rwc" (create).

    Readers never wait for the writer, and a commit survives this process and this machine.
    """
    # The server calls its store from one thread at a time, but not always the same one.
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False, timeout=10
    )
    if mode == "rwc":
        connection.execute("PRAGMA page_size=16384")  # gradients are large rows
        connection.execute("PRAGMA journal_mode=WAL")  # stays with the file
    connection.execute("PRAGMA synchronous=FULL")  # with NORMAL, a power cut takes the latest commits
    return connection


def open_checked(path: Path, mode: str, thoroughly: bool) -> sqlite3.Connection:
    """A connection to an existing store. Raises StorageError; another application's file is left as it was."""
    with translated(path):
        connection = connect(path, mode)
        try:
            check(path, connection, thoroughly)
        except BaseException:
            connection.close()
            raise
        return connection


def check(path: Path, connection: sqlite3.Connection, thoroughly: bool) -> None:
    """Raise StorageError unless this is an intact store of this format."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise StorageError(f"{path} is not a FedPG store")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != FORMAT_VERSION:
        age = "an older" if version < FORMAT_VERSION else "a newer"
        raise StorageError(
            f"{path} was written by {age} version of FedPG (store format {version}, this version reads "
            f"{FORMAT_VERSION}): use that version for this run, or start a new one"
        )
    if thoroughly:
        finding = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if finding != "ok":
            raise StorageError(f"{path} is damaged: {' '.join(str(finding).split())}")


def require_file(path: Path) -> None:
    """Raise StorageError unless there is a file that is not empty."""
    if not path.is_file():
        raise StorageError(f"there is no run store at {path}")
    if path.stat().st_size == 0:
        raise StorageError(f"{path} is damaged: the file is empty")


def take_lock(path: Path) -> int:
    """An exclusive advisory lock beside the file, released by the system when the process ends."""
    try:
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StorageError(f"cannot write in {path.parent}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise StorageError(f"{path} is in use by another server") from error
    return lock


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's and the system's errors into StorageError."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise StorageError(f"the store {path} cannot be used: {error}") from error
    except OSError as error:
        raise StorageError(f"the store {path} cannot be used: {error.strerror}") from error
