"""A scenario's report tells in JSON, in a picture and on one page what was planned, what happened and what it cost."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedpg_common.descriptions import describe
from fedpg_common.errors import StorageError
from fedpg_common.federation import Federation
from fedpg_common.transport.verdicts import Verdict
from fedpg_lab.faults.backend import SERVER, FaultKind
from fedpg_lab.faults.costs import RoundCost, round_costs, usual_round_s
from fedpg_lab.faults.evidence import Evidence
from fedpg_lab.faults.history import Ending, FaultSpan, History, Wait
from fedpg_lab.faults.invariants import Finding, Outcome
from fedpg_lab.faults.picture import LABEL_MAX, LANES_MAX, draw_scenario
from fedpg_lab.faults.report import Outcomes, write_report
from fedpg_lab.faults.timeline import HealReason
from fedpg_lab.runs.folders import RunData
from fedpg_server.learning.records import RoundRecord
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from support.faults import plan, scenario_of, span
from support.protocol import make_round_record

FEDERATION = describe("CartPole-v1", agents=5, byzantine=1, attack="sign-flipping", trajectories=96)
PAUSE = plan(1, at_round=2, at_most_s=4.0)
RESTART = plan(2, FaultKind.RESTART, SERVER, at_round=3)
KILL = plan(3, FaultKind.KILL, 4, 5, after_s=11.0, for_rounds=1, at_most_s=60.0)
NEVER = plan(4, at_round=40, at_most_s=1.0)


def record(number: int, seconds: float = 1.0, absent: tuple[int, ...] = ()) -> RoundRecord:
    """A round in which agent 1 is filtered, unless it is absent."""
    voters = [agent for agent in range(1, 6) if agent not in absent]
    return make_round_record(
        number, seconds=seconds, absent=absent, parameters_digest=f"{number:064}",
        accepted=tuple(agent for agent in voters if agent > 1), filtered=tuple(agent for agent in voters if agent == 1),
    )  # fmt: skip


def happened() -> History:
    """Six rounds in 30 seconds: what `outcomes` reports on."""
    return History(
        faults=[
            span(PAUSE, begin_s=2.0, begin_round=2, heal_s=6.0, heal_round=2),
            span(RESTART, begin_s=8.0, begin_round=3, heal_s=8.0, heal_round=3),
            FaultSpan(KILL, 21.0, 5, 30.5, 6, HealReason.END),
        ],
        never_begun=[NEVER],
        below_quorum=[Wait(4.0, 5.5, 2)],
        silent=[Wait(8.1, 9.0, 3)],
        opened_s={1: 0.0, 2: 2.0, 3: 8.0, 4: 10.0, 5: 12.0, 6: 26.0},
        told={(1, f"{1:064}")},
        end_s=30.0,
    )


ABSENT: Sequence[tuple[int, ...]] = ((), (2,), (2,), (2, 3), (), (2, 3))
RECORDS = [record(number, absent=absent) for number, absent in enumerate(ABSENT, start=1)]
FINDINGS = [
    Finding("one vote per agent and round", Outcome.HOLDS, "24 votes"),
    Finding("no round closes below the quorum", Outcome.VIOLATED, "6 rounds", "round 4 closed with <2> votes"),
    Finding("the parameters are those of a run without faults", Outcome.NOT_CHECKED, "nothing", "it was not wanted"),
]


def outcomes(
    history: History | None = None,
    records: Sequence[RoundRecord] = RECORDS,
    findings: Sequence[Finding] = FINDINGS,
    federation: Federation = FEDERATION,
) -> Outcomes:
    text = 'title = "Played <b>"\n'
    scenario = replace(scenario_of([PAUSE, RESTART, KILL, NEVER]), title="Played <b>", text=text, federation=federation)
    verdicts = {1: {Verdict.ACCEPTED: 6}, 2: {Verdict.ACCEPTED: 2, Verdict.DUPLICATE: 3},
                0: {Verdict.NOT_A_MEMBER: 7}}  # fmt: skip
    evidence = Evidence(federation, records, [], {}, verdicts, ["server.log"], [])
    return Outcomes(scenario, "local", history or happened(), evidence, findings, "fedpg faults 'played <b>.toml'")


def reported(folder: Path, what: Outcomes) -> tuple[dict[str, Any], str]:
    """The JSON and the page that are written."""
    page = write_report(what, folder, datetime(2026, 2, 3, 4, 5, tzinfo=UTC))
    assert page == folder / "faults.html"
    fields: dict[str, Any] = json.loads((folder / "faults.json").read_text(encoding="utf-8"))
    return fields, page.read_text(encoding="utf-8")


# Costs, by hand -------------------------------------------------------------------------------------------------------


def times_of(costs: Sequence[RoundCost]) -> list[tuple[float, float]]:
    return [(cost.begin_s, cost.end_s) for cost in costs]


def test_time_lost_is_what_a_round_took_beyond_the_median_of_those_without_a_fault() -> None:
    history = History(
        faults=[span(PAUSE, 12.0, 4, 18.0, 4)],
        below_quorum=[Wait(15.0, 19.0, 4)],
        opened_s={1: 0.0, 3: 8.0, 4: 10.0, 5: 20.0},
        end_s=23.0,
    )
    costs = round_costs([record(1, 1.0), record(2, 3.0), record(3), record(4), record(5)], history)
    # Round 2 was not seen to open: by their own clocks the first two share the 8 seconds as 1 to 3.
    assert times_of(costs) == [(0.0, 2.0), (2.0, 8.0), (8.0, 10.0), (10.0, 20.0), (20.0, 23.0)]
    assert [cost.has_fault for cost in costs] == [False, False, False, True, False]
    assert [cost.is_below_quorum for cost in costs] == [False, False, False, True, False]
    assert usual_round_s(costs) == 2.5  # the median of 2, 6, 2 and 3
    assert [cost.lost_s for cost in costs] == [0.0, 0.0, 0.0, 7.5, 0.0]
    assert [cost.seconds for cost in costs] == [2.0, 6.0, 2.0, 10.0, 3.0]


def test_a_round_that_is_quick_in_spite_of_a_fault_loses_nothing() -> None:
    history = History(faults=[span(PAUSE, 5.5, 2, 5.6, 2)], opened_s={1: 0.0, 2: 5.0, 3: 6.0}, end_s=12.0)
    costs = round_costs([record(n) for n in range(1, 4)], history)
    assert [cost.has_fault for cost in costs] == [False, True, False]
    assert [cost.lost_s for cost in costs] == [0.0, 0.0, 0.0]


def test_without_a_calm_round_nothing_is_known_to_be_lost() -> None:
    unhealed = FaultSpan(PAUSE, 0.5, 1)  # lasts to the end
    costs = round_costs([record(1), record(2)], History(faults=[unhealed], opened_s={1: 0.0, 2: 4.0}, end_s=9.0))
    assert [cost.has_fault for cost in costs] == [True, True]
    assert [cost.lost_s for cost in costs] == [None, None]
    assert usual_round_s(costs) is None
    assert round_costs([], History(end_s=9.0)) == []


def test_a_round_that_was_left_open_is_no_part_of_the_one_before() -> None:
    history = History(opened_s={1: 0.0, 2: 3.0, 3: 5.0}, end_s=500.0, ending=Ending.INTERRUPTED)
    assert times_of(round_costs([record(1), record(2)], history)) == [(0.0, 3.0), (3.0, 5.0)]


def test_rounds_that_all_passed_unseen_share_the_time() -> None:
    costs = round_costs([record(1, 0.0), record(2, 1.0), record(3, 3.0)], History(opened_s={0: 0.0}, end_s=8.0))
    assert times_of(costs)[-1] == pytest.approx((2.0, 8.0), abs=1e-4)
    assert all(before.end_s == after.begin_s for before, after in pairwise(costs))


# JSON -----------------------------------------------------------------------------------------------------------------


def test_the_json_tells_everything_that_the_history_and_the_store_do(tmp_path: Path) -> None:
    what = outcomes()
    fields, _ = reported(tmp_path, what)
    history = what.history
    assert fields["scenario"] == {
        "name": "played", "title": "Played <b>", "description": "", "seed": 0, "at_most_s": what.scenario.at_most_s,
    }  # fmt: skip
    assert (fields["backend"], fields["ending"], fields["end_s"]) == ("local", "ended", 30.0)
    assert (fields["command"], fields["failures"]) == (what.command, [])
    assert [(entry["number"], entry["label"], entry["kind"], entry["targets"]) for entry in fields["planned"]] == [
        (1, "pause 1", "pause", [1]), (2, "restart server", "restart", [0]), (3, "kill 4, 5", "kill", [4, 5]),
        (4, "pause 4", "pause", [4]),
    ]  # fmt: skip
    times = [(p["at_round"], p["after_s"], p["for_rounds"], p["at_most_s"]) for p in fields["planned"]]
    assert times == [(2, 0, None, 4), (3, 0, None, 0), (1, 11, 1, 60), (40, 0, None, 1)]
    assert fields["happened"] == [
        {"number": s.planned.number, "label": s.planned.label, "begin_s": s.begin_s, "begin_round": s.begin_round,
         "heal_s": s.heal_s, "heal_round": s.heal_round, "reason": s.reason} for s in history.faults
    ]  # fmt: skip
    assert fields["never_begun"] == [4]
    assert fields["below_quorum"] == [{"begin_s": 4.0, "end_s": 5.5, "round_number": 2}]
    assert fields["silent"] == [{"begin_s": 8.1, "end_s": 9.0, "round_number": 3}]
    assert [entry["round_number"] for entry in fields["rounds"]] == [1, 2, 3, 4, 5, 6]
    assert [tuple(entry["absent"]) for entry in fields["rounds"]] == [r.absent for r in RECORDS]
    assert [entry["parameters_digest"] for entry in fields["rounds"]] == [r.parameters_digest for r in RECORDS]
    assert [entry["evaluation_return"] for entry in fields["rounds"]] == [25.0] * 6
    # Only round 4 is calm: the kill begins in round 5, the pause touches the end of round 1, the restart that of 2.
    assert fields["usual_round_s"] == 2.0
    assert [entry["lost_s"] for entry in fields["rounds"]] == [0.0, 4.0, 0.0, 0.0, 12.0, 2.0]
    assert [entry["seconds"] for entry in fields["rounds"]] == [2.0, 6.0, 2.0, 2.0, 14.0, 4.0]
    assert fields["verdicts"] == {
        "0": {"not a member": 7}, "1": {"accepted": 6}, "2": {"accepted": 2, "duplicate": 3},
    }  # fmt: skip
    assert [(entry["invariant"], entry["outcome"]) for entry in fields["invariants"]] == [
        (finding.invariant, finding.outcome.value) for finding in FINDINGS
    ]
    assert fields["violated"] is True


def test_the_json_says_whether_an_invariant_is_violated(tmp_path: Path) -> None:
    fields, _ = reported(tmp_path, outcomes(findings=[FINDINGS[0], FINDINGS[2]]))
    assert fields["violated"] is False


# The page -------------------------------------------------------------------------------------------------------------


class Tables(HTMLParser):
    """The tables of a page, cell by cell, and everything that it refers to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self._is_in_cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attributes if name in ("src", "href", "srcset", "data", "action")]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self._is_in_cell = True
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._is_in_cell = False

    def handle_data(self, data: str) -> None:
        if self._is_in_cell:
            self.tables[-1][-1][-1] += data

    def table(self, *header: str) -> list[list[str]]:
        """The lines of the one table whose header begins like that."""
        (found,) = [table[1:] for table in self.tables if tuple(table[0][: len(header)]) == header]
        return found


