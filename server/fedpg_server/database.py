"""SQLite as the store uses it: connections, the lock beside the file, checks, and errors that a user can act on."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedpg_common.errors import StorageError
from fedpg_common.files import Kind, exists, look, reason, shown

APPLICATION_ID = 0x46504752  # "FPGR"
FORMAT_VERSION = 1
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
CREATE TABLE states (            -- the learner after each round; 0 is the start
    round INTEGER PRIMARY KEY,
    theta BLOB NOT NULL,
    adam_m BLOB, adam_v BLOB,    -- of the latest round only
    adam_steps INTEGER NOT NULL,
    digest BLOB NOT NULL         -- SHA-256 of theta, adam_m and adam_v
);
"""


LOCK_ATTEMPTS, LOCK_PAUSE_S = 10, 0.05
"""A reader that asks whether the run is live holds the lock for an instant."""


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """A connection in autocommit mode, so that transactions are written out.

    `mode` is "ro", "rw", "rwc" (create), or "ro&immutable=1" for a file that nobody writes.

    Readers never wait for the writer, and a commit survives this process and this machine.
    """
    # The server calls its store from one thread at a time, but not always the same one.
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False, timeout=10
    )
    if mode == "rwc":
        connection.execute("PRAGMA page_size=16384")  # gradients are large rows
        write_ahead(connection)
    connection.execute("PRAGMA synchronous=FULL")  # with NORMAL, a power cut takes the latest commits
    return connection


def write_ahead(connection: sqlite3.Connection) -> None:
    """Let readers read while this connection writes. Stays with the file until `leave_write_ahead`."""
    connection.execute("PRAGMA journal_mode=WAL")


def leave_write_ahead(connection: sqlite3.Connection) -> None:
    """Make the file one that can be read without write access to its folder, unless somebody reads it just now."""
    with suppress(sqlite3.OperationalError):  # then it stays as it is, and a reader needs its second way
        connection.execute("PRAGMA busy_timeout=0")
        connection.execute("PRAGMA journal_mode=DELETE")


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


def open_to_read(path: Path) -> sqlite3.Connection:
    """A connection to an existing store that writes nothing, also while a server writes it.

    A store that its server could not close is in write-ahead mode. To read such a file SQLite makes two more beside it,
    which a folder that may not be written refuses. If there is no log of writes (`-wal`) to be read with the file, it
    is complete, and nobody else has it open: it is read as a file that nobody changes. If there is one, both are read
    into memory, from a copy. Raises StorageError.
    """
    try:
        return open_checked(path, "ro", thoroughly=False)
    except StorageError as error:
        if not isinstance(error.__cause__, sqlite3.OperationalError):
            raise
        log = path.with_name(f"{path.name}-wal")
        if exists(log) and log.stat().st_size > 0:
            return _copy_in_memory(path, log)
        return open_checked(path, "ro&immutable=1", thoroughly=False)


def _copy_in_memory(path: Path, log: Path) -> sqlite3.Connection:
    with translated(path), tempfile.TemporaryDirectory(prefix="fedpg-") as folder:
        copy = Path(folder) / path.name
        shutil.copyfile(path, copy)
        shutil.copyfile(log, copy.with_name(log.name))
        source = open_checked(copy, "rw", thoroughly=False)
        try:
            connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            source.backup(connection)
        finally:
            source.close()
    return connection


def check(path: Path, connection: sqlite3.Connection, thoroughly: bool) -> None:
    """Raise StorageError unless this is an intact store of this format."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise StorageError(f"{path} is not a FedPG store")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != FORMAT_VERSION:
        raise StorageError(f"{path} has store format {version}; this version reads {FORMAT_VERSION}")
    if thoroughly:
        finding = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if finding != "ok":
            raise StorageError(f"{path} is damaged: {' '.join(str(finding).split())}")


def require_file(path: Path) -> None:
    """Raise StorageError unless there is a file that is not empty."""
    if look(path) is not Kind.FILE:
        raise StorageError(f"there is no run store at {shown(path)}")
    if path.stat().st_size == 0:
        raise StorageError(f"{path} is damaged: the file is empty")


def take_lock(path: Path) -> int:
    """An exclusive advisory lock beside the file, released by the system when the process ends."""
    try:
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StorageError(f"cannot write in {shown(path.parent)}: {reason(error)}") from error
    for attempt in range(1, LOCK_ATTEMPTS + 1):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if attempt == LOCK_ATTEMPTS:
                os.close(lock)
                raise StorageError(f"{path} is in use by another server") from error
            time.sleep(LOCK_PAUSE_S)
    return lock


def is_held(path: Path) -> bool:
    """Whether a server has the store open. False where that cannot be seen."""
    try:
        lock = os.open(path.with_suffix(".lock"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without such locks
        return False
    finally:
        os.close(lock)
    return False


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's and the system's errors into StorageError."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise StorageError(f"the store {path} cannot be used: {error}") from error
    except OSError as error:
        raise StorageError(f"the store {path} cannot be used: {error.strerror}") from error
