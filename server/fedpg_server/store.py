"""The run's memory: one SQLite file, written in transactions before anything is answered.

Write-ahead logging with synchronous=NORMAL: what is committed survives a killed process at once, and a power cut can
lose the latest commits but never leaves a damaged file.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fedpg_common.errors import StorageError
from fedpg_common.parameters import Vector
from fedpg_common.verdicts import Verdict

from fedpg_server.database import (
    APPLICATION_ID,
    FORMAT_VERSION,
    check,
    connect,
    require_file,
    take_lock,
    translated,
)
from fedpg_server.learner import LearnerState
from fedpg_server.records import RoundRecord

SCHEMA = """
CREATE TABLE run (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE rounds (            -- opened rounds
    round INTEGER PRIMARY KEY,
    closed INTEGER NOT NULL DEFAULT 0,
    record TEXT                  -- RoundRecord as JSON, once improved
);
CREATE TABLE votes (
    id INTEGER PRIMARY KEY,
    round INTEGER NOT NULL, agent INTEGER NOT NULL,
    digest BLOB NOT NULL,        -- SHA-256 of the gradient's bytes
    gradient BLOB,               -- little-endian float32; NULL once the round is improved
    report BLOB NOT NULL,        -- WorkReport message
    UNIQUE (round, agent)
);
CREATE TABLE conflicts (         -- equivocations: the first differing digest is evidence enough
    round INTEGER NOT NULL, agent INTEGER NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (round, agent)
);
CREATE TABLE verdicts (agent INTEGER NOT NULL, verdict INTEGER NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (agent, verdict));
CREATE TABLE states (            -- the learner after each round; 0 is the start
    round INTEGER PRIMARY KEY,
    theta BLOB NOT NULL,
    adam_m BLOB, adam_v BLOB,    -- of the latest round only
    adam_steps INTEGER NOT NULL
);
"""


@dataclass(frozen=True)
class VoteRow:
    """An accepted submission."""

    round_number: int
    agent: int
    digest: bytes
    gradient: bytes
    report: bytes


@dataclass(frozen=True)
class ConflictRow:
    """Evidence of an equivocation."""

    round_number: int
    agent: int
    digest: bytes


@dataclass(frozen=True)
class VerdictRow:
    """One more verdict of a kind."""

    agent: int
    verdict: Verdict


@dataclass(frozen=True)
class ClosedRow:
    """The round takes no more votes."""

    round_number: int


Row = VoteRow | ConflictRow | VerdictRow | ClosedRow


class Store:
    """One run's store, held by one process at a time (an advisory lock lies beside the file)."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: int | None) -> None:
        """Use `Store.create`, `Store.open` or `Store.read`."""
        self.path = path
        self._connection = connection
        self._lock = lock

    @classmethod
    def create(cls, path: Path, run_id: str, description: str, state: LearnerState) -> Store:
        """A new store. `description` is the federation as TOML, `state` the learner's start.

        Raises StorageError if the file exists or cannot be made.
        """
        lock = take_lock(path)
        unfinished = path.with_suffix(".new")
        try:
            if path.exists():
                raise StorageError(f"{path} exists already: resume that run, or choose another folder")
            unfinished.unlink(missing_ok=True)
            with translated(path):
                _fill(unfinished, run_id, description, state)
                os.replace(unfinished, path)  # a store is there whole or not at all
                return cls(path, connect(path, "rw"), lock)
        except StorageError:
            os.close(lock)
            raise

    @classmethod
    def open(cls, path: Path) -> Store:
        """An existing store, to go on with. Raises StorageError if it is missing, damaged, foreign or in use."""
        require_file(path)
        lock = take_lock(path)
        try:
            with translated(path):
                connection = connect(path, "rw")
                check(path, connection, thoroughly=True)
        except StorageError:
            os.close(lock)
            raise
        return cls(path, connection, lock)

    @classmethod
    def read(cls, path: Path) -> Store:
        """An existing store to read, also while a server holds it. Raises StorageError as `open`."""
        require_file(path)
        with translated(path):
            connection = connect(path, "ro")
            check(path, connection, thoroughly=False)
        return cls(path, connection, None)

    def close(self) -> None:
        """Release the file."""
        self._connection.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # Writing ----------------------------------------------------------------------------------------------------------

    def commit(self, rows: Iterable[Row]) -> None:
        """Write all rows in one transaction; on return they survive this process. Raises StorageError."""
        with self._transaction() as connection:
            for row in rows:
                match row:
                    case VoteRow(round_number, agent, digest, gradient, report):
                        connection.execute(
                            "INSERT INTO votes (round, agent, digest, gradient, report) VALUES (?, ?, ?, ?, ?)",
                            (round_number, agent, digest, gradient, report),
                        )
                    case ConflictRow(round_number, agent, digest):
                        connection.execute(
                            "INSERT OR IGNORE INTO conflicts VALUES (?, ?, ?)", (round_number, agent, digest)
                        )
                    case VerdictRow(agent, verdict):
                        connection.execute(
                            "INSERT INTO verdicts VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET count = count + 1",
                            (agent, int(verdict)),
                        )
                    case ClosedRow(round_number):
                        connection.execute("UPDATE rounds SET closed = 1 WHERE round = ?", (round_number,))

    def open_round(self, round_number: int) -> None:
        """Record that a round takes votes. Repeating it changes nothing. Raises StorageError."""
        with self._transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO rounds (round) VALUES (?)", (round_number,))

    def finish_round(self, record: RoundRecord, state: LearnerState) -> None:
        """Record a round's result and the learner's new state; its gradients go. Raises StorageError."""
        with self._transaction() as connection:
            connection.execute("UPDATE rounds SET record = ? WHERE round = ?", (record.to_json(), record.round_number))
            connection.execute("UPDATE states SET adam_m = NULL, adam_v = NULL WHERE adam_m IS NOT NULL")
            _insert_state(connection, record.round_number, state)
            connection.execute("UPDATE votes SET gradient = NULL WHERE round = ?", (record.round_number,))

    # Reading ----------------------------------------------------------------------------------------------------------

    @property
    def run_id(self) -> str:
        """The run's name in the protocol."""
        return self._run_value("run_id")

    @property
    def description(self) -> str:
        """The federation as TOML."""
        return self._run_value("federation")

    def latest_state(self) -> tuple[int, LearnerState]:
        """The last improved round (0 for none) and the learner after it."""
        row = self._rows("SELECT round, theta, adam_m, adam_v, adam_steps FROM states ORDER BY round DESC LIMIT 1")[0]
        return row[0], LearnerState(_vector(row[1]), _vector(row[2]), _vector(row[3]), row[4])

    def parameters(self, round_number: int) -> Vector:
        """θ after a round, shape (d,); round 0 is the start. Raises StorageError for a round without."""
        rows = self._rows("SELECT theta FROM states WHERE round = ?", round_number)
        if not rows:
            raise StorageError(f"{self.path} has no parameters of round {round_number}")
        return _vector(rows[0][0])

    def records(self) -> list[RoundRecord]:
        """The improved rounds, in order."""
        rows = self._rows("SELECT record FROM rounds WHERE record IS NOT NULL ORDER BY round")
        return [RoundRecord.from_json(row[0]) for row in rows]

    def is_closed(self, round_number: int) -> bool:
        """Whether the round takes no more votes."""
        return self._rows("SELECT 1 FROM rounds WHERE round = ? AND closed", round_number) != []

    def vote_digests(self, round_number: int) -> dict[int, bytes]:
        """The digest of each vote in a round, by agent in order."""
        rows = self._rows("SELECT agent, digest FROM votes WHERE round = ? ORDER BY agent", round_number)
        return dict(rows)

    def vote_digest(self, round_number: int, agent: int) -> bytes | None:
        """The digest of one vote, or None."""
        rows = self._rows("SELECT digest FROM votes WHERE round = ? AND agent = ?", round_number, agent)
        return rows[0][0] if rows else None

    def gradients(self, round_number: int) -> dict[int, Vector]:
        """The votes of a round that is not improved yet: vectors (d,) by agent in order."""
        rows = self._rows("SELECT agent, gradient FROM votes WHERE round = ? ORDER BY agent", round_number)
        return {agent: _vector(gradient) for agent, gradient in rows}

    def reports(self, round_number: int) -> dict[int, bytes]:
        """The WorkReport messages of a round, by agent in order."""
        rows = self._rows("SELECT agent, report FROM votes WHERE round = ? ORDER BY agent", round_number)
        return dict(rows)

    def last_votes(self) -> dict[int, int]:
        """The latest round in which each agent voted."""
        return dict(self._rows("SELECT agent, MAX(round) FROM votes GROUP BY agent"))

    def verdict_counts(self) -> dict[int, dict[Verdict, int]]:
        """How often each agent got each verdict; agent 0 stands for all who are not members."""
        counts: dict[int, dict[Verdict, int]] = {}
        for agent, verdict, count in self._rows("SELECT agent, verdict, count FROM verdicts ORDER BY agent, verdict"):
            counts.setdefault(agent, {})[Verdict(verdict)] = count
        return counts

    def conflicts(self) -> list[ConflictRow]:
        """The equivocations on record."""
        rows = self._rows("SELECT round, agent, digest FROM conflicts ORDER BY round, agent")
        return [ConflictRow(*row) for row in rows]

    def _run_value(self, name: str) -> str:
        rows = self._rows("SELECT value FROM run WHERE name = ?", name)
        if not rows:
            raise StorageError(f"{self.path} is not a complete run store: {name} is missing")
        return str(rows[0][0])

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with translated(self.path):
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with translated(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def _fill(path: Path, run_id: str, description: str, state: LearnerState) -> None:
    """Make the tables and the first rows of a new store."""
    connection = connect(path, "rwc")
    connection.execute("BEGIN IMMEDIATE")
    for statement in SCHEMA.split(";\n"):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={FORMAT_VERSION}")
    connection.executemany("INSERT INTO run VALUES (?, ?)", [("run_id", run_id), ("federation", description)])
    _insert_state(connection, 0, state)
    connection.execute("COMMIT")
    connection.close()


def _insert_state(connection: sqlite3.Connection, round_number: int, state: LearnerState) -> None:
    connection.execute(
        "INSERT INTO states VALUES (?, ?, ?, ?, ?)",
        (round_number, _bytes(state.theta), _bytes(state.adam_m), _bytes(state.adam_v), state.adam_steps),
    )


def _bytes(vector: Vector) -> bytes:
    return np.ascontiguousarray(vector, dtype="<f4").tobytes()


def _vector(data: bytes) -> Vector:
    return np.frombuffer(data, dtype="<f4").astype(np.float32)
