"""Three colluding agents in three processes submit one and the same vector; a lone one submits its own gradient."""

from __future__ import annotations

from pathlib import Path

from fedpg_lab.local import agent_options
from lab_support import run_federation, small_federation


def test_attackers_agree_on_one_vector_every_round(tmp_path: Path) -> None:
    run = run_federation(small_federation(agents=7, byzantine=3, attack="fedpg"), tmp_path / "run")
    assert len(run.records) > 1
    for record in run.records:
        assert record.distances["byzantine"] == 0.0
        assert record.distances["between"] > 0.0


def test_one_of_the_attackers_serves_the_meeting_point_and_a_lone_one_needs_none() -> None:
    ring = [options.ring for options in agent_options(small_federation(7, 3, "fedpg"), "127.0.0.1:1")]
    attackers = ring[:3]
    assert all(one is not None and one.attackers == (1, 2, 3) for one in attackers)
    assert [bool(one and one.listen) for one in attackers] == [True, False, False]
    assert len({one.address for one in attackers if one}) == 1
    assert ring[3:] == [None] * 4
    lone = agent_options(small_federation(4, 1, "fedpg"), "127.0.0.1:1")[0].ring
    assert lone is not None
    assert lone.address == ""
