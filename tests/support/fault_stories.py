"""Six rounds with three faults, made by hand, and the report on them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedpg_common.descriptions import describe
from fedpg_common.federation import Federation
from fedpg_common.transport.verdicts import Verdict
from fedpg_lab.faults.backend import SERVER, FaultKind
from fedpg_lab.faults.evidence import Evidence
from fedpg_lab.faults.history import FaultSpan, History, Wait
from fedpg_lab.faults.invariants import Finding, Outcome
from fedpg_lab.faults.report import Outcomes, write_report
from fedpg_lab.faults.timeline import HealReason
from fedpg_server.learning.records import RoundRecord
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