def test_the_page_needs_nothing_but_itself_and_says_no_more_than_text(tmp_path: Path) -> None:
    _, page = reported(tmp_path, outcomes())
    found = Tables(page)
    assert [link[:22] for link in found.links] == ["data:image/png;base64,"]
    assert not found.tags & {"script", "link", "iframe", "b", "object"}
    assert "@import" not in page
    assert "url(" not in page
    assert "<h1>Played &lt;b&gt;</h1>" in page
    assert "<pre>title = &#34;Played &lt;b&gt;&#34;" in page
    assert "backend local, seed 0: ended. Written 2026-02-03 04:05." in page
    assert "<pre>fedpg faults &#39;played &lt;b&gt;.toml&#39;</pre>" in page


def test_the_page_shows_what_was_planned_and_what_happened(tmp_path: Path) -> None:
    found = Tables(reported(tmp_path, outcomes())[1])
    assert found.table("invariant", "outcome")[1] == [
        "no round closes below the quorum", "violated", "6 rounds", "round 4 closed with <2> votes",
    ]  # fmt: skip
    assert found.table("", "fault") == [
        ["1", "pause 1", "round 2", "4 s"],
        ["2", "restart server", "round 3", "at once"],
        ["3", "kill 4, 5", "at 11 s", "1 round, at most 60 s"],
        ["4", "pause 4", "round 40", "1 s"],
    ]
    assert found.table("time", "round", "what happened") == [
        ["2.0 s", "2", "begins: pause 1"],
        ["4.0 s", "2", "no quorum for 1.5 s"],
        ["6.0 s", "2", "healed: pause 1"],
        ["8.0 s", "3", "begins: restart server"],
        ["8.1 s", "3", "no answer from the server for 0.9 s"],
        ["21.0 s", "5", "begins: kill 4, 5"],
        ["–", "–", "never began: pause 4"],
        ["30.5 s", "6", "healed: kill 4, 5 (the run was over)"],
    ]


