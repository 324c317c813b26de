"""A scenario's report: the picture, everything for programs as JSON, and one HTML page that holds it all."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fedpg_common import json_text
from fedpg_common.descriptions import federation_to_toml
from fedpg_common.transport.verdicts import Verdict

from fedpg_lab.faults.costs import RoundCost, round_costs, usual_round_s
from fedpg_lab.faults.evidence import Evidence
from fedpg_lab.faults.history import FaultSpan, History, Wait
from fedpg_lab.faults.invariants import Finding, Outcome
from fedpg_lab.faults.picture import draw_scenario
from fedpg_lab.faults.scenario import Scenario
from fedpg_lab.faults.timeline import HealReason, PlannedFault
from fedpg_lab.figures.one_run import save_picture
from fedpg_lab.files.pages import template, write_text
from fedpg_lab.machine import machine
from fedpg_lab.runs.folders import RunData

PICTURE_NAME, JSON_NAME, PAGE_NAME = "faults.png", "faults.json", "faults.html"
PLANNED_COLUMNS = ("", "fault", "begins", "lasts")
LOST_SHOWN = 10
"""Rounds that the page lists as the costliest."""
REASONS = {HealReason.BOUND: "its rounds did not pass in time", HealReason.END: "the run was over"}

Table = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Header and lines."""


@dataclass(frozen=True)
class Outcomes:
    """What there is to report on."""

    scenario: Scenario
    backend: str
    history: History
    evidence: Evidence
    findings: Sequence[Finding]
    command: str
    """It repeats the scenario."""

    @property
    def is_violated(self) -> bool:
        """Whether an invariant does not hold."""
        return any(finding.outcome is Outcome.VIOLATED for finding in self.findings)


def write_report(outcomes: Outcomes, folder: Path, now: datetime) -> Path:
    """Write picture, JSON and page into the run folder, and return the page's path. Raises StorageError.

    A run without a closed round has no picture.
    """
    evidence, history = outcomes.evidence, outcomes.history
    costs = round_costs(evidence.records, history)
    picture = ""
    if costs:
        run = RunData(folder, evidence.federation, list(evidence.records))
        save_picture(draw_scenario(run, history, costs), folder / PICTURE_NAME)
        picture = "data:image/png;base64," + base64.b64encode((folder / PICTURE_NAME).read_bytes()).decode("ascii")
    write_text(folder / JSON_NAME, json_text.to_json(to_json(outcomes, costs), indent=2) + "\n")
    page = template("fedpg_lab.faults", "faults_page.html").render(
        scenario=outcomes.scenario,
        backend=outcomes.backend,
        ending=history.ending.value,
        failures=history.failures,
        picture=picture,
        findings=findings_table(outcomes.findings),
        planned=planned_table(outcomes.scenario.planned),
        happened=_happened_table(history),
        verdicts=_verdict_table(evidence),
        absent=_absent_table(evidence),
        lost=_lost_table(costs),
        lost_text=_lost_text(costs),
        federation=federation_to_toml(evidence.federation),
        machine=machine(),
        command=outcomes.command,
        now=now.strftime("%Y-%m-%d %H:%M"),
    )
    write_text(folder / PAGE_NAME, page)
    return folder / PAGE_NAME


def findings_table(findings: Sequence[Finding]) -> Table:
    """The invariants for people."""
    header = ("invariant", "outcome", "what was checked", "remarks")
    return header, [(f.invariant, f.outcome.value, f.checked, f.detail) for f in findings]


def planned_table(planned: Sequence[PlannedFault]) -> Table:
    """The timeline as planned, for people."""
    return PLANNED_COLUMNS, [(str(fault.number), fault.label, fault.start, fault.duration) for fault in planned]


def to_json(outcomes: Outcomes, costs: Sequence[RoundCost]) -> dict[str, Any]:
    """Everything for programs. Times are seconds since the first round opened."""
    scenario, history, evidence = outcomes.scenario, outcomes.history, outcomes.evidence
    absent = {record.round_number: record.absent for record in evidence.records}
    return {
        "scenario": {name: getattr(scenario, name) for name in ("name", "title", "description", "seed", "at_most_s")},
        "backend": outcomes.backend,
        "command": outcomes.command,
        "federation": federation_to_toml(evidence.federation),
        "ending": history.ending.value,
        "end_s": history.end_s,
        "failures": history.failures,
        "violated": outcomes.is_violated,
        "planned": [_planned_fields(planned) for planned in scenario.planned],
        "happened": [_span_fields(span) for span in history.faults],
        "never_begun": [planned.number for planned in history.never_begun],
        "below_quorum": [asdict(wait) for wait in history.below_quorum],
        "silent": [asdict(wait) for wait in history.silent],
        "usual_round_s": usual_round_s(costs),
        "rounds": [
            {**asdict(cost), "seconds": cost.seconds, "absent": absent[cost.round_number],
             "evaluation_return": record.evaluation_return, "parameters_digest": record.parameters_digest}
            for cost, record in zip(costs, evidence.records, strict=True)
        ],
        "verdicts": _verdict_fields(evidence.verdicts),
        "invariants": [asdict(finding) for finding in outcomes.findings],
    }  # fmt: skip


