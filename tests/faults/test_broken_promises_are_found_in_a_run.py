"""Every invariant holds in a real run, and each is found to be violated where it is broken on purpose, and no other."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from fedpg_common.descriptions import federation_to_toml
from fedpg_common.errors import StorageError
from fedpg_common.federation import Federation
from fedpg_common.speeds import Speed, Speeds
from fedpg_lab.faults.evidence import Evidence, read_evidence
from fedpg_lab.faults.history import Ending, History
from fedpg_lab.faults.invariants import Finding, Outcome, check_run, finding
from fedpg_lab.faults.reference import ROUND_TIMEOUT_S, compare_with_reference
from fedpg_lab.faults.timeline import HealReason
from fedpg_lab.runs.folders import RunData, load_run
from fedpg_server.storage.seal import reseal
from fedpg_server.storage.store import STORE_NAME
from support.faults import plan, span
from support.lab import run_federation, small_federation, write_run
from support.protocol import make_round_record

ENDS = "the run reaches its end"
GOES_ON = "the run goes on after the last fault is healed"
HEALED = "every fault that begins is healed"
ONE_VOTE = "one vote per agent and round"
QUORUM = "no round closes below the quorum"
NO_GAPS = "rounds follow each other without gaps"
PARAMETERS = "each round's parameters are those recorded"
ACCOUNTED = "each agent is accepted, filtered or absent"
TOLD = "what the server has told is stored"
EXCEPTIONS = "no process meets an exception of its own"
ALL = [ENDS, GOES_ON, HEALED, ONE_VOTE, QUORUM, NO_GAPS, PARAMETERS, ACCOUNTED, TOLD, EXCEPTIONS]


@dataclass
class Exhibit:
    """A copy of a run, and what is said to have been seen of it, to be tampered with."""

    folder: Path
    history: History

    def sql(self, statement: str, *values: object) -> None:
        """Change the store, as a server that is wrong would have written it."""
        with closing(sqlite3.connect(self.folder / STORE_NAME)) as connection, connection:
            assert connection.execute(statement, values).rowcount > 0
            connection.commit()
            reseal(connection)

    def change_record(self, round_number: int, **changes: object) -> None:
        """Change fields of a round's record."""
        record = load_run(self.folder).records[round_number - 1]
        changed = replace(record, **changes)  # type: ignore[arg-type]
        self.sql("UPDATE rounds SET record = ? WHERE round = ?", changed.to_json(), round_number)

    def findings(self) -> list[Finding]:
        """All invariants."""
        return check_run(read_evidence(self.folder), self.history)

    def violated(self) -> dict[str, str]:
        """Those that are violated, and why."""
        return {f.invariant: f.detail for f in self.findings() if f.outcome is Outcome.VIOLATED}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    run = run_federation(small_federation(), tmp_path_factory.mktemp("whole") / "run")
    assert len(run.records) >= 3
    return run


@pytest.fixture
def exhibit(run: RunData, tmp_path: Path) -> Exhibit:
    shutil.copytree(run.folder, tmp_path / "run")
    told = {(record.round_number, record.parameters_digest) for record in run.records}
    healed = span(plan(1, at_most_s=1.0), begin_s=1.0, begin_round=1, heal_s=2.0, heal_round=2)
    return Exhibit(tmp_path / "run", History(faults=[healed], told=told, end_s=5.0))


def test_a_real_run_keeps_every_promise(exhibit: Exhibit, run: RunData) -> None:
    findings = exhibit.findings()
    assert [finding.invariant for finding in findings] == ALL
    assert {finding.outcome for finding in findings} == {Outcome.HOLDS}
    checked = {finding.invariant: finding.checked for finding in findings}
    rounds = len(run.records)
    assert checked[ENDS] == f"{run.records[-1].trajectories_total} of 60 trajectories"
    assert checked[GOES_ON] == f"1 of 1 faults were healed before the end; {rounds - 1} rounds closed after the last"
    assert checked[ONE_VOTE] == f"{4 * rounds} votes in {rounds} rounds"
    assert checked[QUORUM] == f"{rounds} rounds against a quorum of 3, the smallest with 4 votes"
    assert checked[TOLD] == f"{rounds} closed rounds in its status"
    assert checked[EXCEPTIONS] == "5 logs searched for tracebacks"


# Broken on purpose ----------------------------------------------------------------------------------------------------


def lose_a_vote(exhibit: Exhibit) -> None:
    exhibit.sql("DELETE FROM votes WHERE round = 2 AND agent = 3")


