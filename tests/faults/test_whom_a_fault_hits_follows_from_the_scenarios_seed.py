"""A fault hits those whom its scenario asks for, and which of them is drawn from the scenario's seed."""

from __future__ import annotations

from pathlib import Path

import pytest
from fedpg_common.descriptions import describe
from fedpg_common.errors import UsageError
from fedpg_lab.faults.backend import SERVER
from hypothesis import given
from hypothesis import strategies as st
from support.scenarios import FEDERATION, described, split, with_fault

agents_counts, fractions, seeds = (
    st.integers(1, 40),
    st.integers(0, 49).map(lambda n: n / 100),
    st.integers(0, 2**63 - 1),
)


@given(agents=agents_counts, alpha=fractions, seed=seeds)
def test_one_or_the_server_is_isolated(folder: Path, agents: int, alpha: float, seed: int) -> None:
    _, (isolated,) = split(folder, "isolate-one", agents, alpha, seed)
    assert 1 <= isolated <= agents
    _, alone = split(folder, "server-alone", agents, alpha, seed)
    assert alone == (SERVER,)


@given(agents=agents_counts, alpha=fractions, seed=seeds)
def test_a_minority_leaves_a_quorum_and_none_to_spare(folder: Path, agents: int, alpha: float, seed: int) -> None:
    quorum = describe("CartPole-v1", agents=agents, alpha=alpha).quorum
    if quorum == agents:
        with pytest.raises(UsageError, match="no minority can be missing"):
            split(folder, "minority", agents, alpha, seed)
        return
    _, missing = split(folder, "minority", agents, alpha, seed)
    assert agents - len(missing) == quorum
    assert len(missing) < agents / 2
    assert missing == tuple(sorted(set(missing) & set(range(1, agents + 1))))


@given(agents=agents_counts, alpha=fractions, seed=seeds)
def test_a_majority_is_more_than_half_and_leaves_no_quorum(folder: Path, agents: int, alpha: float, seed: int) -> None:
    scenario, missing = split(folder, "majority", agents, alpha, seed)
    assert len(missing) > agents / 2
    assert agents - len(missing) < scenario.federation.quorum
    assert agents - (len(missing) - 1) >= scenario.federation.quorum or len(missing) - 1 <= agents / 2, (
        "no more than needed"
    )
    assert missing == tuple(sorted(set(missing) & set(range(1, agents + 1))))


@pytest.mark.parametrize(
    ("on", "allowed", "count"),
    [
        ('"server"', {SERVER}, 1),
        ('[4, "server", 2]', {SERVER, 2, 4}, 3),
        ("[7]", {7}, 1),
        ('"3 agents"', set(range(1, 11)), 3),
        ('"1 agent"', set(range(1, 11)), 1),
        ('"all agents"', set(range(1, 11)), 10),
        ('"2 honest"', set(range(4, 11)), 2),
        ('"all honest"', set(range(4, 11)), 7),
        ('"2 byzantine"', {1, 2, 3}, 2),
        ('"all byzantine"', {1, 2, 3}, 3),
    ],
)
def test_who_is_hit_is_among_those_asked_for(on: str, allowed: set[int], count: int, tmp_path: Path) -> None:
    for seed in range(5):
        scenario = described(tmp_path, with_fault('kind = "kill"', f"on = {on}", "at_s = 0", "for_s = 1"), seed)
        (planned,) = scenario.planned
        assert len(planned.fault.targets) == count
        assert set(planned.fault.targets) <= allowed
        assert planned.fault.targets == tuple(sorted(planned.fault.targets))


MANY = "\n".join(f'[[fault]]\nkind = "kill"\non = "3 agents"\nat_s = {n}\nfor_s = 0.5' for n in range(5))


def test_who_is_hit_follows_from_the_seed(tmp_path: Path) -> None:
    text = f"seed = 5\n{FEDERATION}{MANY}"
    assert described(tmp_path, text).planned == described(tmp_path, text).planned
    plans = {seed: described(tmp_path, text, seed).planned for seed in range(10)}
    assert plans[5] == described(tmp_path, text).planned
    assert len(set(plans.values())) == len(plans)


def test_another_fault_before_it_or_in_its_place_does_not_change_who_is_hit(tmp_path: Path) -> None:
    before = described(tmp_path, FEDERATION + MANY).planned
    assert len({planned.fault.targets for planned in before}) > 1, "each fault draws its own"
    changed = MANY.replace('on = "3 agents"', 'on = "7 agents"', 1)
    after = described(tmp_path, FEDERATION + changed).planned
    assert after[0].fault.targets != before[0].fault.targets
    assert after[1:] == before[1:]
