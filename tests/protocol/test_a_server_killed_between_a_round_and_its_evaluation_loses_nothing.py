"""A round is stored before it is evaluated. A server that is killed between the two plays the evaluation again: each
record is, to the last figure, that of an undisturbed run.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fedpg_server.learning.records import RoundRecord
from fedpg_server.storage.store import Store
from support.simulated_faults import KillPoint, Schedule
from support.simulated_federation import simulate
from support.simulation_history import records_of

SCHEDULE = Schedule(seed=4, agents=3, rounds=3)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, list[RoundRecord]]:
    """The persistence points of an undisturbed run, and its records."""
    simulation = simulate(SCHEDULE, tmp_path_factory.mktemp("calm"))
    return simulation.points, records_of(simulation)


@pytest.mark.parametrize("is_before", [True, False], ids=["before", "after"])
def test_every_record_is_the_same_wherever_the_server_is_killed(
    tmp_path: Path, calm: tuple[int, list[RoundRecord]], is_before: bool
) -> None:
    points, expected = calm
    cut_off: set[int] = set()
    with_votes: set[int] = set()

    def open_store(path: Path) -> Store:
        """Notes which rounds a starting server finds without evaluation, and of these, which with the next votes."""
        store = Store.open(path)
        if (unevaluated := store.unevaluated()) is not None:
            cut_off.add(unevaluated.round_number)
            if store.vote_digests(unevaluated.round_number + 1):
                with_votes.add(unevaluated.round_number)
        return store

    for point in range(1, points + 1):
        folder = tmp_path / str(point)
        folder.mkdir()
        schedule = replace(SCHEDULE, kill_points=(KillPoint(point, is_before),))
        assert records_of(simulate(schedule, folder, open_store=open_store)) == expected, f"point {point}"
    assert cut_off == {1, 2, 3}, "each round was hit between the two, the last one included"
    assert with_votes <= {1, 2}
