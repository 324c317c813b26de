"""A scenario that cannot be is refused with a sentence that names its file, the field and what it may be."""

from __future__ import annotations

from pathlib import Path

import pytest
from fedpg_common.errors import UsageError
from fedpg_common.federation import SEED_MAX
from fedpg_lab.faults.scenario import read_scenario
from support.scenarios import FEDERATION, described, with_fault

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