def count_a_vote_twice(exhibit: Exhibit) -> None:
    voters = load_run(exhibit.folder).records[1]
    exhibit.change_record(2, accepted=(*voters.accepted, 3), filtered=tuple({*voters.filtered, 3}))


def leave_out_a_vote(exhibit: Exhibit) -> None:
    record = load_run(exhibit.folder).records[1]
    exhibit.change_record(2, **without(record.accepted, record.filtered, 3), absent=(3,))


def let_a_stranger_vote(exhibit: Exhibit) -> None:
    exhibit.sql("INSERT INTO votes VALUES (2, 9, x'', x'')")


def close_a_round_below_the_quorum(exhibit: Exhibit) -> None:
    exhibit.change_record(2, accepted=(1, 2), filtered=(), absent=(3, 4))
    exhibit.sql("DELETE FROM votes WHERE round = 2 AND agent > 2")


def lose_a_round(exhibit: Exhibit) -> None:
    exhibit.sql("DELETE FROM rounds WHERE round = 2")
    exhibit.history.told = {(number, told) for number, told in exhibit.history.told if number != 2}


def vote_in_a_round_to_come(exhibit: Exhibit) -> None:
    exhibit.sql("INSERT INTO votes VALUES (99, 1, x'', x'')")


def stop_counting(exhibit: Exhibit) -> None:
    exhibit.change_record(2, trajectories_total=load_run(exhibit.folder).records[0].trajectories_total)


def change_parameters(exhibit: Exhibit) -> None:
    exhibit.sql("UPDATE vectors SET data = zeroblob(length(data)) WHERE round = 2 AND name = 'theta'")


def lose_parameters(exhibit: Exhibit) -> None:
    exhibit.sql("DELETE FROM vectors WHERE round = 2 AND name = 'theta'")


def forget_an_agent(exhibit: Exhibit) -> None:
    record = load_run(exhibit.folder).records[1]
    exhibit.change_record(2, **without(record.accepted, record.filtered, 3))
    exhibit.sql("DELETE FROM votes WHERE round = 2 AND agent = 3")


def tell_of_other_parameters(exhibit: Exhibit) -> None:
    exhibit.history.told.add((2, "ab" * 32))


def forget_what_was_told(exhibit: Exhibit) -> None:
    exhibit.history.told.add((99, "ab" * 32))


def meet_an_exception(exhibit: Exhibit) -> None:
    with (exhibit.folder / "logs" / "agent-2.log").open("a", encoding="utf-8") as log:
        log.write("Traceback (most recent call last):\n  ...\nKeyError: 3\n")


def end_too_early(exhibit: Exhibit) -> None:
    federation = small_federation()
    longer = replace(federation, task=replace(federation.task, trajectories=10_000))
    exhibit.sql("UPDATE run SET value = ? WHERE name = 'federation'", federation_to_toml(longer))


def never_end(exhibit: Exhibit) -> None:
    exhibit.history.ending = Ending.OUT_OF_TIME


def fail(exhibit: Exhibit) -> None:
    exhibit.history.ending = Ending.FAILED
    exhibit.history.failures.append("the server failed: no space is left")


def heal_after_the_last_round(exhibit: Exhibit) -> None:
    exhibit.history.faults[0].heal_round = len(load_run(exhibit.folder).records) + 1


def leave_a_fault(exhibit: Exhibit) -> None:
    exhibit.history.faults.append(span(plan(2, at_most_s=1.0), 3.0, 3, None, None))


def without(accepted: Iterable[int], filtered: Iterable[int], agent: int) -> dict[str, tuple[int, ...]]:
    """A round's voters without one."""
    return {
        "accepted": tuple(other for other in accepted if other != agent),
        "filtered": tuple(other for other in filtered if other != agent),
    }


