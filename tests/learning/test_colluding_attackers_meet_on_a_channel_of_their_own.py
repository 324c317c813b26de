"""Colluding agents in processes of their own submit what they have agreed on, whichever attack it is that they make."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from fedpg_client.process import Collusion
from fedpg_common.choices import Choice
from fedpg_common.descriptions import describe
from fedpg_common.errors import UsageError
from fedpg_common.federation import Federation
from fedpg_lab.local.agent_setup import agent_options
from support.lab import digests, run_federation, small_federation

EXAMPLES = Path(__file__).parents[2] / "examples" / "extending"
SERVER = "127.0.0.1:1"


def federation_of(byzantine: dict[int, Choice], agents: int = 7, seed: int = 0) -> Federation:
    """A small federation with these attackers."""
    return dataclasses.replace(small_federation(agents, 0, seed=seed), byzantine=byzantine)


def collusions(federation: Federation) -> dict[int, Collusion]:
    """How each of those who collude meets the others."""
    return {options.index: options.collusion for options in agent_options(federation, SERVER) if options.collusion}


def test_attackers_agree_on_one_vector_every_round(tmp_path: Path) -> None:
    run = run_federation(small_federation(agents=7, byzantine=3, attack="fedpg"), tmp_path / "run")
    assert len(run.records) > 1
    for record in run.records:
        assert record.distances["byzantine"] == 0.0
        assert record.distances["between"] > 0.0


def test_an_attack_of_ones_own_colludes_like_those_that_come_with_fedpg(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    federation = federation_of(dict.fromkeys((2, 4, 5), Choice("alie:ALIE", {"z": 1.5})))
    run = run_federation(federation, tmp_path / "run")
    assert len(run.records) > 1
    for record in run.records:
        assert record.distances["byzantine"] == 0.0
        assert record.distances["between"] > 0.0
    together = run_federation(federation, tmp_path / "together", agents_per_process=7)
    assert digests(together) == digests(run)


def test_one_of_the_attackers_serves_the_meeting_point_and_a_lone_one_needs_none() -> None:
    found = collusions(small_federation(7, 3, "fedpg"))
    assert list(found) == [1, 2, 3]
    assert all(one.attackers == (1, 2, 3) for one in found.values())
    assert [bool(one.listen) for one in found.values()] == [True, False, False]
    assert len({one.address for one in found.values()}) == 1
    lone = collusions(small_federation(4, 1, "fedpg"))[1]
    assert (lone.attackers, lone.address, lone.listen) == ((1,), "", "")


def test_agents_with_the_same_attack_collude_with_each_other_and_with_nobody_else() -> None:
    bold, shy = Choice("fedpg", {"deviation": 9}), Choice("fedpg")
    found = collusions(federation_of({1: bold, 2: shy, 3: Choice("sign-flipping"), 4: bold, 6: shy, 7: bold}))
    assert {index: one.attackers for index, one in found.items()} == {
        1: (1, 4, 7), 2: (2, 6), 4: (1, 4, 7), 6: (2, 6), 7: (1, 4, 7)
    }  # fmt: skip
    assert found[1].address != found[2].address
    assert len({one.secret for one in found.values()}) == 2


def test_an_attack_that_does_not_collude_meets_nobody() -> None:
    for name in ("random-noise", "sign-flipping", "constant-action", "replay"):
        assert collusions(small_federation(7, 3, name)) == {}


def test_an_attack_that_cannot_be_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    bad = describe("CartPole-v1", agents=4, byzantine={"2": {"name": "fedpg", "deviation": "far"}})
    with pytest.raises(UsageError, match="attack fedpg: deviation must be a number"):
        run_federation(bad, tmp_path / "run")
    assert not (tmp_path / "run").exists()
