"""A scenario's report tells in JSON and on one page what was planned, what happened and what it cost."""

from __future__ import annotations

from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fedpg_common.errors import StorageError
from fedpg_lab.faults.history import Ending, History
from fedpg_lab.faults.report import write_report
from fedpg_lab.faults.timeline import HealReason
from support.fault_stories import (
    FINDINGS,
    PAUSE,
    RECORDS,
    happened,
    outcomes,
    reported,
)


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
