"""A run's rounds in arrays, and these summed up in few enough columns to be drawn."""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpg_lab.watch.adapter import Record, Round, Totals
from fedpg_lab.watch.events import LateRounds
from fedpg_lab.watch.worlds import figures_of

CODES = ACCEPTED, FILTERED, ABSENT, VOTED = 0, 1, 2, 3
"""What became of an agent; VOTED where the rule selects nobody in particular."""
CURVE_POINTS_MAX = 1024
GRID_COLUMNS_MAX = 512
LATELY = 50
"""Rounds over which an agent's share of accepted votes is counted."""
SMOOTHING = 10
SHARES = 15
"""A cell of the grid says in fifteenths in how many of its rounds the agent was filtered, and absent."""


def width_for(rounds: int, columns_max: int) -> int:
    """How many rounds a column stands for: a power of two, so that columns stay as they are while rounds are added."""
    width = 1
    while -(-rounds // width) > columns_max:
        width *= 2
    return width


class History:
    """The rounds of one run, without what has an entry per agent but the verdicts: a byte each."""

    def __init__(self, agents: int, deadline_s: float = math.inf) -> None:
        """No round yet. A round that takes longer than `deadline_s` is late."""
        self.agents = agents
        self.late = LateRounds(deadline_s)
        self.totals = Totals()
        self.records: list[Record] = []
        self.last: Round | None = None
        self.last_in_worlds: Round | None = None
        """The last round whose policy was evaluated in all worlds."""
        self._verdicts: NDArray[np.uint8] = np.full((64, agents), ABSENT, np.uint8)
        self._rows: list[dict[str, float | None]] = []
        self._rules: list[str] = []
        self._counts: NDArray[np.int64] = np.zeros((len(CODES), agents), np.int64)
        """How often each verdict was each agent's."""
        self._last_votes: NDArray[np.int64] = np.zeros(agents, np.int64)

    def __len__(self) -> int:
        """The number of rounds."""
        return len(self.records)

    def add(self, rounds: Sequence[Round]) -> None:
        """Add the next rounds."""
        for one in rounds:
            place = len(self.records)
            if place == len(self._verdicts):
                more = np.full_like(self._verdicts, ABSENT)
                self._verdicts = np.concatenate((self._verdicts, more))
            heard = ACCEPTED if one.is_selective else VOTED
            for verdict, members in ((heard, one.accepted), (FILTERED, one.filtered)):
                places = np.asarray(members, np.int64) - 1
                self._verdicts[place, places] = verdict
                self._last_votes[places] = one.number
            self._counts[self._verdicts[place], np.arange(self.agents)] += 1
            self.records.append(one.record)
            self.totals.add(one.record)
            self.late.add(one.seconds)
            self._rules.append(one.rule)
            self._rows.append({
                "trajectories": one.trajectories, "sampled": one.sampled, "evaluation": one.evaluation,
                "training": one.training, "steps": one.steps, "seconds": one.seconds, **one.figures, **figures_of(one),
            })  # fmt: skip
            self.last = one
            if one.worlds:
                self.last_in_worlds = one

    def curve(self, since: int) -> dict[str, Any]:
        """The figures of the rounds, in at most CURVE_POINTS_MAX points; those before `since` rounds may be left out.

        `start` is the first point that is given; `figures` has a list per figure.
        """
        start, width = _start(since, len(self), CURVE_POINTS_MAX)
        first = max(0, start * width - SMOOTHING + 1)  # what the mean of the last rounds reaches back to
        rows, lead = self._rows[first:], start * width - first
        columns = {name: _column(rows, name) for name in dict.fromkeys(name for row in rows for name in row)}
        figures = {}
        for name, values in columns.items():
            if name == "evaluation":
                figures["smoothed"] = _ends(_trailing(values)[lead:], width)
            pick = _ends if name == "trajectories" else _sums if name in ("sampled", "steps", "seconds") else _means
            figures[name] = pick(values[lead:], width)
        return {
            "start": start,
            "width": width,
            "rounds": len(self),
            "figures": {k: _plain(v) for k, v in figures.items()},
        }

    def grid(self, since: int) -> dict[str, Any]:
        """The verdicts, in at most GRID_COLUMNS_MAX columns; as for `curve`.

        `cells` is base64 of a byte per column and agent: 16 times the share of its rounds that filtered the agent plus
        the share in which it was absent, in fifteenths. `rules` has the rule that decided most of a column's rounds,
        and `selects` whether any of them selected whom it listened to: where none did, the rest is votes.
        """
        start, width = _start(since, len(self), GRID_COLUMNS_MAX)
        verdicts = self._verdicts[start * width : len(self)]
        shares = [_shares(verdicts == code, width) for code in (FILTERED, ABSENT)]
        cells = (shares[0] * 16 + shares[1]).astype(np.uint8)
        rules = [
            Counter(self._rules[place : place + width]).most_common(1)[0][0]
            for place in range(start * width, len(self), width)
        ]
        return {
            "start": start, "width": width, "rounds": len(self), "agents": self.agents,
            "cells": base64.b64encode(cells.tobytes()).decode("ascii"), "rules": rules,
            "selects": [
                bool((verdicts[place : place + width] <= FILTERED).any()) for place in range(0, len(verdicts), width)
            ],
        }  # fmt: skip

    def counts(self) -> dict[str, list[int]]:
        """How often each agent was accepted, filtered and absent, and how often it voted where no rule selects, of all
        rounds and of the last LATELY; by agent.
        """
        lately = self._verdicts[max(0, len(self) - LATELY) : len(self)]
        found: dict[str, list[int]] = {"last_votes": self._last_votes.tolist()}
        for name, code in (("accepted", ACCEPTED), ("filtered", FILTERED), ("absent", ABSENT), ("heard", VOTED)):
            found[name] = self._counts[code].tolist()
            found[f"lately_{name}"] = (lately == code).sum(axis=0).tolist()
        found["last"] = lately[-1].tolist() if len(lately) else []
        return found

    def speed(self) -> float | None:
        """Environment steps per second over the last rounds."""
        rows = self._rows[-SMOOTHING:]
        seconds = sum(row["seconds"] or 0.0 for row in rows)
        return sum(row["steps"] or 0 for row in rows) / seconds if seconds > 0 else None


def _start(since: int, rounds: int, columns_max: int) -> tuple[int, int]:
    """The first column that has changed since there were `since` rounds, and the width of all."""
    width = width_for(rounds, columns_max)
    is_known = 0 < since <= rounds and width_for(since, columns_max) == width
    return (since // width if is_known else 0), width


def _column(rows: Sequence[dict[str, float | None]], name: str) -> NDArray[np.float64]:
    return np.array([np.nan if (value := row.get(name)) is None else value for row in rows], np.float64)


def _edges(count: int, width: int) -> NDArray[np.int64]:
    return np.arange(0, count, width, dtype=np.int64)


def _sums(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    return np.asarray(np.add.reduceat(np.nan_to_num(values), _edges(len(values), width))) if len(values) else values


def _means(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Of the finite ones; NaN where there are none."""
    finite = np.isfinite(values)
    counts = _sums(finite.astype(np.float64), width)
    with np.errstate(invalid="ignore"):
        return np.asarray(_sums(np.where(finite, values, 0.0), width) / np.where(counts > 0, counts, np.nan))


def _ends(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    ends = np.minimum(_edges(len(values), width) + width, len(values)) - 1
    return np.asarray(values[ends])


def _trailing(values: NDArray[np.float64]) -> NDArray[np.float64]:
    finite = np.isfinite(values)
    sums = np.concatenate(([0.0], np.cumsum(np.where(finite, values, 0.0))))
    counts = np.concatenate(([0], np.cumsum(finite)))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - SMOOTHING)
    number = counts[ends] - counts[starts]
    with np.errstate(invalid="ignore"):
        return np.asarray((sums[ends] - sums[starts]) / np.where(number > 0, number, np.nan))


def _shares(is_so: NDArray[np.bool_], width: int) -> NDArray[np.int64]:
    """In fifteenths, shape (columns, agents): 0 only for never, SHARES only for always."""
    if not len(is_so):
        return np.zeros((0, is_so.shape[1]), np.int64)
    edges = _edges(len(is_so), width)
    hits = np.add.reduceat(is_so.astype(np.int64), edges, axis=0)
    sizes = np.diff(np.append(edges, len(is_so)))[:, None]
    inner = np.clip(np.rint(hits * SHARES / sizes), 1, SHARES - 1)
    return np.where(hits == 0, 0, np.where(hits == sizes, SHARES, inner)).astype(np.int64)


def _plain(values: NDArray[np.float64]) -> list[float | None]:
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values.tolist()]
