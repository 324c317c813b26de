"""The policy is evaluated in every agent's world, while it learns or afterwards, which changes nothing."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fedpg_common.environments import make_environments
from fedpg_common.environments.helper import can_help
from fedpg_common.environments.helpers import HelperPool
from fedpg_common.errors import ExitCode, UsageError
from fedpg_common.federation import Federation
from fedpg_common.learning.policies import make_policy
from fedpg_common.tasks import CARTPOLE, HALF_CHEETAH, LUNAR_LANDER, Task
from fedpg_common.worlds import World
from fedpg_server.learning.worlds import Worlds
from support.drawn_worlds import drawn
from support.lab import Command, digests, run_federation
from support.protocol import wait_until


def test_a_run_in_many_worlds_is_repeatable_and_evaluated_in_each(tmp_path: Path, fedpg: Command) -> None:
    """Also across process layouts; evaluating in the worlds, in every round or afterwards, changes nothing."""
    plain = replace(drawn(agents=3, reward={"noise": [0.1, 0.3]}), task=replace(CARTPOLE, trajectories=60))
    evaluated = replace(plain, worlds_every=2)
    one = run_federation(plain, tmp_path / "one", agents_per_process=3)
    other = run_federation(evaluated, tmp_path / "other", agents_per_process=1)
    nominal = run_federation(replace(plain, heterogeneity=None), tmp_path / "nominal", agents_per_process=3)
    assert digests(one) == digests(other) != digests(nominal)
    told = [record.world_returns for record in other.records]
    assert [returns is not None for returns in told] == [record.round_number % 2 == 0 for record in other.records]
    last = [returns for returns in told if returns][-1]
    assert last.keys() == {1, 2, 3}
    assert len(set(last.values())) > 1
    summary = json.loads((tmp_path / "other" / "summary.json").read_text())["worlds"]
    assert (summary["worst"], summary["spread"]) == (min(last.values()), max(last.values()) - min(last.values()))
    assert json.loads((tmp_path / "one" / "summary.json").read_text())["worlds"] is None

    code, output, text = fedpg("evaluate", str(tmp_path / "one"), "--worlds", "--json", "--episodes", "4")
    assert code == ExitCode.OK, text
    figures = json.loads(output)
    assert figures["returns"].keys() == {"1", "2", "3"}
    assert figures["mean"] == pytest.approx(np.mean(list(figures["returns"].values())))
    code, output, text = fedpg("evaluate", str(tmp_path / "one"), "--worlds", "--episodes", "4")
    assert code == ExitCode.OK, text
    assert output.splitlines()[1].split() == ["agent", "return", "world"]
    assert "gravity=" in output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--worlds", "--sample"), "leave out --sample"),
        (("--worlds", "--video", "x.mp4"), "leave out --sample, --render and --video"),
    ],
)
def test_worlds_are_not_drawn(tmp_path: Path, fedpg: Command, arguments: tuple[str, ...], words: str) -> None:
    code, _, text = fedpg("evaluate", str(tmp_path), *arguments)
    assert (code, words in text) == (ExitCode.USAGE, True)


def test_rewards_of_a_world_are_judged_as_the_task_has_them(tmp_path: Path) -> None:
    """An agent whose reward is doubled earns no more than the others in the same world."""
    federation = Federation(CARTPOLE, 2, environments={2: World(reward={"scale": 2.0, "noise": 1.0})})
    policy = make_policy(CARTPOLE, 4, make_environments(CARTPOLE).action_space)
    worlds = Worlds(federation, policy)
    returns = worlds.evaluate(policy.initial_parameters(np.random.default_rng(0)), np.arange(5))
    worlds.close()
    assert returns[1] == returns[2]


def test_a_world_that_cannot_be_made_for_evaluation_names_the_agent() -> None:
    federation = Federation(CARTPOLE, 2, environments={2: World({"length": -1})})
    policy = make_policy(CARTPOLE, 4, make_environments(CARTPOLE).action_space)
    with pytest.raises(UsageError, match=r"the world of agent 2: .* length must be a positive number, not -1"):
        Worlds(federation, policy)


@pytest.mark.parametrize("task", [HALF_CHEETAH, LUNAR_LANDER], ids=lambda task: task.name)
def test_worlds_are_played_by_any_number_of_threads_with_the_same_returns(task: Task) -> None:
    federation = Federation(replace(task, evaluation_horizon=20), 2, environments={2: World({"gravity": -5.0})})
    with closing(make_environments(task)) as batch:
        policy = make_policy(task, batch.observation_size, batch.action_space)
    theta = policy.initial_parameters(np.random.default_rng(0))
    pool = HelperPool()
    helpers = pool.borrow(2)  # as a server's own environments do
    try:
        with closing(Worlds(federation, policy)) as alone, closing(Worlds(federation, policy, 3, pool)) as shared:
            expected = alone.evaluate(theta, np.arange(7))
            assert expected[1] != expected[2]
            assert shared.evaluate(theta, np.arange(7)) == expected
            if task == LUNAR_LANDER and can_help():
                wait_until(lambda: shared.evaluate(theta, np.arange(7)) == expected and len(helpers.ready()) == 2)
            assert shared.evaluate(theta, np.arange(7)) == expected
    finally:
        pool.give_back(helpers)
    assert helpers.ready() == []
