"""What shows that a store is whole: a chain of digests over its rounds, and a sum of digests over all its rows.

The sum does not depend on the order of the rows, so that each transaction brings it up to date from the rows that it
changes alone. It is held against damage, not against somebody who writes a store of their own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

MODULUS = 2**256
COVERED = {
    "run": "name, value",
    "rounds": "round, closed, chain, record, improved",
    "votes": "round, agent, digest, report",
    "conflicts": "round, agent, digest",
    "verdicts": "agent, verdict, count",
    "states": "round, steps, digest",
    "vectors": "round, name, digest",
}
"""What the sum goes over. Gradients and vectors have digests, which are compared when they are read."""


class DamagedError(Exception):
    """What a store says is not what was written. The message says what, as the end of a sentence."""


@dataclass(frozen=True)
class Point:
    """How far a store has got."""

    sequence: int
    """Transactions so far."""
    round_number: int
    """The last round with a record, 0 for none."""
    digest: bytes
    """Of everything in it, 32 bytes."""


def row_digest(table: str, values: tuple[Any, ...]) -> int:
    """SHA-256 of a row of integers, texts, bytes and nulls. `ascii` writes each such tuple in one way."""
    return int.from_bytes(sha256(ascii((table, *values)).encode("ascii")).digest())


def link(previous: bytes | None, round_number: int, record: str, state_digest: bytes) -> bytes:
    """A round's link of the chain: what it and all rounds before it left behind."""
    return sha256(ascii((previous, round_number, record, state_digest)).encode("ascii")).digest()


def last_link(connection: sqlite3.Connection, before: int) -> bytes | None:
    """The link of the last round with a record before a round."""
    query = "SELECT chain FROM rounds WHERE record IS NOT NULL AND round < ? ORDER BY round DESC LIMIT 1"
    row = connection.execute(query, (before,)).fetchone()
    return None if row is None else row[0]


class Seal:
    """The sum, as a transaction changes it."""

    def __init__(self, rows: int) -> None:
        """`rows` is the sum over the rows until now."""
        self.rows = rows

    def add(self, table: str, *values: Any) -> None:
        """A row is there from now on."""
        self.rows = (self.rows + row_digest(table, values)) % MODULUS

    def remove(self, table: str, *values: Any) -> None:
        """A row is there no more."""
        self.rows = (self.rows - row_digest(table, values)) % MODULUS

    def write(self, connection: sqlite3.Connection, sequence: int) -> bytes:
        """Put the seal into the store, as part of its transaction number `sequence`. Returns the digest."""
        digest = _with_sequence(self.rows, sequence)
        if not connection.execute("UPDATE seal SET sequence = ?, digest = ?", (sequence, digest)).rowcount:
            connection.execute("INSERT INTO seal VALUES (?, ?)", (sequence, digest))
        return digest


def _with_sequence(rows: int, sequence: int) -> bytes:
    return ((rows + row_digest("seal", (sequence,))) % MODULUS).to_bytes(32)


def sum_of(connection: sqlite3.Connection) -> int:
    """The sum over all rows that are there."""
    seal = Seal(0)
    for table, columns in COVERED.items():
        for values in connection.execute(f"SELECT {columns} FROM {table}"):
            seal.add(table, *values)
    return seal.rows


def verify(connection: sqlite3.Connection) -> tuple[Point, Seal]:
    """How far the store has got, and its sum. Raises DamagedError unless all rows are as they were written."""
    seals = connection.execute("SELECT sequence, digest FROM seal").fetchall()
    if len(seals) != 1:
        raise DamagedError("its seal is missing")
    sequence, digest = seals[0]
    rows = sum_of(connection)
    if not isinstance(sequence, int) or _with_sequence(rows, sequence) != digest:
        raise DamagedError(_what_is_sound(connection))
    last = connection.execute("SELECT MAX(round) FROM rounds WHERE record IS NOT NULL").fetchone()[0] or 0
    return Point(sequence, last, digest), Seal(rows)


def _what_is_sound(connection: sqlite3.Connection) -> str:
    sound, broken = 0, None
    for number, is_sound in _links(connection):
        if not is_sound:
            broken = number
            break
        sound = number
    if broken is not None:
        return f"the record of round {broken} has changed" + (f"; rounds 1 to {sound} are sound" if sound else "")
    return "what it holds beside the rounds' records has changed" + (
        f"; rounds 1 to {sound} are sound" if sound else ""
    )


def _links(connection: sqlite3.Connection) -> Iterator[tuple[int, bool]]:
    """Each round with a record, in order, and whether it is as it was written."""
    query = (
        "SELECT round, rounds.chain, record, states.digest FROM rounds LEFT JOIN states USING (round)"
        " WHERE record IS NOT NULL ORDER BY round"
    )
    previous = None
    for number, chain, record, state_digest in connection.execute(query):
        yield number, link(previous, number, record, state_digest) == chain
        previous = chain


def reseal(connection: sqlite3.Connection) -> Point:
    """Take everything in a store for right, in one transaction: for whoever has changed it on purpose."""
    connection.execute("BEGIN IMMEDIATE")
    for number, name, data in connection.execute("SELECT round, name, data FROM vectors").fetchall():
        connection.execute("UPDATE vectors SET digest = ? WHERE round = ? AND name = ?",
                           (sha256(data).digest(), number, name))  # fmt: skip
    previous = None
    query = "SELECT round, record, states.digest FROM rounds LEFT JOIN states USING (round) WHERE record IS NOT NULL"
    for number, record, state_digest in connection.execute(f"{query} ORDER BY round").fetchall():
        previous = link(previous, number, record, state_digest)
        connection.execute("UPDATE rounds SET chain = ? WHERE round = ?", (previous, number))
    sequence = connection.execute("SELECT MAX(sequence) FROM seal").fetchone()[0] + 1
    Seal(sum_of(connection)).write(connection, sequence)
    connection.execute("COMMIT")
    return verify(connection)[0]
