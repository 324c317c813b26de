"""Every single response of a run, and every single request, is lost in turn: the parameters remain the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.simulated_faults import Schedule
from support.simulated_federation import simulate
from support.simulation_history import digests

SCHEDULE = Schedule(seed=1, agents=3, rounds=3)


class LoseOne:
    """Counts what it is asked about, and has the one with a number lost."""

    def __init__(self, number: int) -> None:
        """0 loses none."""
        self.number = number
        self.count = 0

    def __call__(self, _caller: str, _path: str) -> bool:
        self.count += 1
        return self.count == self.number


def messages_of(option: str, tmp_path: Path) -> tuple[int, list[str]]:
    """How many messages a calm run has, and its digests."""
    counter = LoseOne(0)
    folder = tmp_path / "calm"
    folder.mkdir()
    expected = digests(simulate(SCHEDULE, folder, **{option: counter}))
    return counter.count, expected


@pytest.mark.parametrize("option", ["drop_response", "drop_request"])
def test_any_lost_message_costs_nothing(tmp_path: Path, option: str) -> None:
    messages, expected = messages_of(option, tmp_path)
    assert messages >= SCHEDULE.agents * (2 + 2 * SCHEDULE.rounds), "Join, Leave, and two calls a round"
    assert len(expected) == SCHEDULE.rounds
    for number in range(1, messages + 1):
        folder = tmp_path / str(number)
        folder.mkdir()
        lose: Callable[[str, str], bool] = LoseOne(number)
        assert digests(simulate(SCHEDULE, folder, **{option: lose})) == expected, f"{option} {number}"
