"""What can be read of a store, also while a server writes it."""

from __future__ import annotations

import json
import math
import sqlite3
from hashlib import sha256
from pathlib import Path
from typing import Any

from fedpg_common.descriptions import federation_from_toml
from fedpg_common.errors import StorageError
from fedpg_common.federation import Federation
from fedpg_common.learning.parameters import Vector
from fedpg_common.transport.verdicts import Verdict

from fedpg_server.learning.records import RoundRecord
from fedpg_server.learning.state import THETA, State, digest_of, from_bytes
from fedpg_server.storage.damage import damaged
from fedpg_server.storage.database import translated
from fedpg_server.storage.rows import Ballot, ConflictRow, RecalledRound

PARAMETERS_FROM = "parameters_from"
"""The run's value that says from which round on all θ are kept, once some have been dropped."""


class StoredRun:
    """A run as its store knows it. Values that are not sealed have digests, which are compared here."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Read through a connection to a store that is intact."""
        self.path = path
        self._connection = connection

    @property
    def run_id(self) -> str:
        """The run's name in the protocol."""
        return self._run_value("run_id")

    @property
    def description(self) -> str:
        """The federation as TOML."""
        return self._run_value("federation")

    @property
    def federation(self) -> Federation:
        """The description, read. Raises UsageError if this version does not know what it says."""
        return federation_from_toml(self.description, f"the store {self.path}")

    def extensions(self) -> list[dict[str, Any]]:
        """Earlier descriptions in order: `federation` is the TOML that held until `after_round`, included.

        Raises StorageError if they are damaged.
        """
        rows = self._rows("SELECT value FROM run WHERE name = 'extensions'")
        try:
            return list(json.loads(rows[0][0])) if rows else []
        except ValueError as error:
            raise damaged(self.path, f"its extensions cannot be read: {error}") from error

    def latest_state(self) -> tuple[int, State]:
        """The last improved round (0 for none) and the state after it. Raises StorageError if it is damaged."""
        rows = self._rows("SELECT round, steps, digest FROM states ORDER BY round DESC LIMIT 1")
        if not rows:
            raise damaged(self.path, "the learner's state is missing")
        round_number, steps, expected = rows[0]
        stored = self._rows("SELECT name, data FROM vectors WHERE round = ? ORDER BY name", round_number)
        if any(not isinstance(data, bytes) or len(data) % 4 for _, data in stored):
            raise self._changed(f"the learner's state after round {round_number}")
        state = State({name: from_bytes(data) for name, data in stored}, steps)
        if digest_of(state) != expected:
            raise self._changed(f"the learner's state after round {round_number}")
        return round_number, state

    def recall_round(self, round_number: int) -> RecalledRound:
        """The votes in the latest round. Raises StorageError, also for a vote that is damaged."""
        rows = self._rows(
            "SELECT agent, digest, report, gradient FROM votes LEFT JOIN gradients USING (round, agent)"
            " WHERE round = ? ORDER BY agent",
            round_number,
        )
        for agent, digest, _, gradient in rows:
            if gradient is None or sha256(gradient).digest() != digest:
                raise damaged(self.path, f"agent {agent}'s vote in round {round_number} has changed")
        closed = self._rows("SELECT closed FROM rounds WHERE round = ?", round_number)
        return RecalledRound(
            digests={agent: digest for agent, digest, _, _ in rows},
            ballots={agent: Ballot(from_bytes(gradient), report) for agent, _, report, gradient in rows},
            is_closed=bool(closed and closed[0][0]),
        )

    def parameters(self, round_number: int) -> Vector:
        """θ after a round, shape (d,); round 0 is the start. Raises StorageError for a round whose θ is not kept."""
        rows = self._rows("SELECT digest, data FROM vectors WHERE round = ? AND name = ?", round_number, THETA)
        if not rows:
            raise StorageError(f"{self.path} has no parameters of round {round_number}")
        digest, data = rows[0]
        if not isinstance(data, bytes) or len(data) % 4 or sha256(data).digest() != digest:
            raise self._changed(f"θ of round {round_number}")
        return from_bytes(data)

    def parameters_if_kept(self, round_number: int) -> Vector | None:
        """As `parameters`, None for a round whose θ is not kept."""
        query = "SELECT 1 FROM vectors WHERE round = ? AND name = ?"
        return self.parameters(round_number) if self._rows(query, round_number, THETA) else None

    def _changed(self, what: str) -> StorageError:
        return damaged(self.path, f"{what} has changed")

    @property
    def parameters_from(self) -> int:
        """The round from which on θ of each is kept. Of those before, the start's and the best's are."""
        rows = self._rows("SELECT value FROM run WHERE name = ?", PARAMETERS_FROM)
        return int(rows[0][0]) if rows else 1

    def records(self, after: int = 0, limit: int = -1) -> list[RoundRecord]:
        """The evaluated rounds after round `after`, in order, at most `limit` unless that is negative.

        Raises StorageError if one is damaged.
        """
        rows = self._rows(
            "SELECT record FROM rounds WHERE record IS NOT NULL AND round > ? ORDER BY round LIMIT ?", after, limit
        )
        try:
            return [RoundRecord.from_json(row[0]) for row in rows]
        except (ValueError, KeyError, TypeError) as error:
            raise damaged(self.path, f"a round's record cannot be read: {error}") from error

    def unevaluated(self) -> RoundRecord | None:
        """The record of the latest improved round if that has not been evaluated yet, without its evaluation.

        Raises StorageError if it is damaged.
        """
        rows = self._rows("SELECT improved FROM rounds WHERE improved IS NOT NULL ORDER BY round DESC LIMIT 1")
        try:
            return RoundRecord.from_json(rows[0][0]) if rows else None
        except (ValueError, KeyError, TypeError) as error:
            raise damaged(self.path, f"a round's record cannot be read: {error}") from error

    def progress(self, after: int = 0) -> list[tuple[int, list[float]]]:
        """Trajectories so far and evaluation returns of each round after round `after`, without reading whole records.

        Raises StorageError if one is damaged.
        """
        query = (
            "SELECT json_extract(record, '$.trajectories_total'), json_extract(record, '$.evaluation_returns')"
            " FROM rounds WHERE record IS NOT NULL AND round > ? ORDER BY round"
        )
        try:
            return [
                (int(count), [math.nan if value is None else float(value) for value in json.loads(returns)])
                for count, returns in self._rows(query, after)
            ]  # JSON has no NaN: a return that is not a number is null
        except (StorageError, TypeError, ValueError):  # a return that is not a number, or a damaged record
            return [(record.trajectories_total, list(record.evaluation_returns)) for record in self.records(after)]

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
        return [number for (number,) in self._rows("SELECT round FROM vectors WHERE name = ? ORDER BY round", THETA)]

    def last_votes(self) -> dict[int, int]:
        """The latest round in which each agent voted."""
        return dict(self._rows("SELECT agent, MAX(round) FROM votes GROUP BY agent"))

    def verdict_counts(self) -> dict[int, dict[Verdict, int]]:
        """How often each agent got each verdict; agent 0 stands for all who are not members."""
        counts: dict[int, dict[Verdict, int]] = {}
        for agent, count in self._rows("SELECT agent, COUNT(*) FROM votes GROUP BY agent"):
            counts[agent] = {Verdict.ACCEPTED: count}
        for agent, verdicts in self.refusal_counts().items():
            counts.setdefault(agent, {}).update(verdicts)
        return counts

    def refusal_counts(self) -> dict[int, dict[Verdict, int]]:
        """The same without the accepted submissions: unlike these, they need not be counted one by one."""
        counts: dict[int, dict[Verdict, int]] = {}
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