def test_the_page_shows_who_was_absent_when_and_what_became_of_each_vote(tmp_path: Path) -> None:
    found = Tables(reported(tmp_path, outcomes())[1])
    assert found.table("rounds", "absent agents") == [["2 to 3", "2"], ["4", "2, 3"], ["6", "2, 3"]]
    header = ("agent", "behaviour", "in the mean", "filtered", "absent", "accepted", "duplicate", "not a member")
    assert found.table(*header) == [
        ["1", "sign-flipping", "0", "6", "0", "6", "0", "0"],
        ["2", "honest", "2", "0", "4", "2", "3", "0"],
        ["3", "honest", "4", "0", "2", "0", "0", "0"],
        ["4", "honest", "6", "0", "0", "0", "0", "0"],
        ["5", "honest", "6", "0", "0", "0", "0", "0"],
        ["others", "no members", "", "", "", "0", "0", "7"],
    ]


def test_the_page_shows_the_costliest_rounds(tmp_path: Path) -> None:
    _, page = reported(tmp_path, outcomes())
    assert Tables(page).table("round", "opened", "took", "lost", "below the quorum") == [
        ["2", "2.0 s", "6.0 s", "4.0 s", "yes"],
        ["5", "12.0 s", "14.0 s", "12.0 s", ""],
        ["6", "26.0 s", "4.0 s", "2.0 s", ""],
    ]
    assert "A round without a fault takes 2.00 s (median). The 5 rounds with one lost 18.0 s in all" in page


