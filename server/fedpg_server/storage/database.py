"""SQLite as the store uses it: connections, checks, and errors that a user can act on."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fedpg_common.errors import StorageError
from fedpg_common.files import Kind, exists, look, reason, shown

from fedpg_server.storage.damage import damaged
from fedpg_server.storage.seal import DamagedError, Point, Seal, verify

APPLICATION_ID = 0x46504752  # "FPGR"
FORMAT_VERSION = 4
PAGE_BYTES = 16384
"""Gradients are large rows."""
SCHEMA = """
CREATE TABLE run (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE rounds (            -- that take no more votes
    round INTEGER PRIMARY KEY,
    closed INTEGER NOT NULL,     -- 1
    chain BLOB,                  -- SHA-256 of record, state's digest and the chain before, once evaluated
    record TEXT,                 -- RoundRecord as JSON, likewise
    improved TEXT                -- the same without evaluation, once improved and until it is evaluated
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
CREATE TABLE vectors (           -- the states' vectors: theta of the rounds that are kept, the others of the latest
    round INTEGER NOT NULL, name TEXT NOT NULL,
    digest BLOB NOT NULL,        -- SHA-256 of the data
    data BLOB NOT NULL,          -- little-endian float32
    PRIMARY KEY (round, name)
);
CREATE TABLE seal (              -- one row: of everything but the data above and the gradients, which have digests
    sequence INTEGER NOT NULL,   -- transactions so far
    digest BLOB NOT NULL
);
"""
STATEMENTS = tuple(statement.strip() for statement in SCHEMA.split(";\n") if statement.strip())
LOG_PAGES = 4096
"""At this size, 64 MB, the commit that finds it so brings the log of writes back. Every round does so anyway, when
nobody waits for it; the votes of one round of a thousand agents would exceed SQLite's own measure."""
PRIMARY_CODE = 0xFF
"""The part of an error code of SQLite's that says what kind of error it is."""
COPY_ATTEMPTS = 3
"""A copy of a store that is being written meanwhile may come out torn."""


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
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
        write_ahead(connection)
    connection.execute("PRAGMA synchronous=FULL")  # with NORMAL, a power cut takes the latest commits
    return connection


def write_ahead(connection: sqlite3.Connection) -> None:
    """Let readers read while this connection writes. Stays with the file until `leave_write_ahead`."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA wal_autocheckpoint={LOG_PAGES}")


def leave_write_ahead(connection: sqlite3.Connection) -> None:
    """Make the file one that can be read without write access to its folder, unless somebody reads it just now."""
    with suppress(sqlite3.OperationalError):  # then it stays as it is, and a reader needs its second way
        connection.execute("PRAGMA busy_timeout=0")
        connection.execute("PRAGMA journal_mode=DELETE")


def copy_back(connection: sqlite3.Connection) -> None:
    """Bring what the log of writes has into the file, as far as nobody reads it, so that little depends on the log."""
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")


@dataclass(frozen=True)
class Opened:
    """An intact store."""

    connection: sqlite3.Connection
    point: Point
    seal: Seal


def open_checked(path: Path, mode: str) -> Opened:
    """An existing store. Raises StorageError unless it is intact; another application's file is left as it was."""
    with translated(path):
        connection = connect(path, mode)
        try:
            return Opened(connection, *check(path, connection))
        except BaseException:
            connection.close()
            raise


def open_to_read(path: Path) -> Opened:
    """An existing store, through a connection that writes nothing, also while a server writes it.

    A store that its server could not close is in write-ahead mode. To read such a file SQLite makes two more beside it,
    which a folder that may not be written refuses. If there is no log of writes (`-wal`) to be read with the file, it
    is complete, and nobody else has it open: it is read as a file that nobody changes. If there is one, both are read
    into memory, from a copy. Raises StorageError.
    """
    try:
        return open_checked(path, "ro")
    except StorageError as error:
        if not isinstance(error.__cause__, sqlite3.OperationalError):
            raise
        log = path.with_name(f"{path.name}-wal")
        if not exists(log) or log.stat().st_size == 0:
            return open_checked(path, "ro&immutable=1")
    for _ in range(COPY_ATTEMPTS - 1):
        with suppress(StorageError):
            return _copy_in_memory(path, log)
    return _copy_in_memory(path, log)


def _copy_in_memory(path: Path, log: Path) -> Opened:
    with translated(path), tempfile.TemporaryDirectory(prefix="fedpg-") as folder:
        copy = Path(folder) / path.name
        shutil.copyfile(path, copy)
        shutil.copyfile(log, copy.with_name(log.name))
        source = connect(copy, "rw")
        try:
            point, seal = check(path, source)
            connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            source.backup(connection)
        finally:
            source.close()
    return Opened(connection, point, seal)


def check_format(path: Path, connection: sqlite3.Connection) -> None:
    """Raise StorageError unless it is a store of this format."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise StorageError(f"{path} is not a FedPG store")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != FORMAT_VERSION:
        age = "an older" if version < FORMAT_VERSION else "a newer"
        raise StorageError(
            f"{path} was written by {age} version of FedPG (store format {version}, this version reads "
            f"{FORMAT_VERSION}): use that version for this run, or start a new one"
        )


def check(path: Path, connection: sqlite3.Connection) -> tuple[Point, Seal]:
    """How far the store has got. Raises StorageError unless it is an intact store of this format."""
    check_format(path, connection)
    connection.execute("BEGIN")  # all of it as of one moment, also while a server writes
    try:
        finding = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if finding != "ok":
            raise DamagedError(" ".join(str(finding).split()))
        schema = connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid").fetchall()
        if tuple(statement for (statement,) in schema) != STATEMENTS:
            raise DamagedError("its tables are not those of a run")
        return verify(connection)
    except DamagedError as error:
        raise damaged(path, str(error)) from error
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def require_file(path: Path) -> None:
    """Raise StorageError unless there is a file that is not empty."""
    if look(path) is not Kind.FILE:
        raise StorageError(f"there is no run store at {shown(path)}")
    if path.stat().st_size == 0:
        raise damaged(path, "the file is empty")


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's and the system's errors, and what damaged values cause, into StorageError."""
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning) as error:
        if getattr(error, "sqlite_errorcode", 0) & PRIMARY_CODE in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise damaged(path, str(error)) from error
        raise StorageError(f"the store {path} cannot be used: {error}") from error
    except OSError as error:
        raise StorageError(f"the store {path} cannot be used: {reason(error)}") from error
    except (ValueError, TypeError, OverflowError, MemoryError) as error:  # a text that is not UTF-8, an endless length
        what = " ".join(str(error).split()) or type(error).__name__
        raise damaged(path, f"a value cannot be read ({what})") from error