def _planned_fields(planned: PlannedFault) -> dict[str, Any]:
    return {"number": planned.number, "label": planned.label, "at_round": planned.at_round, "after_s": planned.after_s,
            "for_rounds": planned.for_rounds, "at_most_s": planned.at_most_s, **asdict(planned.fault)}  # fmt: skip


def _span_fields(span: FaultSpan) -> dict[str, Any]:
    return {"number": span.planned.number, "label": span.planned.label, "begin_s": span.begin_s,
            "begin_round": span.begin_round, "heal_s": span.heal_s, "heal_round": span.heal_round,
            "reason": span.reason}  # fmt: skip


def _verdict_fields(verdicts: Mapping[int, Mapping[Verdict, int]]) -> dict[str, dict[str, int]]:
    return {
        str(agent): {verdict.label: count for verdict, count in sorted(counts.items())}
        for agent, counts in sorted(verdicts.items())
    }


def _happened_table(history: History) -> Table:
    lines: list[tuple[float, tuple[str, ...]]] = []
    for span in history.faults:
        lines.append((span.begin_s, (_at(span.begin_s), str(span.begin_round), f"begins: {span.planned.label}")))
        if span.heal_s is not None and span.heal_s > span.begin_s:
            why = f" ({REASONS[span.reason]})" if span.reason in REASONS else ""
            lines.append((span.heal_s, (_at(span.heal_s), str(span.heal_round), f"healed: {span.planned.label}{why}")))
    lines += [(wait.begin_s, _wait_line(wait, "no quorum")) for wait in history.below_quorum]
    lines += [(wait.begin_s, _wait_line(wait, "no answer from the server")) for wait in history.silent]
    lines += [(history.end_s, ("–", "–", f"never began: {planned.label}")) for planned in history.never_begun]
    return ("time", "round", "what happened"), [line for _, line in sorted(lines, key=lambda entry: entry[0])]


def _wait_line(wait: Wait, what: str) -> tuple[str, ...]:
    return _at(wait.begin_s), str(wait.round_number), f"{what} for {wait.end_s - wait.begin_s:.1f} s"


def _verdict_table(evidence: Evidence) -> Table:
    kinds = sorted({verdict for counts in evidence.verdicts.values() for verdict in counts} | {Verdict.ACCEPTED})
    header = ("agent", "behaviour", "in the mean", "filtered", "absent", *(kind.label for kind in kinds))
    lines = []
    for agent in range(1, evidence.federation.agents + 1):
        attack = evidence.federation.byzantine.get(agent)
        fates = [
            sum(agent in getattr(r, fate) for r in evidence.records) for fate in ("accepted", "filtered", "absent")
        ]
        counts = evidence.verdicts.get(agent, {})
        lines.append((str(agent), attack.label if attack else "honest", *map(str, fates),
                      *(str(counts.get(kind, 0)) for kind in kinds)))  # fmt: skip
    if strangers := evidence.verdicts.get(0):
        lines.append(("others", "no members", "", "", "", *(str(strangers.get(kind, 0)) for kind in kinds)))
    return header, lines


def _absent_table(evidence: Evidence) -> Table:
    """Rounds in a row with the same absentees share a line."""
    lines: list[list[Any]] = []
    for record in evidence.records:
        if not record.absent:
            continue
        if lines and lines[-1][1] == record.round_number - 1 and lines[-1][2] == record.absent:
            lines[-1][1] = record.round_number
        else:
            lines.append([record.round_number, record.round_number, record.absent])
    return ("rounds", "absent agents"), [
        (f"{first}" if first == last else f"{first} to {last}", ", ".join(map(str, agents)))
        for first, last, agents in lines
    ]


def _lost_table(costs: Sequence[RoundCost]) -> Table:
    costliest = sorted((cost for cost in costs if cost.lost_s), key=lambda cost: cost.lost_s or 0.0)[-LOST_SHOWN:]
    return ("round", "opened", "took", "lost", "below the quorum"), [
        (str(cost.round_number), _at(cost.begin_s), f"{cost.seconds:.1f} s", f"{cost.lost_s or 0.0:.1f} s",
         "yes" if cost.is_below_quorum else "")
        for cost in sorted(costliest, key=lambda cost: cost.round_number)
    ]  # fmt: skip


def _lost_text(costs: Sequence[RoundCost]) -> str:
    usual_s = usual_round_s(costs)
    if usual_s is None:
        return "Every round had a fault in it, so there is no usual time to compare with."
    lost_s = sum(cost.lost_s or 0.0 for cost in costs)
    hit = sum(cost.has_fault for cost in costs)
    return (
        f"A round without a fault takes {usual_s:.2f} s (median). The {hit} rounds with one lost {lost_s:.1f} s in all "
        "against that; the costliest:"
    )


def _at(time_s: float) -> str:
    return f"{time_s:.1f} s"
