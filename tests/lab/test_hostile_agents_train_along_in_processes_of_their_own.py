"""`fedpg train` with hostile agents: the same names, real processes, and the parameters of a run without the harm."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from fedpg_common.choices import Choice
from fedpg_common.descriptions import federation_from_toml
from fedpg_common.descriptions import federation_to_toml as to_toml
from fedpg_common.federation import Federation
from fedpg_common.transport.verdicts import Verdict
from fedpg_lab.runs.folders import RunData
from fedpg_server.storage.store import STORE_NAME, Store
from support.attacks import ON_THE_LEARNING, ON_THE_PROTOCOL
from support.lab import digests, run_federation, small_federation

AGENTS = 4
HOSTILE = 1
SOON_S = 0.2
"""A deadline at which the three others are a quorum, and none of them can be missing from one."""


def with_hostile(attack: str, round_timeout_s: float) -> Federation:
    """A small federation whose first agent is hostile."""
    described = small_federation(AGENTS, byzantine=1, attack=attack)
    return dataclasses.replace(described, round_timeout_s=round_timeout_s)


def verdicts_of_hostile(run: RunData) -> set[Verdict]:
    """All that the store knows of."""
    store = Store.read(run.folder / STORE_NAME)
    try:
        return set(store.verdict_counts().get(HOSTILE, {}))
    finally:
        store.close()


def test_an_equivocator_changes_nothing(tmp_path: Path) -> None:
    honest = run_federation(small_federation(AGENTS, byzantine=0), tmp_path / "honest", AGENTS)
    run = run_federation(with_hostile("equivocation", 1000.0), tmp_path / "hostile", AGENTS)
    assert digests(run) == digests(honest)
    assert verdicts_of_hostile(run) == {Verdict.ACCEPTED, Verdict.CONFLICT}
    assert all("recall" not in record.detection for record in run.records), "there is no bad vote to find"


def test_a_refused_agent_is_as_if_it_were_silent(tmp_path: Path) -> None:
    silent = run_federation(with_hostile("silence", SOON_S), tmp_path / "silent", AGENTS)
    assert all(HOSTILE in record.absent for record in silent.records)
    run = run_federation(with_hostile("not-finite", SOON_S), tmp_path / "hostile", AGENTS)
    assert digests(run) == digests(silent)
    assert verdicts_of_hostile(run) == {Verdict.NOT_FINITE}
    assert not verdicts_of_hostile(silent)


@pytest.mark.parametrize("name", [*ON_THE_LEARNING, *ON_THE_PROTOCOL])
def test_a_description_names_every_attack(name: str) -> None:
    described = small_federation(AGENTS, byzantine=1, attack=name)
    assert described.byzantine == {1: Choice(name)}
    assert federation_from_toml(to_toml(described), "test") == described
    assert described.poisoners == (frozenset({1}) if name in ON_THE_LEARNING else frozenset())
