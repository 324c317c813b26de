"""A scenario's file becomes a plan in which every random choice is made from its seed; a bad one is refused with a
sentence that names the field.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import tomli_w
from fedpg_common.choices import Choice
from fedpg_common.descriptions import describe
from fedpg_common.errors import UsageError
from fedpg_common.federation import SEED_MAX
from fedpg_common.tasks import find_task, task_to_fields
from fedpg_lab.faults import scenario as documented
from fedpg_lab.faults.backend import SERVER, Fault, FaultKind
from fedpg_lab.faults.scenario import AT_MOST_S, Scenario, read_scenario, shipped
from fedpg_lab.faults.timeline import INSTANT, Begin, Timeline
from hypothesis import given
from hypothesis import strategies as st

FEDERATION = '[federation]\ntask = "CartPole-v1"\nagents = 10\nbyzantine = 3\n'


def described(tmp_path: Path, text: str, seed: int | None = None) -> Scenario:
    path = tmp_path / "described.toml"
    path.write_text(text, encoding="utf-8")
    return read_scenario(str(path), seed)


def with_fault(*lines: str, head: str = FEDERATION) -> str:
    """A scenario's text with one fault."""
    return "\n".join([head, "[[fault]]", *lines])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For properties, whose examples share one."""
    return tmp_path_factory.mktemp("scenarios")


# What comes with FedPG ------------------------------------------------------------------------------------------------


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


# Whom -----------------------------------------------------------------------------------------------------------------

agents_counts, fractions, seeds = (
    st.integers(1, 40),
    st.integers(0, 49).map(lambda n: n / 100),
    st.integers(0, 2**63 - 1),
)


def split(folder: Path, name: str, agents: int, alpha: float, seed: int) -> tuple[Scenario, tuple[int, ...]]:
    """A scenario with that split, and who is cut off."""
    head = f'seed = {seed}\n[federation]\ntask = "CartPole-v1"\nagents = {agents}\nalpha = {alpha}\n'
    scenario = described(
        folder, with_fault('kind = "partition"', f'split = "{name}"', "at_s = 1", "for_s = 1", head=head)
    )
    (planned,) = scenario.planned
    return scenario, planned.fault.targets


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


# What -----------------------------------------------------------------------------------------------------------------


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


# When -----------------------------------------------------------------------------------------------------------------


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


# The federation, and the rest -----------------------------------------------------------------------------------------


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


# Refused --------------------------------------------------------------------------------------------------------------

KILL = ('kind = "kill"', "on = [1]")
KILL_AT = (*KILL, "at_s = 1")
KILL_FOR = (*KILL_AT, "for_s = 2")
LATE = ('kind = "latency"', "on = [1]", "at_s = 1", "for_s = 1")

BAD_FAULTS = [
    (["on = [1]"], "the field kind is missing"),
    (['kind = "explode"'], "unknown kind 'explode': choose one of kill, stop, restart"),
    (["kind = 3"], "unknown kind 3"),
    ([*KILL_FOR, "colour = 3"], "unknown field 'colour': choose one of kind"),
    (['kind = "kill"'], "exactly one of on and split is needed"),
    ([*KILL, 'split = "majority"'], "exactly one of on and split is needed"),
    (['kind = "kill"', 'split = "majority"'], "split is for a partition, not for kill: use on"),
    (['kind = "partition"', 'split = "half"'], "unknown split 'half': choose one of isolate-one"),
    (['kind = "kill"', "on = 3"], 'on must be "server", a list of agents'),
    (['kind = "kill"', "on = []"], 'on must be "server", a list of agents'),
    (['kind = "kill"', "on = [true]"], 'on must be "server", a list of agents'),
    (['kind = "kill"', "on = [[1]]"], 'on must be "server", a list of agents'),
    (['kind = "kill"', 'on = "everybody"'], 'on must be "server", a list of agents'),
    (['kind = "kill"', 'on = "two agents"'], 'on must be "server", a list of agents'),
    (['kind = "kill"', 'on = "2 servers"'], 'on must be "server", a list of agents'),
    (['kind = "kill"', f'on = "{"9" * 5000} agents"'], 'on must be "server", a list of agents'),
    (['kind = "kill"', "on = [1, 11]"], "on names agent 11, but the agents are 1 to 10"),
    (['kind = "kill"', "on = [0]"], "on names agent 0, but the agents are 1 to 10"),
    (['kind = "kill"', "on = [2, 2]"], "on names somebody twice"),
    (['kind = "kill"', 'on = "11 agents"'], 'on = "11 agents": there are 10 of them'),
    (['kind = "kill"', 'on = "500 agents"'], 'on = "500 agents": there are 10 of them'),
    (['kind = "kill"', 'on = "0 agents"'], 'on = "0 agents": there are 10 of them'),
    (['kind = "kill"', 'on = "4 byzantine"'], 'on = "4 byzantine": there are 3 of them'),
    ([*KILL_FOR, "delay_s = 1"], "kill takes no delay_s"),
    ([*LATE], "latency needs the field delay_s"),
    ([*LATE, "delay_s = 0"], "delay_s must be a number from 0.001 to 60, not 0"),
    ([*LATE, "delay_s = nan"], "delay_s must be a number"),
    ([*LATE, "delay_s = true"], "delay_s must be a number"),
    ([*LATE, "delay_s = 0.1", "jitter_s = 0.2"], "jitter_s must be at most delay_s"),
    ([*LATE, "delay_s = 0.1", "jitter_s = -1"], "jitter_s must be a number from 0"),
    (['kind = "bandwidth"', "on = [1]", "bytes_per_s = 0"], "bytes_per_s must be a number from 1"),
    (['kind = "loss"', "on = [1]", "fraction = 1.5"], "fraction must be a number from 0.001 to 1, not 1.5"),
    (['kind = "corruption"', "on = [1]"], "corruption needs the field fraction"),
    (['kind = "slow-cpu"', "on = [1]", "fraction = 0"], "fraction must be a number from 0.001 to 1, not 0"),
    ([*KILL, "for_s = 1"], "exactly one of at_round and at_s is needed"),
    ([*KILL_FOR, "at_round = 1"], "exactly one of at_round and at_s is needed"),
    ([*KILL, "at_round = 0", "for_s = 1"], "at_round must be a whole number from 1"),
    ([*KILL, "at_round = 1.5", "for_s = 1"], "at_round must be a whole number from 1"),
    ([*KILL, "at_s = -1", "for_s = 1"], "at_s must be a number from 0"),
    ([*KILL, "at_s = inf", "for_s = 1"], "at_s must be a number from 0"),
    (KILL_AT, "exactly one of for_s and for_rounds is needed"),
    ([*KILL_FOR, "for_rounds = 1"], "exactly one of for_s and for_rounds is needed"),
    ([*KILL_FOR, "at_most_s = 1"], "at_most_s is a bound for for_rounds: for_s is its own"),
    ([*KILL_AT, "for_s = 0"], "for_s must be a number from 0.001"),
    ([*KILL_AT, 'for_s = "long"'], "for_s must be a number from 0.001 to 86400, not 'long'"),
    ([*KILL_AT, "for_rounds = 0"], "for_rounds must be a whole number from 1"),
    ([*KILL_AT, "for_rounds = 1", "at_most_s = 0"], "at_most_s must be a number from 0.001"),
    (['kind = "restart"', "on = [1]", "at_s = 1", "for_s = 1"], "restart is over at once: it takes no for_s"),
    (['kind = "restart"', "on = [1]", "at_s = 1", "for_rounds = 1"], "restart is over at once: it takes no for_rounds"),
    ([*KILL_FOR, "times = 2"], "times = 2 or more and one of every_s and every_rounds go together"),
    ([*KILL_FOR, "every_s = 5"], "times = 2 or more and one of every_s and every_rounds go together"),
    ([*KILL_FOR, "times = 2", "every_s = 5", "every_rounds = 5"], "times = 2 or more and one of every_s"),
    ([*KILL_FOR, "times = 0", "every_s = 5"], "times must be a whole number from 1 to 1000, not 0"),
    ([*KILL_FOR, "times = 1001", "every_s = 5"], "times must be a whole number from 1 to 1000, not 1001"),
    ([*KILL_FOR, "times = 2", "every_s = 2"], "every_s must be longer than the fault lasts, which is up to 2 s"),
    ([*KILL_AT, "for_rounds = 1", "times = 2", "every_s = 60"], "every_s must be longer than the fault lasts"),
    ([*KILL_FOR, "times = 2", "every_rounds = 2"], "every_rounds goes with at_round"),
    ([*KILL, "at_round = 1", "for_rounds = 2", "times = 2", "every_rounds = 2"], "every_rounds must be more than"),
    ([*KILL, "at_round = 1", "for_s = 2", "times = 2", "every_rounds = 0"], "every_rounds must be a whole number"),
]  # fmt: skip

TASK = '[federation]\ntask = "CartPole-v1"\n'
BAD_FILES = [
    ("", "a [federation] is needed"),
    ("seed = ", "is not TOML"),
    (f"rounds = 3\n{TASK}", "unknown field 'rounds': choose one of title"),
    (f"title = 3\n{TASK}", "title must be text, not 3"),
    (f"description = 3\n{TASK}", "description must be text, not 3"),
    (f"seed = -1\n{TASK}", "seed must be a whole number from 0 to 2**63 - 1, not -1"),
    (f"seed = true\n{TASK}", "seed must be a whole number"),
    (f"at_most_s = 0\n{TASK}", "at_most_s must be a number from 1 to 86400, not 0"),
    (f'at_most_s = "soon"\n{TASK}', "at_most_s must be a number from 1"),
    ("[[federation]]\n", "a [federation] is needed"),
    ("federation = 3\n", "a [federation] is needed"),
    ("[federation]\nagents = 3", "[federation]: the field 'task' is missing"),
    ('[federation]\ntask = "Pong"', "unknown task 'Pong'"),
    (f"{TASK}workers = 3", "[federation]: unknown field 'workers'"),
    (f'{TASK}agents = "ten"', "[federation]: a federation needs 1 to 10000 agents, not 'ten'"),
    (f"{TASK}byzantine = 20", "20 Byzantine agents do not fit"),
    (f'{TASK}attack = "none"\nbyzantine = 1', "unknown attack 'none'"),
    (f'{TASK}algorithm = "ppo"', "unknown algorithm 'ppo'"),
    (f"{TASK}round_timeout_s = 0", "round_timeout_s must be a positive number"),
    (f"{TASK}trajectories = 0", "trajectories must be a whole number from 1"),
    (f'{TASK}seed = "x"', "[federation]: the seed must be a whole number from 0 to 2**63 - 1, not 'x'"),
    (f"{TASK}seed = -4", "the seed must be a whole number from 0"),
    (f'{TASK}byzantine = {{ 11 = "fedpg" }}', "[federation]: agent 11 is to be Byzantine, but the agents are 1 to 10"),
    (f"{TASK}[fault]\nkind = 3", "fault must be written as [[fault]]"),
    (f"fault = [3]\n{TASK}", "fault must be written as [[fault]]"),
    (f"fault = 3\n{TASK}", "fault must be written as [[fault]]"),
]  # fmt: skip


def assert_refused(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        described(tmp_path, text)
    assert sentence in str(caught.value)
    assert str(caught.value).startswith("scenario ")
    assert "described.toml" in str(caught.value)
    assert len(str(caught.value)) < 700
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("lines", "sentence"), BAD_FAULTS)
def test_a_bad_fault_is_refused_by_its_field(lines: list[str], sentence: str, tmp_path: Path) -> None:
    good = 'kind = "restart"\non = [1]\nat_s = 1'
    assert_refused(tmp_path, f"{FEDERATION}[[fault]]\n{good}\n" + with_fault(*lines, head=""), f"fault 2: {sentence}")


@pytest.mark.parametrize(("text", "sentence"), BAD_FILES)
def test_a_bad_file_is_refused_by_its_field(text: str, sentence: str, tmp_path: Path) -> None:
    assert_refused(tmp_path, text, sentence)


def test_too_many_faults_are_refused(tmp_path: Path) -> None:
    many = ['kind = "restart"', "on = [1]", "at_s = 1", "times = 600", "every_s = 1"]
    described(tmp_path, with_fault(*many))
    assert_refused(tmp_path, with_fault(*many, "[[fault]]", *many), "more than 1000 faults are planned")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"scenario file .*no\.toml cannot be read: No such file"):
        read_scenario(str(tmp_path / "no.toml"))
    with pytest.raises(UsageError, match="unknown scenario 'meteorite': choose one of agent-crash, "):
        read_scenario("meteorite")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is not text"):
        read_scenario(str(tmp_path / "binary.toml"))


@pytest.mark.parametrize("seed", [-1, SEED_MAX + 1])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(UsageError, match=r"seed must be a whole number from 0 to 2\*\*63 - 1"):
        read_scenario("agent-crash", seed)
