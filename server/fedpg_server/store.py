"""The run's memory: one SQLite file, written in transactions before anything is answered.

Write-ahead logging with synchronous=FULL: a commit returns when it is on the disk, so that what was answered survives a
killed process and a power cut.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from fedpg_common.errors import StorageError
from fedpg_common.parameters import Vector
from fedpg_common.verdicts import Verdict

from fedpg_server.database import (
    APPLICATION_ID,
    FORMAT_VERSION,
    SCHEMA,
    connect,
    is_held,
    leave_write_ahead,
    open_checked,
    open_to_read,
    require_file,
    take_lock,
    translated,
    write_ahead,
)
from fedpg_server.records import RoundRecord
from fedpg_server.rows import Ballot, ClosedRow, ConflictRow, RecalledRound, Row, VerdictRow, VoteRow
from fedpg_server.state import LearnerState

STORE_NAME = "run.sqlite"
"""Its name in a run folder."""


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
            with translated(path):
                unfinished.unlink(missing_ok=True)
                _fill(unfinished, run_id, description, state)
                os.replace(unfinished, path)  # a store is there whole or not at all
                return cls(path, connect(path, "rw"), lock)
        except BaseException:
            os.close(lock)
            raise

    @classmethod
    def open(cls, path: Path) -> Store:
        """An existing store, to go on with. Raises StorageError if it is missing, damaged, foreign or in use."""
        require_file(path)
        lock = take_lock(path)
        try:
            connection = open_checked(path, "rw", thoroughly=True)
            with translated(path):
                write_ahead(connection)
            return cls(path, connection, lock)
        except BaseException:
            os.close(lock)
            raise

    @classmethod
    def read(cls, path: Path) -> Store:
        """An existing store to read, also while a server holds it, and without write access. Raises StorageError."""
        require_file(path)
        return cls(path, open_to_read(path), None)

    @staticmethod
    def is_live(path: Path) -> bool:
        """Whether a server holds the store at this moment. False where that cannot be seen."""
        return is_held(path)

    def close(self) -> None:
        """Release the file, whole and without others beside it that a reader would need."""
        if self._lock is not None:
            leave_write_ahead(self._connection)
        self._connection.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # Writing ----------------------------------------------------------------------------------------------------------

    def commit(self, rows: Sequence[Row]) -> None:
        """Write all rows in one transaction; on return they survive this process. Raises StorageError."""
        votes = [row for row in rows if isinstance(row, VoteRow)]
        conflicts = [row for row in rows if isinstance(row, ConflictRow)]
        verdicts = [row for row in rows if isinstance(row, VerdictRow)]
        closed = [row for row in rows if isinstance(row, ClosedRow)]
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO votes VALUES (?, ?, ?, ?)",
                [(row.round_number, row.agent, row.digest, row.ballot.report) for row in votes],
            )
            connection.executemany(
                "INSERT INTO gradients VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET round = excluded.round, gradient = excluded.gradient",
                [(row.agent, row.round_number, _bytes(row.ballot.gradient)) for row in votes],
            )
            connection.executemany(
                "INSERT OR IGNORE INTO conflicts VALUES (?, ?, ?)",
                [(row.round_number, row.agent, row.digest) for row in conflicts],
            )
            connection.executemany(
                "INSERT INTO verdicts VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET count = count + 1",
                [(row.agent, int(row.verdict)) for row in verdicts],
            )
            connection.executemany(
                "INSERT INTO rounds (round, closed) VALUES (?, 1) ON CONFLICT DO UPDATE SET closed = 1",
                [(row.round_number,) for row in closed],
            )

    def recall_round(self, round_number: int) -> RecalledRound:
        """The votes in the latest round. Raises StorageError, also for a vote that is damaged."""
        rows = self._rows(
            "SELECT agent, digest, report, gradient FROM votes LEFT JOIN gradients USING (round, agent)"
            " WHERE round = ? ORDER BY agent",
            round_number,
        )
        for agent, digest, _, gradient in rows:
            if gradient is None or sha256(gradient).digest() != digest:
                raise StorageError(f"{self.path} is damaged: agent {agent}'s vote in round {round_number} has changed")
        closed = self._rows("SELECT closed FROM rounds WHERE round = ?", round_number)
        return RecalledRound(
            digests={agent: digest for agent, digest, _, _ in rows},
            ballots={agent: Ballot(_vector(gradient), report) for agent, _, report, gradient in rows},
            is_closed=bool(closed and closed[0][0]),
        )

    def finish_round(self, record: RoundRecord, state: LearnerState) -> None:
        """Record a round's result and the learner's new state. Raises StorageError."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO rounds (round, closed, record) VALUES (?, 1, ?)"
                " ON CONFLICT DO UPDATE SET record = excluded.record",
                (record.round_number, record.to_json()),
            )
            connection.execute(
                "UPDATE states SET adam_m = NULL, adam_v = NULL WHERE round = ?", (record.round_number - 1,)
            )
            _insert_state(connection, record.round_number, state)

    def extend(self, description: str) -> None:
        """Go on under a description that differs in where the run ends. The one until now is kept, see `extensions`.

        Raises StorageError.
        """
        done = self._rows("SELECT MAX(round) FROM rounds WHERE record IS NOT NULL")[0][0] or 0
        entry = {"after_round": done, "federation": self.description}
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO run VALUES ('extensions', ?) ON CONFLICT DO UPDATE SET value = excluded.value",
                (json.dumps([*self.extensions(), entry]),),
            )
            connection.execute("UPDATE run SET value = ? WHERE name = 'federation'", (description,))

    # Reading ----------------------------------------------------------------------------------------------------------

    @property
    def run_id(self) -> str:
        """The run's name in the protocol."""
        return self._run_value("run_id")

    @property
    def description(self) -> str:
        """The federation as TOML."""
        return self._run_value("federation")

    def extensions(self) -> list[dict[str, Any]]:
        """Earlier descriptions in order: `federation` is the TOML that held until `after_round`, included.

        Raises StorageError if they are damaged.
        """
        rows = self._rows("SELECT value FROM run WHERE name = 'extensions'")
        try:
            return list(json.loads(rows[0][0])) if rows else []
        except ValueError as error:
            raise StorageError(f"{self.path} is damaged: its extensions cannot be read: {error}") from error

    def latest_state(self) -> tuple[int, LearnerState]:
        """The last improved round (0 for none) and the learner after it. Raises StorageError if it is damaged."""
        rows = self._rows(
            "SELECT round, theta, adam_m, adam_v, adam_steps, digest FROM states ORDER BY round DESC LIMIT 1"
        )
        if not rows or None in rows[0]:
            raise StorageError(f"{self.path} is damaged: the learner's state is missing")
        round_number, theta, adam_m, adam_v, adam_steps, expected = rows[0]
        if sha256(theta + adam_m + adam_v).digest() != expected:
            raise StorageError(f"{self.path} is damaged: the learner's state after round {round_number} has changed")
        return round_number, LearnerState(_vector(theta), _vector(adam_m), _vector(adam_v), adam_steps)

    def parameters(self, round_number: int) -> Vector:
        """θ after a round, shape (d,); round 0 is the start. Raises StorageError for a round without."""
        rows = self._rows("SELECT theta FROM states WHERE round = ?", round_number)
        if not rows:
            raise StorageError(f"{self.path} has no parameters of round {round_number}")
        return _vector(rows[0][0])

    def records(self) -> list[RoundRecord]:
        """The improved rounds, in order. Raises StorageError if one is damaged."""
        rows = self._rows("SELECT record FROM rounds WHERE record IS NOT NULL ORDER BY round")
        try:
            return [RoundRecord.from_json(row[0]) for row in rows]
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{self.path} is damaged: a round's record cannot be read: {error}") from error

    def progress(self) -> list[tuple[int, list[float]]]:
        """Each improved round's trajectories so far and evaluation returns, without reading its whole record.

        Raises StorageError if one is damaged.
        """
        query = (
            "SELECT json_extract(record, '$.trajectories_total'), json_extract(record, '$.evaluation_returns')"
            " FROM rounds WHERE record IS NOT NULL ORDER BY round"
        )
        try:
            return [
                (int(count), [math.nan if value is None else float(value) for value in json.loads(returns)])
                for count, returns in self._rows(query)
            ]  # JSON has no NaN: a return that is not a number is null
        except (StorageError, TypeError, ValueError):  # a damaged record
            return [(record.trajectories_total, list(record.evaluation_returns)) for record in self.records()]

    def vote_digest(self, round_number: int, agent: int) -> bytes | None:
        """The digest of one vote, or None."""
        rows = self._rows("SELECT digest FROM votes WHERE round = ? AND agent = ?", round_number, agent)
        return rows[0][0] if rows else None

    def vote_digests(self, round_number: int) -> dict[int, bytes]:
        """The digests of a round's votes by agent."""
        return dict(self._rows("SELECT agent, digest FROM votes WHERE round = ?", round_number))

    def votes(self) -> list[tuple[int, int]]:
        """(round, agent) of every vote, in order."""
        return self._rows("SELECT round, agent FROM votes ORDER BY round, agent")

    def state_rounds(self) -> list[int]:
        """The rounds whose parameters are kept, in order; 0 is the start."""
        return [round_number for (round_number,) in self._rows("SELECT round FROM states ORDER BY round")]

    def last_votes(self) -> dict[int, int]:
        """The latest round in which each agent voted."""
        return dict(self._rows("SELECT agent, MAX(round) FROM votes GROUP BY agent"))

    def verdict_counts(self) -> dict[int, dict[Verdict, int]]:
        """How often each agent got each verdict; agent 0 stands for all who are not members."""
        counts: dict[int, dict[Verdict, int]] = {}
        for agent, count in self._rows("SELECT agent, COUNT(*) FROM votes GROUP BY agent"):
            counts[agent] = {Verdict.ACCEPTED: count}
        for agent, verdict, count in self._rows("SELECT agent, verdict, count FROM verdicts"):
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
    with closing(connect(path, "rwc")) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for statement in SCHEMA.split(";\n"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={FORMAT_VERSION}")
        connection.executemany("INSERT INTO run VALUES (?, ?)", [("run_id", run_id), ("federation", description)])
        _insert_state(connection, 0, state)
        connection.execute("COMMIT")


def _insert_state(connection: sqlite3.Connection, round_number: int, state: LearnerState) -> None:
    theta, adam_m, adam_v = _bytes(state.theta), _bytes(state.adam_m), _bytes(state.adam_v)
    connection.execute(
        "INSERT INTO states VALUES (?, ?, ?, ?, ?, ?)",
        (round_number, theta, adam_m, adam_v, state.adam_steps, sha256(theta + adam_m + adam_v).digest()),
    )


def _bytes(vector: Vector) -> bytes:
    return np.ascontiguousarray(vector, dtype="<f4").tobytes()


def _vector(data: bytes) -> Vector:
    return np.frombuffer(data, dtype="<f4").astype(np.float32, copy=False)