def test_a_failure_and_a_bound_that_was_reached_are_told(tmp_path: Path) -> None:
    history = happened()
    history.ending = Ending.FAILED
    history.failures = ["agent-3 <failed>"]
    history.faults[0].reason = HealReason.BOUND
    _, page = reported(tmp_path, outcomes(history))
    assert "<strong>The experiment failed: agent-3 &lt;failed&gt;</strong>" in page
    assert ["6.0 s", "2", "healed: pause 1 (its rounds did not pass in time)"] in Tables(page).table("time")


def test_a_run_without_a_closed_round_is_reported_without_a_picture(tmp_path: Path) -> None:
    fields, page = reported(tmp_path, outcomes(History(never_begun=[PAUSE]), records=[]))
    assert (fields["rounds"], fields["usual_round_s"]) == ([], None)
    assert "No round was closed." in page
    assert "Nobody was absent when a round was closed." in page
    assert not (tmp_path / "faults.png").exists()
    assert Tables(page).links == []


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"faults\.png cannot be written: No such file"):
        write_report(outcomes(), tmp_path / "missing", datetime.now(UTC))
    with pytest.raises(StorageError, match=r"cannot write .*faults\.json: No such file"):
        write_report(outcomes(records=[]), tmp_path / "missing", datetime.now(UTC))


# The picture ----------------------------------------------------------------------------------------------------------


