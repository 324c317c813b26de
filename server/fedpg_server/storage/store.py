"""The run's memory: one SQLite file, written in transactions before anything is answered.

Write-ahead logging with synchronous=FULL: a commit returns when it is on the disk, so that what was answered survives a
killed process and a power cut.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedpg_common.errors import StorageError

from fedpg_server.learning.records import RoundRecord
from fedpg_server.learning.state import THETA, State
from fedpg_server.storage.damage import advice
from fedpg_server.storage.database import (
    APPLICATION_ID,
    FORMAT_VERSION,
    STATEMENTS,
    Opened,
    connect,
    copy_back,
    leave_write_ahead,
    open_checked,
    open_to_read,
    require_file,
    translated,
    write_ahead,
)
from fedpg_server.storage.locking import Lock, Watch, is_held
from fedpg_server.storage.mark import Mark, mark_path, read_mark, require_reached
from fedpg_server.storage.reading import PARAMETERS_FROM, StoredRun
from fedpg_server.storage.retention import Kept, best_of, better_of, latest_that_fit, no_longer_kept
from fedpg_server.storage.rows import ClosedRow, ConflictRow, FinishedRow, ImprovedRow, Row, VerdictRow, VoteRow
from fedpg_server.storage.seal import Point, Seal, last_link, link
from fedpg_server.storage.writing import insert_state, insert_votes, put_round, set_run_value

STORE_NAME = "run.sqlite"
"""Its name in a run folder."""
VOTES_AT_ONCE = 100
"""In one statement, which SQLite allows a thousand values and more."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Hold:
    """What the one process that writes a store holds beside the connection."""

    lock: Lock
    mark: Mark
    watch: Watch


