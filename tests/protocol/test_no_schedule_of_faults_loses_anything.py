"""Whatever the network and the processes go through: one vote per agent and round, nothing answered is forgotten, no
round closes below the quorum, the parameters are those of the votes, bit for bit, and the run ends once faults heal.

Ten thousand schedules, each drawn from its seed: messages and responses delayed, lost, repeated and overtaken, agents
and the server partitioned, paused, killed, stopped and started again, the server also at persistence points.
`python tests/simulate.py SEED` repeats one. FEDPG_SCHEDULES sets another number of them.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from support.simulated_faults import draw_schedule
from support.simulated_federation import Simulation, simulate
from support.simulation_history import check

SCHEDULES = int(os.environ.get("FEDPG_SCHEDULES", "10000"))
AT_A_TIME = 250
PROCESSES = 2
TRACE_SHOWN = 60


def run_some(start: int) -> Iterator[str] | list[str]:
    """The reports of those schedules, from seed `start` on, that broke a promise."""
    reports = []
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        for seed in range(start, min(start + AT_A_TIME, SCHEDULES)):
            place = Path(folder) / str(seed)
            place.mkdir()
            simulation = simulate(draw_schedule(seed), place)
            if check(simulation):
                reports.append(report(seed, simulation))
    return reports


def report(seed: int, simulation: Simulation) -> str:
    """What a person needs to find the fault."""
    trace = simulation.history.lines()[-TRACE_SHOWN:]
    return "\n".join(
        [f"seed {seed} (python tests/simulate.py {seed}):", *simulation.history.failures, str(simulation.schedule),
         *trace]
    )  # fmt: skip


def test_no_schedule_of_faults_loses_anything() -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        reports = [text for some in pool.map(run_some, range(0, SCHEDULES, AT_A_TIME)) for text in some]
    assert not reports, f"{len(reports)} of {SCHEDULES} schedules broke a promise\n\n" + "\n\n".join(reports[:3])


@pytest.mark.parametrize("seed", range(20))
def test_a_seed_repeats_its_schedule_to_the_letter(tmp_path: Path, seed: int) -> None:
    traces = []
    for attempt in ("first", "second"):
        folder = tmp_path / attempt
        folder.mkdir()
        traces.append(simulate(draw_schedule(seed), folder).history.lines())
    assert len(traces[0]) > 10
    assert traces[0] == traces[1]


def test_the_schedules_hold_what_they_promise_to_hold() -> None:
    """The faults named above do occur, on agents and on the server, and with deadlines short and long."""
    schedules = [draw_schedule(seed) for seed in range(200)]
    troubles = {(trouble.kind, "server" in trouble.targets) for plan in schedules for trouble in plan.troubles}
    assert troubles == {
        ("break", False), ("kill", False), ("kill", True), ("pause", False), ("pause", True), ("partition", False),
        ("stop", True),
    }  # fmt: skip
    assert {point.is_before for plan in schedules for point in plan.kill_points} == {True, False}
    assert any(plan.weather.lost and plan.weather.repeated for plan in schedules)
    assert len({plan.round_timeout_s for plan in schedules}) > 1
