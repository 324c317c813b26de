"""The server is killed at every point where it writes, reads or learns, in turn, before and after it has done so: the
run ends all the same, with the same parameters.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.simulated_faults import KillPoint, Schedule
from support.simulated_federation import simulate
from support.simulation_history import digests

SCHEDULE = Schedule(seed=2, agents=3, rounds=3)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, list[str]]:
    """The persistence points of an undisturbed run, and its digests."""
    simulation = simulate(SCHEDULE, tmp_path_factory.mktemp("calm"))
    return simulation.points, digests(simulation)


@pytest.mark.parametrize("is_before", [True, False], ids=["before", "after"])
def test_a_server_killed_at_any_persistence_point_goes_on(
    tmp_path: Path, calm: tuple[int, list[str]], is_before: bool
) -> None:
    points, expected = calm
    assert points >= SCHEDULE.rounds * 3, "a commit, an improvement and a record a round, at least"
    for point in range(1, points + 1):
        folder = tmp_path / str(point)
        folder.mkdir()
        simulation = simulate(replace(SCHEDULE, kill_points=(KillPoint(point, is_before),)), folder)
        assert digests(simulation) == expected, f"point {point}"
        assert any("server is killed" in line for line in simulation.history.lines())


def test_a_server_killed_again_and_again_goes_on(tmp_path: Path, calm: tuple[int, list[str]]) -> None:
    """It comes up, gets a little further, and is killed again, at every third point."""
    points, expected = calm
    for first in range(1, points + 1):
        folder = tmp_path / str(first)
        folder.mkdir()
        kills = tuple(KillPoint(point, is_before=point % 2 == 0) for point in range(first, 3 * points, 3 + first % 4))
        assert digests(simulate(replace(SCHEDULE, kill_points=kills), folder)) == expected, f"from point {first}"