class Store(StoredRun):
    """One run's store, held by one process at a time (advisory locks lie beside the file).

    A context manager: leaving it closes it.
    """

    def __init__(self, path: Path, opened: Opened, hold: _Hold | None = None) -> None:
        """Use `Store.create`, `Store.open` or `Store.read`."""
        super().__init__(path, opened.connection)
        self.keep_parameters: int | None = None
        """Of how many latest rounds θ is kept, at least 1; None for as many as fit in 64 MiB. The start's and the best
        round's are kept as well."""
        self._point = opened.point
        self._rows_sum = opened.seal.rows
        self._hold = hold
        self._kept: Kept | None = None
        """As this process left it after the latest round that has been evaluated."""

    @classmethod
    def create(cls, path: Path, run_id: str, description: str, state: State) -> Store:
        """A new store. `description` is the federation as TOML, `state` where learning starts.

        Raises StorageError if the file exists or cannot be made.
        """
        lock = Lock(path)
        unfinished = path.with_suffix(".new")
        try:
            if path.exists():
                raise StorageError(f"{path} exists already: resume that run, or choose another folder")
            with translated(path):
                unfinished.unlink(missing_ok=True)
                mark_path(path).unlink(missing_ok=True)
                point = _fill(unfinished, run_id, description, state)
                Mark.make(path, point)
                os.replace(unfinished, path)  # a store is there whole or not at all
            return cls._held(path, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def open(cls, path: Path) -> Store:
        """An existing store, to resume. Raises StorageError if it is missing, damaged, foreign or in use."""
        require_file(path)
        lock = Lock(path)
        try:
            return cls._held(path, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def _held(cls, path: Path, lock: Lock) -> Store:
        """The store, intact and as far as it had got; the mark says so from now on."""
        opened = open_checked(path, "rw")
        try:
            with translated(path):
                _require_latest(path, opened)
                mark = Mark(path)
                try:
                    mark.write(opened.point)
                    write_ahead(opened.connection)
                    wal = path.with_name(f"{path.name}-wal")
                    return cls(path, opened, _Hold(lock, mark, Watch(path, mark.path, wal)))
                except BaseException:
                    mark.close()
                    raise
        except BaseException:
            opened.connection.close()
            raise

    @classmethod
    def read(cls, path: Path) -> Store:
        """An existing store to read, also while a server holds it, and without write access. Raises StorageError."""
        require_file(path)
        mark = read_mark(path)  # before the store, which may go on meanwhile
        opened = open_to_read(path)
        try:
            require_reached(path, opened.point, mark, ahead_max=None)
        except BaseException:
            opened.connection.close()
            raise
        return cls(path, opened)

    @staticmethod
    def is_live(path: Path) -> bool:
        """Whether a server holds the store at this moment. False where that cannot be seen."""
        return is_held(path)

    def close(self) -> None:
        """Release the file, whole and without others beside it that a reader would need."""
        if self._hold is not None:
            leave_write_ahead(self._connection)
        self._connection.close()
        if self._hold is not None:
            self._hold.mark.close()
            self._hold.lock.release()
            self._hold = None

    def __enter__(self) -> Store:
        """The store itself."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Release the file."""
        self.close()

    # Writing ----------------------------------------------------------------------------------------------------------

    def commit(self, rows: Sequence[Row]) -> None:
        """Write all rows in one transaction; on return they survive this process. Raises StorageError."""
        votes = [row for row in rows if isinstance(row, VoteRow)]
        conflicts = [row for row in rows if isinstance(row, ConflictRow)]
        verdicts = [row for row in rows if isinstance(row, VerdictRow)]
        closed = [row for row in rows if isinstance(row, ClosedRow)]
        finished = [row for row in rows if isinstance(row, FinishedRow)]
        improved = [row for row in rows if isinstance(row, ImprovedRow)]
        kept = self._kept
        with self._transaction(finished[-1].record.round_number if finished else None) as (connection, seal):
            for start in range(0, len(votes), VOTES_AT_ONCE):
                insert_votes(connection, seal, votes[start : start + VOTES_AT_ONCE])
            for conflict in conflicts:
                evidence = (conflict.round_number, conflict.agent, conflict.digest)
                if connection.execute("INSERT OR IGNORE INTO conflicts VALUES (?, ?, ?)", evidence).rowcount:
                    seal.add("conflicts", *evidence)
            for verdict in verdicts:
                count = connection.execute(
                    "INSERT INTO verdicts VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET count = count + 1 RETURNING count",
                    (verdict.agent, int(verdict.verdict)),
                ).fetchone()[0]
                if count > 1:
                    seal.remove("verdicts", verdict.agent, int(verdict.verdict), count - 1)
                seal.add("verdicts", verdict.agent, int(verdict.verdict), count)
            for row in closed:
                query = "INSERT OR IGNORE INTO rounds (round, closed) VALUES (?, 1)"
                if connection.execute(query, (row.round_number,)).rowcount:
                    seal.add("rounds", row.round_number, 1, None, None, None)
            for ended in finished:  # of these rounds, the last one may be that before the one that is improved
                if ended.state is not None:
                    insert_state(connection, seal, ended.record.round_number, ended.state)
                kept = self._put_finished(connection, seal, ended.record, kept)
            for better in improved:
                put_round(connection, seal, better.record.round_number, improved=better.record.to_json())
                insert_state(connection, seal, better.record.round_number, better.state)
        self._kept = kept

    def improve_round(self, record: RoundRecord, state: State) -> None:
        """Commit an ImprovedRow. Raises StorageError."""
        self.commit([ImprovedRow(record, state)])

    def finish_round(self, record: RoundRecord, state: State | None = None) -> None:
        """Commit a FinishedRow, and bring back the log of writes. Raises StorageError."""
        self.commit([FinishedRow(record, state)])
        self.copy_back()

    def copy_back(self) -> None:
        """Bring the log of writes back into the file, so that little depends on it. Raises StorageError."""
        with translated(self.path):
            copy_back(self._connection)

    def _put_finished(
        self, connection: sqlite3.Connection, seal: Seal, record: RoundRecord, before: Kept | None
    ) -> Kept:
        """Write the record of an evaluated round. Of the states before, as many θ are kept as are to be.

        Returns which vectors are kept then; `before` are those until now.
        """
        number, text = record.round_number, record.to_json()
        state_digest = connection.execute("SELECT digest FROM states WHERE round = ?", (number,)).fetchone()[0]
        put_round(connection, seal, number, link(last_link(connection, number), number, text, state_digest), text)
        return self._drop_past(connection, seal, record, before)

    def _drop_past(self, connection: sqlite3.Connection, seal: Seal, record: RoundRecord, before: Kept | None) -> Kept:
        """Delete the vectors that are not kept once a round has been evaluated. Returns what is kept."""
        number = record.round_number
        best = best_of(self.progress()) if before is None else before.best
        latest = self.keep_parameters or latest_that_fit(connection, number)
        now = Kept(number, latest, better_of(best, number, record.evaluation_return))
        doomed = no_longer_kept(connection, before, now)
        for values in doomed:
            connection.execute("DELETE FROM vectors WHERE round = ? AND name = ?", values[:2])
            seal.remove("vectors", *values)
        if any(name == THETA for _, name, _ in doomed):
            set_run_value(connection, seal, PARAMETERS_FROM, str(number - latest + 1))
        return now

    def extend(self, description: str) -> None:
        """Go on under a description that differs in where the run ends. The one until now is kept, see `extensions`.

        Raises StorageError.
        """
        done = self._rows("SELECT MAX(round) FROM states")[0][0] or 0
        entry = {"after_round": done, "federation": self.description}
        changed = {"extensions": json.dumps([*self.extensions(), entry]), "federation": description}
        with self._transaction() as (connection, seal):
            for name, value in changed.items():
                set_run_value(connection, seal, name, value)

    @contextmanager
    def _transaction(self, finished: int | None = None) -> Iterator[tuple[sqlite3.Connection, Seal]]:
        """A transaction, and the seal to tell of every row that changes. On leaving, the mark has been moved on.

        `finished` is the round that it ends, if it ends one.
        """
        seal, sequence = Seal(self._rows_sum), self._point.sequence + 1
        with translated(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection, seal
                digest = seal.write(self._connection, sequence)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            self._rows_sum = seal.rows
            self._point = Point(sequence, finished or self._point.round_number, digest)
            if self._hold is not None:
                self._hold.mark.write(self._point)
                self._hold.watch.check()  # before anything of it is answered


def _require_latest(path: Path, opened: Opened) -> None:
    """Raise StorageError if what is known of the store's progress says that it is not the latest."""
    mark = read_mark(path)
    if mark is not None:
        require_reached(path, opened.point, mark, ahead_max=1)
    elif opened.connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
        raise StorageError(
            f"{mark_path(path)} is missing, and the server that used {path.name} was killed: it cannot be told whether "
            f"the store is complete: {advice(path)}"
        )
    else:
        log.warning("%s is missing: the store is sound, and taken to be the latest", mark_path(path))


def _fill(path: Path, run_id: str, description: str, state: State) -> Point:
    """Make the tables and the first rows of a new store. Returns how far it has got."""
    with closing(connect(path, "rwc")) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for statement in STATEMENTS:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={FORMAT_VERSION}")
        seal = Seal(0)
        for name, value in (("run_id", run_id), ("federation", description)):
            set_run_value(connection, seal, name, value)
        insert_state(connection, seal, 0, state)
        digest = seal.write(connection, 1)
        connection.execute("COMMIT")
    return Point(1, 0, digest)
