"""A run's page has the evaluation in the agents' worlds: mean, worst and spread over rounds, and each agent's own."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from fedpg_common.worlds import Heterogeneity, World
from fedpg_lab.watch import adapter
from fedpg_lab.watch.history import History
from fedpg_lab.watch.run_view import Cursor, RunView, ServerAccess
from fedpg_server.learning.records import RoundRecord
from support.lab import write_run
from support.watch import AGENTS, watched_federation, watched_round

RETURNS = {1: 90.0, 2: 80.0, 3: 10.0, 4: 70.0, 5: 100.0}


def rounds(count: int, every: int = 5) -> list[RoundRecord]:
    """The policy is evaluated in all worlds after every fifth round, and better from time to time."""
    return [
        watched_round(n, world_returns={a: value + n for a, value in RETURNS.items()} if n % every == 0 else None)
        for n in range(1, count + 1)
    ]


def view_of(folder: Path, records: list[RoundRecord], **changes: Any) -> RunView:
    federation = dataclasses.replace(
        watched_federation(), heterogeneity=Heterogeneity({"gravity": (8, 12)}), worlds_every=5, **changes
    )
    write_run(folder, federation, records)
    return RunView(folder, "one", ServerAccess())


def test_the_last_evaluation_is_told_with_its_round(tmp_path: Path) -> None:
    view = view_of(tmp_path / "one", rounds(13), environments={3: World({"length": 0.1})})
    whole = view.whole()
    assert whole["worlds"] == {
        "round": 10, "worlds": AGENTS, "nominal": 100.0, "mean": 80.0, "worst": 20.0, "worst_agent": 3, "spread": 90.0,
    }  # fmt: skip
    rows = {row["agent"]: row for row in whole["agents"]}
    assert [rows[agent]["world_return"] for agent in RETURNS] == [100.0, 90.0, 20.0, 80.0, 110.0]
    assert rows[3]["world"].endswith("length=0.1")
    assert rows[1]["world"].startswith("gravity=")
    assert rows[1]["world"] != rows[2]["world"]


def test_rounds_without_that_evaluation_have_gaps() -> None:
    known = History(AGENTS)
    known.add([adapter.round_of(record) for record in rounds(12)])
    figures = known.curve(0)["figures"]
    assert [n for n, value in enumerate(figures["worst world"], 1) if value is not None] == [5, 10]
    assert figures["mean over the worlds"][4] == 75.0
    assert (figures["worst world"][9], figures["best world"][9]) == (20.0, 110.0)


def test_columns_of_many_rounds_have_the_mean_of_those_that_were_evaluated(monkeypatch: Any) -> None:
    monkeypatch.setattr("fedpg_lab.watch.history.CURVE_POINTS_MAX", 2)
    known = History(AGENTS)
    known.add([adapter.round_of(record) for record in rounds(16, every=4)])
    assert known.curve(0)["figures"]["worst world"] == [16.0, 24.0]


def test_a_run_without_worlds_shows_nothing_of_them(tmp_path: Path) -> None:
    write_run(tmp_path / "one", watched_federation(), [watched_round(n) for n in range(1, 6)])
    whole = RunView(tmp_path / "one", "one", ServerAccess()).whole()
    assert whole["worlds"] == {}
    assert not any("world" in name for name in whole["curve"]["figures"])
    assert all(row["world"] is None and row["world_return"] is None for row in whole["agents"])


def test_worlds_that_are_never_evaluated_are_named_all_the_same(tmp_path: Path) -> None:
    whole = view_of(tmp_path / "one", [watched_round(n) for n in range(1, 4)]).whole()
    assert whole["worlds"] == {}
    assert all(row["world"] and row["world_return"] is None for row in whole["agents"])


def test_a_return_that_is_no_number_is_left_out(tmp_path: Path) -> None:
    records = [watched_round(1, world_returns={1: math.nan, 2: 5.0, 3: 6.0, 4: 7.0, 5: 8.0})]
    whole = view_of(tmp_path / "one", records).whole()
    assert whole["agents"][0]["world_return"] is None
    assert whole["agents"][1]["world_return"] == 5.0
    assert whole["worlds"]["mean"] is None


def test_a_viewer_is_sent_worlds_only_when_they_have_changed(tmp_path: Path) -> None:
    view, cursor = view_of(tmp_path / "one", rounds(5)), Cursor()
    assert view.patch(cursor)["worlds"]["round"] == 5
    assert "worlds" not in view.patch(cursor)


def test_the_page_says_for_how_many_trajectories_votes_counted(tmp_path: Path) -> None:
    few = {1: 16, 2: 16, 3: 4, 4: 16}
    write_run(tmp_path / "one", watched_federation(), [watched_round(5, vote_trajectories=few)])
    rows = RunView(tmp_path / "one", "one", ServerAccess()).whole()["agents"]
    assert [row["trajectories"] for row in rows] == [16, 16, 4, 16, None]
