"""A scenario's file becomes a plan: what is done to whom, when and for how long, in which federation."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import tomli_w
from fedpg_common.choices import Choice
from fedpg_common.descriptions import describe
from fedpg_common.tasks import find_task, task_to_fields
from fedpg_lab.faults import scenario as documented
from fedpg_lab.faults.backend import SERVER, Fault, FaultKind
from fedpg_lab.faults.scenario import AT_MOST_S, read_scenario, shipped
from fedpg_lab.faults.timeline import INSTANT, Begin, Timeline
from hypothesis import given
from hypothesis import strategies as st
from support.scenarios import FEDERATION, described, split, with_fault


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_scenario_can_be_planned_and_is_healed_in_the_end(name: str) -> None:
    """With a round a second, all that is planned begins and is healed before the scenario's time is over."""
    scenario = read_scenario(name)
    assert scenario.planned
    assert scenario.title != name
    assert scenario.description
    timeline = Timeline(scenario.planned)
    begun: set[int] = set()
    healed: set[int] = set()
    for second in range(int(scenario.at_most_s)):
        for change in timeline.step(second + 1, float(second)):
            (begun if isinstance(change, Begin) else healed).add(change.planned.number)
    assert begun == healed == {planned.number for planned in scenario.planned}
    assert scenario.kinds == {planned.fault.kind for planned in scenario.planned}


def test_the_shipped_scenarios_show_what_they_are_named_after() -> None:
    kinds = {name: read_scenario(name).kinds for name in shipped()}
    assert len(kinds) == 9
    for name, kind in [
        ("agent-crash", FaultKind.KILL), ("server-crash", FaultKind.KILL), ("minority-partition", FaultKind.PARTITION),
        ("majority-partition", FaultKind.PARTITION), ("byzantine-during-partition", FaultKind.PARTITION),
        ("lossy-link", FaultKind.LOSS), ("slow-agents", FaultKind.SLOW_CPU), ("flapping-link", FaultKind.PARTITION),
        ("slow-machines", FaultKind.SLOW_CPU),
    ]:  # fmt: skip
        assert kind in kinds[name]
    assert all(SERVER in planned.fault.targets for planned in read_scenario("server-crash").planned)


def test_a_fault_takes_its_figures(tmp_path: Path) -> None:
    for kind, lines, fault in [
        ("latency", ["delay_s = 0.2", "jitter_s = 0.1"], Fault(FaultKind.LATENCY, (3,), delay_s=0.2, jitter_s=0.1)),
        ("latency", ["delay_s = 1"], Fault(FaultKind.LATENCY, (3,), delay_s=1.0)),
        ("bandwidth", ["bytes_per_s = 5000"], Fault(FaultKind.BANDWIDTH, (3,), bytes_per_s=5000.0)),
        ("loss", ["fraction = 0.1"], Fault(FaultKind.LOSS, (3,), fraction=0.1)),
        ("corruption", ["fraction = 1"], Fault(FaultKind.CORRUPTION, (3,), fraction=1.0)),
        ("slow-cpu", ["fraction = 0.5"], Fault(FaultKind.SLOW_CPU, (3,), fraction=0.5)),
    ]:
        (planned,) = described(
            tmp_path, with_fault(f'kind = "{kind}"', "on = [3]", "at_s = 0", "for_s = 1", *lines)
        ).planned
        assert planned.fault == fault


@pytest.mark.parametrize("kind", [kind.value for kind in FaultKind])
def test_every_kind_can_be_planned_and_says_what_is_done_to_whom(kind: str, tmp_path: Path) -> None:
    lasting = [] if FaultKind(kind) in INSTANT else ["for_s = 1"]
    figures = {"latency": "delay_s = 0.25", "bandwidth": "bytes_per_s = 500"}
    if kind in ("loss", "corruption", "slow-cpu"):
        figures[kind] = "fraction = 0.25"
    lines = [f'kind = "{kind}"', 'on = [2, "server"]', "at_s = 0", *lasting, figures.get(kind, "")]
    (planned,) = described(tmp_path, with_fault(*lines)).planned
    what = {"latency": " 0.25 ± 0 s:", "bandwidth": " 500 B/s:"}.get(kind, " 25 %:" if kind in figures else "")
    assert planned.label == f"{kind}{what} server, 2"


def test_a_split_is_named_in_its_label(folder: Path) -> None:
    scenario, missing = split(folder, "minority", 5, 0.4, 0)
    assert scenario.planned[0].label == f"partition minority: {missing[0]}, {missing[1]}"


def test_a_fault_is_placed_in_time(tmp_path: Path) -> None:
    for lines, place in [
        (["at_s = 2.5", "for_s = 4"], (1, 2.5, None, 4.0)),
        (["at_round = 7", "for_s = 4"], (7, 0.0, None, 4.0)),
        (["at_round = 7", "for_rounds = 3"], (7, 0.0, 3, 60.0)),
        (["at_s = 0", "for_rounds = 3", "at_most_s = 9.5"], (1, 0.0, 3, 9.5)),
    ]:
        (planned,) = described(tmp_path, with_fault('kind = "kill"', "on = [3]", *lines)).planned
        assert (planned.at_round, planned.after_s, planned.for_rounds, planned.at_most_s) == place
    (planned,) = described(tmp_path, with_fault('kind = "restart"', "on = [3]", "at_round = 2")).planned
    assert (planned.at_round, planned.duration) == (2, "at once")


