"""Which of the learner's vectors stay in the store: the latest state's, and θ of the start, the latest and the best."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from fedpg_server.learning.state import THETA

KEPT_BYTES = 64 * 1024 * 1024
"""Of past rounds' parameters the latest are kept that fit in here, if nothing else is asked for."""

Best = tuple[float, int]
"""The highest mean return that is a number, and the first round that has it."""


@dataclass(frozen=True)
class Kept:
    """What is kept once a round has been evaluated."""

    round_number: int
    latest: int
    """Of how many rounds up to this one θ is kept, at least 1."""
    best: Best | None


def latest_that_fit(connection: sqlite3.Connection, round_number: int) -> int:
    """Of how many rounds θ is kept if nothing else is asked for, given one round that has θ."""
    query = "SELECT LENGTH(data) FROM vectors WHERE round = ? AND name = ?"
    size: int = connection.execute(query, (round_number, THETA)).fetchone()[0]
    return max(1, KEPT_BYTES // max(1, size))


def better_of(best: Best | None, round_number: int, value: float) -> Best | None:
    """The best, once a round with that mean return is looked at as well."""
    return (value, round_number) if math.isfinite(value) and (best is None or value > best[0]) else best


def best_of(progress: Sequence[tuple[int, Sequence[float]]]) -> Best | None:
    """The best of all rounds, as `StoredRun.progress` gives them."""
    best = None
    for number, (_, returns) in enumerate(progress, start=1):
        best = better_of(best, number, sum(returns) / len(returns))
    return best


def no_longer_kept(connection: sqlite3.Connection, before: Kept | None, now: Kept) -> list[tuple[int, str, bytes]]:
    """Round, name and digest of each vector that is there and not kept now.

    `before` is what was kept when this was last done with what came of it; None looks at all vectors, of which there
    may be tens of thousands.
    """
    seen, gone = -1, 0
    if before is not None and before.latest == now.latest:
        seen, gone = before.round_number, max(0, before.round_number - before.latest)
    others = "SELECT round, name, digest FROM vectors WHERE round >= ? AND round < ? AND name != ?"
    found = connection.execute(others, (seen, now.round_number, THETA)).fetchall()
    best = now.best[1] if now.best else 0
    past = "SELECT round, name, digest FROM vectors WHERE round > ? AND round <= ? AND name = ? AND round != ?"
    found += connection.execute(past, (gone, now.round_number - now.latest, THETA, best)).fetchall()
    was_best = before.best[1] if before is not None and before.best else 0
    if 0 < was_best <= gone:  # it was passed over for being the best
        found += connection.execute(past, (was_best - 1, was_best, THETA, best)).fetchall()
    return found
