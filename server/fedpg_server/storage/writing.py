"""The rows of a store as they are written, each told to its seal. To be called inside a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from hashlib import sha256

from fedpg_server.learning.state import State, digest_of, to_bytes
from fedpg_server.storage.rows import VoteRow
from fedpg_server.storage.seal import Seal


def insert_votes(connection: sqlite3.Connection, seal: Seal, votes: Sequence[VoteRow]) -> None:
    """Votes, one statement for each table: between any two the thread waits for the interpreter's lock."""
    values = [(vote.round_number, vote.agent, vote.digest, vote.ballot.report) for vote in votes]
    for row in values:
        seal.add("votes", *row)
    places = ", ".join(["(?, ?, ?, ?)"] * len(votes))
    connection.execute(f"INSERT INTO votes VALUES {places}", [value for row in values for value in row])
    places = ", ".join(["(?, ?, ?)"] * len(votes))
    gradients = [(vote.agent, vote.round_number, to_bytes(vote.ballot.gradient)) for vote in votes]
    connection.execute(
        f"INSERT INTO gradients VALUES {places} ON CONFLICT DO UPDATE SET round = excluded.round,"
        " gradient = excluded.gradient",
        [value for row in gradients for value in row],
    )


def set_run_value(connection: sqlite3.Connection, seal: Seal, name: str, value: str) -> None:
    """A value of the run, in place of an earlier one."""
    earlier = connection.execute("SELECT value FROM run WHERE name = ?", (name,)).fetchone()
    if earlier is not None:
        seal.remove("run", name, earlier[0])
    connection.execute("INSERT OR REPLACE INTO run VALUES (?, ?)", (name, value))
    seal.add("run", name, value)


def put_round(
    connection: sqlite3.Connection,
    seal: Seal,
    number: int,
    chain: bytes | None = None,
    record: str | None = None,
    improved: str | None = None,
) -> None:
    """Write the row of a closed round in place of an earlier one."""
    query = "SELECT closed, chain, record, improved FROM rounds WHERE round = ?"
    if (earlier := connection.execute(query, (number,)).fetchone()) is not None:
        seal.remove("rounds", number, *earlier)
    values = (number, 1, chain, record, improved)
    connection.execute("INSERT OR REPLACE INTO rounds VALUES (?, ?, ?, ?, ?)", values)
    seal.add("rounds", *values)


def insert_state(connection: sqlite3.Connection, seal: Seal, round_number: int, state: State) -> None:
    """The state after a round, and its vectors."""
    values = (round_number, state.steps, digest_of(state))
    connection.execute("INSERT INTO states VALUES (?, ?, ?)", values)
    seal.add("states", *values)
    for name, vector in state.vectors.items():
        data = to_bytes(vector)
        digest = sha256(data).digest()
        connection.execute("INSERT INTO vectors VALUES (?, ?, ?, ?)", (round_number, name, digest, data))
        seal.add("vectors", round_number, name, digest)