@given(times=st.integers(2, 30), every_s=st.integers(3, 50), start=st.sampled_from(["at_s = 4", "at_round = 6"]))
def test_a_fault_repeats_itself_on_the_same_targets_after_some_time(
    folder: Path, times: int, every_s: int, start: str
) -> None:
    lines = ['kind = "partition"', 'on = "2 agents"', start, "for_s = 2", f"times = {times}", f"every_s = {every_s}"]
    planned = described(folder, with_fault(*lines)).planned
    assert [fault.number for fault in planned] == list(range(1, times + 1))
    assert len({fault.fault for fault in planned}) == 1
    assert {fault.at_round for fault in planned} == {1 if start == "at_s = 4" else 6}
    assert planned[0].after_s == (4.0 if start == "at_s = 4" else 0.0)
    assert all(later.after_s - earlier.after_s == every_s for earlier, later in pairwise(planned))


@given(times=st.integers(2, 30), every_rounds=st.integers(3, 50))
def test_a_fault_repeats_itself_on_the_same_targets_after_some_rounds(
    folder: Path, times: int, every_rounds: int
) -> None:
    lines = ['kind = "kill"', 'on = "2 agents"', "at_round = 6", "for_rounds = 2"]
    planned = described(folder, with_fault(*lines, f"times = {times}", f"every_rounds = {every_rounds}")).planned
    assert [fault.at_round for fault in planned] == [6 + i * every_rounds for i in range(times)]
    assert len({(fault.fault, fault.after_s, fault.for_rounds) for fault in planned}) == 1


def test_faults_are_numbered_through_the_file(tmp_path: Path) -> None:
    twice = ['kind = "restart"', 'on = "server"', "at_s = 1", "times = 2", "every_s = 1"]
    text = with_fault(*twice, "[[fault]]", 'kind = "kill"', "on = [1]", "at_round = 3", "for_s = 1")
    scenario = described(tmp_path, text)
    assert [(planned.number, planned.label) for planned in scenario.planned] == [
        (1, "restart server"), (2, "restart server"), (3, "kill 1"),
    ]  # fmt: skip
    assert scenario.kinds == {FaultKind.RESTART, FaultKind.KILL}


def test_a_federation_is_described_with_the_options_of_train_or_as_in_its_file(tmp_path: Path) -> None:
    text = 'seed = 4\n[federation]\ntask = "CartPole-v1"\nagents = 6\nbyzantine = 2\nattack = "sign-flipping"\n'
    short = described(tmp_path, f"{text}trajectories = 77\nround_timeout_s = 2.5\nsigma = 0.5\nhidden = [4, 4]")
    assert short.federation == describe(
        "CartPole-v1", agents=6, byzantine=2, attack="sign-flipping", seed=4, trajectories=77, round_timeout_s=2.5,
        sigma=0.5, hidden=(4, 4),
    )  # fmt: skip
    text = '[federation]\ntask = "CartPole-v1"\nagents = 6\nbyzantine = { 2 = "fedpg", 5 = "replay" }\n'
    whole = described(tmp_path, text)
    assert whole.federation.byzantine == {2: Choice("fedpg"), 5: Choice("replay")}


@pytest.mark.parametrize("attackers", ["byzantine = 1", 'byzantine = { 2 = "fedpg" }'])
def test_a_task_file_lies_beside_the_scenarios(tmp_path: Path, attackers: str) -> None:
    task = task_to_fields(replace(find_task("CartPole-v1"), name="short", horizon=9))
    (tmp_path / "short.toml").write_text(tomli_w.dumps({key: value for key, value in task.items() if key != "name"}))
    scenario = described(tmp_path, f'[federation]\ntask = "short.toml"\nagents = 6\n{attackers}\n')
    assert scenario.federation.task.horizon == 9


def test_the_scenario_in_the_documentation_is_one(tmp_path: Path) -> None:
    assert documented.__doc__ is not None
    _, _, text = documented.__doc__.partition("\n\n")
    described_there = described(tmp_path, text)
    assert [(planned.at_round, planned.after_s) for planned in described_there.planned] == [(5, 0), (5, 30), (5, 60)]
    assert described_there.federation == describe(
        "CartPole-v1", byzantine=3, attack="sign-flipping", trajectories=600, round_timeout_s=5.0
    )


def test_what_is_left_out_has_a_default(tmp_path: Path) -> None:
    scenario = described(tmp_path, '[federation]\ntask = "CartPole-v1"')
    assert (scenario.name, scenario.title, scenario.description) == ("described", "described", "")
    assert (scenario.seed, scenario.planned, scenario.at_most_s) == (0, (), AT_MOST_S)
    assert scenario.federation == describe("CartPole-v1")


def test_the_seed_is_the_federations_too_and_the_option_replaces_both(tmp_path: Path) -> None:
    both = described(tmp_path, f"seed = 3\n{FEDERATION}")
    assert (both.seed, both.federation.seed) == (3, 3)
    text = f"seed = 3\n{FEDERATION}seed = 8"
    apart = described(tmp_path, text)
    assert (apart.seed, apart.federation.seed) == (3, 8)
    replaced = described(tmp_path, text, seed=21)
    assert (replaced.seed, replaced.federation.seed) == (21, 21)