@pytest.mark.parametrize(
    ("tamper", "violated", "sentence"),
    [
        (lose_a_vote, {ONE_VOTE}, "agent 3 counts in round 2 without a vote"),
        (count_a_vote_twice, {ONE_VOTE, ACCOUNTED}, "agent 3 counts twice in round 2"),
        (leave_out_a_vote, {ONE_VOTE}, "agent 3 voted in round 2 and is not in its record"),
        (let_a_stranger_vote, {ONE_VOTE}, "a vote of agent 9, who is not a member, in round 2"),
        (close_a_round_below_the_quorum, {QUORUM}, "round 2 closed with 2 votes"),
        (lose_a_round, {NO_GAPS}, "round 3 stands where round 2 should"),
        (vote_in_a_round_to_come, {NO_GAPS}, "votes for round 99, which comes after the last"),
        (stop_counting, {NO_GAPS}, "the count does not grow in round 2"),
        (change_parameters, {PARAMETERS}, "the parameters of round 2 are not those of its record"),
        (lose_parameters, {PARAMETERS}, "round 2 has no parameters"),
        (forget_an_agent, {ACCOUNTED}, "round 2"),
        (tell_of_other_parameters, {TOLD}, "told of a round 2 with parameters abababababab, and the store has "),
        (forget_what_was_told, {TOLD}, "a round 99 with parameters abababababab, and the store has no such round"),
        (meet_an_exception, {EXCEPTIONS}, "a traceback in agent-2.log"),
        (end_too_early, {ENDS}, " trajectories are less than 10000"),
        (never_end, {ENDS, GOES_ON}, "it did not end: out of time"),
        (fail, {ENDS, GOES_ON}, "it did not end: failed"),
        (heal_after_the_last_round, {GOES_ON}, "no round closed after"),
        (leave_a_fault, {HEALED}, "never healed: pause 2"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)  # fmt: skip
def test_what_is_broken_is_found_and_nothing_else(
    tamper: Callable[[Exhibit], None], violated: set[str], sentence: str, exhibit: Exhibit
) -> None:
    tamper(exhibit)
    found = exhibit.violated()
    assert set(found) == violated
    assert any(sentence in detail for detail in found.values())


def test_a_failure_is_told_with_the_end_that_it_prevented(exhibit: Exhibit) -> None:
    fail(exhibit)
    assert exhibit.violated()[ENDS] == "it did not end: failed; the server failed: no space is left"


def test_two_votes_of_an_agent_in_a_round_are_found(exhibit: Exhibit) -> None:
    """The store cannot hold two, so that the evidence is made up."""
    evidence = read_evidence(exhibit.folder)
    evidence = replace(evidence, votes=[*evidence.votes, (2, 3)])
    wrong = [finding for finding in check_run(evidence, exhibit.history) if finding.outcome is Outcome.VIOLATED]
    assert [(finding.invariant, finding.detail) for finding in wrong] == [(ONE_VOTE, "2 votes of agent 3 in round 2")]


def test_much_that_is_wrong_is_counted() -> None:
    assert finding("i", "c", []) == Finding("i", Outcome.HOLDS, "c")
    assert finding("i", "c", list("abcde")).detail == "a; b; c; d; e"
    assert finding("i", "c", list("abcdefg")).detail == "a; b; c; d; e; and 2 more"


# Not checked ----------------------------------------------------------------------------------------------------------


def outcome_of(exhibit: Exhibit, invariant: str) -> tuple[Outcome, str]:
    (found,) = [found for found in exhibit.findings() if found.invariant == invariant]
    return found.outcome, found.detail


def test_what_an_interrupted_run_cannot_show_is_not_checked(exhibit: Exhibit) -> None:
    exhibit.history.ending = Ending.INTERRUPTED
    exhibit.sql("UPDATE rounds SET closed = 1, record = NULL WHERE round = (SELECT MAX(round) FROM rounds)")
    exhibit.history.told.clear()
    assert exhibit.violated() == {}
    assert outcome_of(exhibit, ENDS) == (Outcome.NOT_CHECKED, "it was interrupted")
    assert outcome_of(exhibit, GOES_ON) == (Outcome.NOT_CHECKED, "it was interrupted")


def test_a_run_that_ends_during_a_fault_or_has_none_does_not_show_that_it_goes_on(exhibit: Exhibit) -> None:
    leave_a_fault(exhibit)
    assert outcome_of(exhibit, GOES_ON) == (Outcome.NOT_CHECKED, "the run ended during: pause 2")
    exhibit.history.faults.pop()
    exhibit.history.faults[0].reason = HealReason.END
    assert outcome_of(exhibit, GOES_ON) == (Outcome.NOT_CHECKED, "the run ended during: pause 1")
    exhibit.history.faults.clear()
    exhibit.history.never_begun.append(plan(1))
    assert outcome_of(exhibit, GOES_ON) == (Outcome.NOT_CHECKED, "no fault began")
    assert exhibit.violated() == {}


def test_without_logs_no_exception_can_be_found(exhibit: Exhibit) -> None:
    shutil.rmtree(exhibit.folder / "logs")
    assert outcome_of(exhibit, EXCEPTIONS) == (Outcome.NOT_CHECKED, "the run folder has none")


def test_a_run_that_closed_no_round_has_not_reached_its_end(tmp_path: Path) -> None:
    write_run(tmp_path / "run", small_federation(), [])
    exhibit = Exhibit(tmp_path / "run", History())
    assert set(exhibit.violated()) == {ENDS}


def test_a_folder_without_a_store_is_no_evidence(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no run store"):
        read_evidence(tmp_path)


# Compared with the run without faults ---------------------------------------------------------------------------------


@dataclass
class Reference:
    """Stands for the run without faults: the real one's rounds, or others."""

    run: RunData
    asked: Federation | None = None

    def __call__(self, federation: Federation) -> RunData:
        self.asked = federation
        return self.run


@pytest.fixture
def evidence(run: RunData) -> Evidence:
    return read_evidence(run.folder)


def test_the_same_parameters_as_without_faults_are_the_same(evidence: Evidence, run: RunData) -> None:
    reference = Reference(run)
    found = compare_with_reference(evidence, reference)
    rounds = len(run.records)
    assert (found.outcome, found.checked) == (Outcome.HOLDS, f"{rounds} of {rounds} rounds, bit for bit")
    assert reference.asked is not None
    assert reference.asked.task.trajectories == run.records[-1].trajectories_total
    assert reference.asked.round_timeout_s == ROUND_TIMEOUT_S, "it waits for everybody"


def test_other_parameters_than_without_faults_are_found(evidence: Evidence, run: RunData) -> None:
    records = [*run.records]
    records[1] = replace(records[1], parameters_digest="00" * 32)
    found = compare_with_reference(evidence, Reference(replace(run, records=records)))
    assert (found.outcome, found.detail) == (Outcome.VIOLATED, "round 2")
    shorter = compare_with_reference(evidence, Reference(replace(run, records=run.records[:-1])))
    assert (shorter.outcome, shorter.detail) == (Outcome.VIOLATED, f"round {len(run.records)}")


def test_rounds_are_comparable_up_to_the_first_with_an_absentee(evidence: Evidence, run: RunData) -> None:
    records = [make_round_record(n, absent=() if n <= 3 else (2,), parameters_digest=f"{n:064}") for n in range(1, 7)]
    # As a round without the absentee would not have it: the rounds from there do not count.
    theirs = [*records[:3], replace(records[3], parameters_digest="ff" * 32)]
    reference = Reference(replace(run, records=theirs))
    found = compare_with_reference(replace(evidence, records=records), reference)
    assert (found.outcome, found.checked) == (Outcome.HOLDS, "3 of 6 rounds, bit for bit")
    assert found.detail == "agents were absent in round 4: the rounds from there are another run's"
    assert reference.asked is not None
    assert reference.asked.task.trajectories == records[2].trajectories_total


def test_rounds_are_comparable_up_to_the_first_that_was_cut_short(evidence: Evidence, run: RunData) -> None:
    """Agent 2 is described to sample 8 of 16, and does so until round 3."""
    votes = {n: {1: 16, 2: 8 if n <= 3 else 4} for n in range(1, 6)}
    records = [make_round_record(n, absent=(), vote_trajectories=votes[n], parameters_digest=f"{n:064}") for n in votes]
    speeds = Speeds(min_trajectories=4, own={2: Speed(8)})
    cut = replace(evidence, records=records, federation=replace(evidence.federation, speeds=speeds))
    found = compare_with_reference(cut, Reference(replace(run, records=records[:3])))
    assert (found.outcome, found.checked) == (Outcome.HOLDS, "3 of 5 rounds, bit for bit")
    assert found.detail == "agents stopped early in round 4: the rounds from there are another run's"


def test_what_cannot_be_compared_is_not(evidence: Evidence, run: RunData) -> None:
    reference = Reference(run)
    absent = replace(evidence, records=[make_round_record(1, absent=(2,))])
    colluding = replace(evidence, federation=small_federation(byzantine=2, attack="fedpg"))
    for kept_from, wanted, why in [
        (evidence, None, "no reference was wanted"),
        (colluding, reference, "colluding attackers pool what arrives in time"),
        (absent, reference, "agents were absent in round 1: the rounds from there are another run's"),
        (replace(evidence, records=[]), reference, "no round was closed"),
    ]:
        found = compare_with_reference(kept_from, wanted)
        assert (found.outcome, found.detail) == (Outcome.NOT_CHECKED, why)
    assert reference.asked is None, "and no reference is run"