def drawn(history: History) -> Figure:
    run = RunData(Path("a-run"), FEDERATION, list(RECORDS))
    return draw_scenario(run, history, round_costs(RECORDS, history))


def shades(axes: Axes) -> list[tuple[float, float]]:
    """The spans that are shaded from the bottom of the axes to the top."""
    return [
        (patch.get_x(), patch.get_x() + patch.get_width())
        for patch in axes.patches
        if isinstance(patch, Rectangle) and (patch.get_y(), patch.get_height()) == (0, 1) and patch.get_alpha() == 0.12
    ]


def uprights(axes: Axes) -> set[float]:
    """Where there are lines from the bottom of the axes to the top."""
    ends = [
        np.asarray(line.get_xdata(), float).tolist() for line in axes.lines if len(np.asarray(line.get_xdata())) == 2
    ]
    return {left for left, right in ends if left == right}


def labels(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def test_the_picture_is_a_file_that_can_be_looked_at(tmp_path: Path) -> None:
    reported(tmp_path, outcomes())
    with Image.open(tmp_path / "faults.png") as picture:
        assert 1000 <= picture.width <= 3000
        assert 800 <= picture.height <= 3000
        assert len(set(picture.convert("L").resize((64, 64)).tobytes())) > 20, "there is something on it"
    assert 20_000 < (tmp_path / "faults.png").stat().st_size < 1_000_000


def test_each_fault_that_began_is_shaded_all_through_the_picture() -> None:
    history = happened()
    figure = drawn(history)
    assert len(figure.axes) == 4
    for axes in figure.axes:
        assert shades(axes) == [(2.0, 6.0), (21.0, 30.5)]
        assert 8.0 in uprights(axes), "a restart is over at once"
    assert uprights(figure.axes[2]) == {2.0, 6.0, 8.0, 21.0, 30.5}, "the map hides the shades"
    assert labels(figure.axes[1]) == ["pause 1", "restart server", "kill 4, 5", "no quorum", "no answer"]
    left, right = figure.axes[0].get_xlim()
    assert left == 0
    assert 30.5 < right < 32, "the last heal is in sight"
    assert len({axes.get_xlim() for axes in figure.axes}) == 1


def test_the_picture_shows_what_each_round_took_and_lost() -> None:
    bars = [(bar.get_y(), bar.get_height()) for container in drawn(happened()).axes[3].containers for bar in container]
    assert bars[:6] == [(0, kept) for kept in (2.0, 2.0, 2.0, 2.0, 2.0, 2.0)]
    assert bars[6:] == [(2.0, lost) for lost in (0.0, 4.0, 0.0, 0.0, 12.0, 2.0)]


@pytest.mark.parametrize(
    ("history", "rows"),
    [
        (History(end_s=30.0), []),
        (History(end_s=30.0, silent=[Wait(1.0, 2.0, 1)]), ["no answer"]),
        (History(end_s=30.0, below_quorum=[Wait(1.0, 2.0, 1)]), ["no quorum"]),
        (History(end_s=30.0, faults=[FaultSpan(PAUSE, 3.0, 1)]), ["pause 1"]),
    ],
)
def test_every_history_has_a_picture(history: History, rows: list[str], tmp_path: Path) -> None:
    assert labels(drawn(history).axes[1]) == rows
    reported(tmp_path, outcomes(history))
    assert (tmp_path / "faults.png").stat().st_size > 10_000


def test_repetitions_share_a_row_and_many_faults_the_last() -> None:
    twice = [span(PAUSE, 1.0, 1, 2.0, 1), span(replace(PAUSE, number=9), 3.0, 1, 4.0, 1)]
    assert labels(drawn(History(faults=twice, end_s=30.0)).axes[1]) == ["pause 1"]
    many = [span(plan(n, FaultKind.KILL, *range(n, n + 30)), n, 1, n + 1.0, 1) for n in range(1, 20)]
    rows = labels(drawn(History(faults=many, end_s=30.0)).axes[1])
    assert len(rows) == LANES_MAX
    assert all(re.fullmatch(rf"kill .{{{LABEL_MAX - 6}}}…", row) for row in rows)
