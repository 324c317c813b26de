"""What must hold whatever fails: each promise checked against a run's store, its logs, and what was seen of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from fedpg_lab.faults.evidence import Evidence
from fedpg_lab.faults.history import Ending, History
from fedpg_lab.faults.timeline import HealReason

NAMED_MAX = 5
"""Violations that a finding names; the others are counted."""


class Outcome(StrEnum):
    """What became of a check."""

    HOLDS = "holds"
    VIOLATED = "violated"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True)
class Finding:
    """An invariant, what was looked at, and what came out."""

    invariant: str
    outcome: Outcome
    checked: str
    """What was looked at, with counts."""
    detail: str = ""
    """What is wrong, or why it was not checked."""


def check_run(evidence: Evidence, history: History) -> list[Finding]:
    """All invariants that need no other run."""
    return [check(evidence, history) for check in CHECKS]


def finding(invariant: str, checked: str, wrong: Sequence[str]) -> Finding:
    """Holds if nothing is wrong."""
    named = "; ".join(wrong[:NAMED_MAX]) + (f"; and {len(wrong) - NAMED_MAX} more" if len(wrong) > NAMED_MAX else "")
    return Finding(invariant, Outcome.VIOLATED if wrong else Outcome.HOLDS, checked, named)


def _reached_its_end(evidence: Evidence, history: History) -> Finding:
    name = "the run reaches its end"
    target = evidence.federation.task.trajectories
    count = evidence.records[-1].trajectories_total if evidence.records else 0
    checked = f"{count} of {target} trajectories"
    if history.ending is Ending.INTERRUPTED:
        return Finding(name, Outcome.NOT_CHECKED, checked, "it was interrupted")
    wrong = [] if history.ending is Ending.ENDED else [f"it did not end: {history.ending.value}"]
    wrong += history.failures
    wrong += [f"{count} trajectories are less than {target}"] if count < target else []
    return finding(name, checked, wrong)


def _ended_after_the_last_heal(evidence: Evidence, history: History) -> Finding:
    name = "the run goes on after the last fault is healed"
    if not history.faults:
        return Finding(name, Outcome.NOT_CHECKED, "no fault", "no fault began")
    if history.ending is Ending.INTERRUPTED:
        return Finding(name, Outcome.NOT_CHECKED, f"{len(history.faults)} faults", "it was interrupted")
    at_the_end = [span for span in history.faults if span.heal_s is None or span.reason is HealReason.END]
    checked = f"{len(history.faults) - len(at_the_end)} of {len(history.faults)} faults were healed before the end"
    if history.ending is not Ending.ENDED:
        return finding(name, checked, [f"it did not end: {history.ending.value}"])
    if at_the_end:
        return Finding(name, Outcome.NOT_CHECKED, checked, "the run ended during: " + ", ".join(
            span.planned.label for span in at_the_end[:NAMED_MAX]))  # fmt: skip
    rounds = [record.round_number for record in evidence.records]
    last = max(history.faults, key=lambda span: span.heal_s or 0.0)
    later = sum(number >= (last.heal_round or 0) for number in rounds)
    return finding(name, f"{checked}; {later} rounds closed after the last", [] if later else ["no round closed after"])


def _faults_are_healed(_evidence: Evidence, history: History) -> Finding:
    planned = len(history.faults) + len(history.never_begun)
    checked = f"{len(history.faults)} of {planned} planned faults began"
    if history.never_begun:
        checked += "; the run ended before the others' time"
    wrong = [f"never healed: {span.planned.label}" for span in history.faults if span.heal_s is None]
    return finding("every fault that begins is healed", checked, wrong)


def _one_vote(evidence: Evidence, _history: History) -> Finding:
    """The votes are those that the records name, each once, and of members only."""
    counts, agents = Counter(evidence.votes), evidence.federation.agents
    wrong = [f"{n} votes of agent {agent} in round {r}" for (r, agent), n in counts.items() if n > 1]
    wrong += [
        f"a vote of agent {agent}, who is not a member, in round {r}" for r, agent in counts if not 1 <= agent <= agents
    ]
    voters = evidence.voters
    for record in evidence.records:
        named, stored = [*record.accepted, *record.filtered], voters.get(record.round_number, frozenset())
        wrong += [f"agent {agent} counts twice in round {record.round_number}"
                  for agent, n in Counter(named).items() if n > 1]  # fmt: skip
        wrong += [f"agent {agent} voted in round {record.round_number} and is not in its record"
                  for agent in sorted(stored - set(named))]  # fmt: skip
        wrong += [f"agent {agent} counts in round {record.round_number} without a vote"
                  for agent in sorted(set(named) - stored)]  # fmt: skip
    checked = f"{len(evidence.votes)} votes in {len(evidence.records)} rounds"
    return finding("one vote per agent and round", checked, wrong)


def _quorum(evidence: Evidence, _history: History) -> Finding:
    quorum = evidence.federation.quorum
    voters = {record.round_number: len({*record.accepted, *record.filtered}) for record in evidence.records}
    wrong = [f"round {number} closed with {count} votes" for number, count in voters.items() if count < quorum]
    least = f", the smallest with {min(voters.values())} votes" if voters else ""
    return finding(
        "no round closes below the quorum", f"{len(voters)} rounds against a quorum of {quorum}{least}", wrong
    )


def _no_gaps(evidence: Evidence, _history: History) -> Finding:
    numbers = [record.round_number for record in evidence.records]
    wrong = [f"round {n} stands where round {i} should" for i, n in enumerate(numbers, start=1) if n != i]
    totals = [0, *(record.trajectories_total for record in evidence.records)]
    wrong += [f"the count does not grow in round {i + 1}" for i in range(len(numbers)) if totals[i + 1] <= totals[i]]
    improved = max([len(numbers), *evidence.stored_digests])  # its evaluation may have been cut off
    wrong += [f"votes for round {n}, which comes after the last" for n in evidence.voters if n > improved + 1]
    return finding("rounds follow each other without gaps", f"{len(numbers)} rounds", wrong)


def _parameters(evidence: Evidence, _history: History) -> Finding:
    wrong = []
    for record in evidence.records:
        stored = evidence.stored_digests.get(record.round_number)
        if stored is None and record.round_number < evidence.parameters_from:
            continue
        if stored is None:
            wrong.append(f"round {record.round_number} has no parameters")
        elif stored != record.parameters_digest:
            wrong.append(f"the parameters of round {record.round_number} are not those of its record")
    checked = f"{len(evidence.records)} rounds' parameters, hashed again"
    return finding("each round's parameters are those recorded", checked, wrong)


def _accounted_for(evidence: Evidence, _history: History) -> Finding:
    everyone = list(range(1, evidence.federation.agents + 1))
    wrong = [
        f"round {record.round_number}"
        for record in evidence.records
        if sorted((*record.accepted, *record.filtered, *record.absent)) != everyone
    ]
    checked = f"{len(evidence.records)} rounds of {len(everyone)} agents"
    return finding("each agent is accepted, filtered or absent", checked, wrong)


def _told_is_stored(evidence: Evidence, history: History) -> Finding:
    recorded = {record.round_number: record.parameters_digest for record in evidence.records}
    wrong = [
        f"the server told of a round {number} with parameters {told[:12]}, and the store has "
        + (recorded[number][:12] if number in recorded else "no such round")
        for number, told in sorted(history.told)
        if recorded.get(number) != told
    ]
    return finding("what the server has told is stored", f"{len(history.told)} closed rounds in its status", wrong)


def _no_exceptions(evidence: Evidence, _history: History) -> Finding:
    name = "no process meets an exception of its own"
    if not evidence.logs:
        return Finding(name, Outcome.NOT_CHECKED, "no logs", "the run folder has none")
    wrong = [f"a traceback in {log}" for log in evidence.failures]
    return finding(name, f"{len(evidence.logs)} logs searched for tracebacks", wrong)


CHECKS: Sequence[Callable[[Evidence, History], Finding]] = (
    _reached_its_end,
    _ended_after_the_last_heal,
    _faults_are_healed,
    _one_vote,
    _quorum,
    _no_gaps,
    _parameters,
    _accounted_for,
    _told_is_stored,
    _no_exceptions,
)
