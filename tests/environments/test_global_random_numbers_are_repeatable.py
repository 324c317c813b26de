"""An environment that draws from `np.random` or `random` gets the same numbers whatever shares its process."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fedpg_common.environments import EnvironmentBatch, GlobalRandom, make_environments
from fedpg_common.environments.rollouts import sample
from fedpg_common.federation import Federation
from fedpg_common.learning.checkpoints import Checkpoint
from fedpg_common.learning.policies import make_policy
from fedpg_common.learning.streams import Role
from fedpg_common.tasks import CARTPOLE
from fedpg_lab.playback.evaluation import evaluate
from odd_environments import odd_task
from support.lab import digests, run_federation

TASK = odd_task("draws", trajectories=16)


def rewards(environments: EnvironmentBatch, round_number: int, episodes: int = 3) -> list[float]:
    with environments.drawing(round_number):
        played = sample(environments, lambda s: np.zeros(len(s), np.int64), 8, np.arange(episodes))
    return list(played.rewards.tolist())


def make(agent: int = 1, seed: int = 5) -> EnvironmentBatch:
    return make_environments(TASK, GlobalRandom(seed, Role.AGENT, agent))


def test_seed_agent_and_round_name_the_numbers() -> None:
    """And nothing else: neither what was drawn before, nor the rounds that this process has not seen."""
    first = make()
    numbers = [rewards(first, round_number) for round_number in (1, 2, 3)]
    random.random()
    np.random.random()
    assert rewards(make(), 3) == numbers[2]
    different = [*numbers, rewards(make(agent=2), 1), rewards(make(seed=6), 1)]
    assert len({tuple(each) for each in different}) == len(different)


def test_the_callers_own_numbers_are_left_alone() -> None:
    random.seed(1)
    np.random.seed(1)
    expected = random.random(), np.random.random()
    random.seed(1)
    np.random.seed(1)
    rewards(make(), 1)
    assert (random.random(), np.random.random()) == expected


def test_torch_is_seeded_where_it_is_imported_and_not_imported_for_that() -> None:
    import torch

    drawn = []
    for _ in range(2):
        with GlobalRandom(3).during_episodes(1, 0):
            drawn.append(torch.rand(1).item())
        torch.rand(1)
    assert drawn[0] == drawn[1]
    program = (
        "import sys; from fedpg_common.environments import GlobalRandom\n"
        "with GlobalRandom(3).during_episodes(1, 0): pass\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


def test_agents_in_threads_of_one_process_take_turns() -> None:
    alone = [rewards(make(agent), 1) for agent in (1, 2, 3, 4)]
    together: dict[int, list[float]] = {}
    start = threading.Barrier(4)

    def work(agent: int) -> None:
        environments = make(agent)
        start.wait()
        together[agent] = rewards(environments, 1)

    threads = [threading.Thread(target=work, args=(agent,)) for agent in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[agent] for agent in (1, 2, 3, 4)] == alone


def test_an_instance_is_made_with_the_same_numbers_whenever_it_is_made() -> None:
    drawn: list[float] = []

    def note(instance: int) -> None:
        with GlobalRandom(3, Role.AGENT, 1).during_making(instance):
            drawn.append(random.random())

    for instance in (0, 1, 2, 1):
        note(instance)
    assert drawn[1] == drawn[3]
    assert len(set(drawn)) == 3


def test_the_fast_batches_pay_nothing() -> None:
    environments = make_environments(CARTPOLE)
    state = random.getstate()
    with environments.drawing(1):
        assert random.getstate() == state


def test_an_evaluated_episode_does_not_depend_on_the_others() -> None:
    """So that one which is recorded is the one that was evaluated."""
    environments = make_environments(TASK)
    policy = make_policy(TASK, environments.observation_size, environments.action_space)
    theta = policy.initial_parameters(np.random.default_rng(0))
    checkpoint = Checkpoint(theta, policy.spec, TASK, 1, None)
    many = evaluate(checkpoint, 4, seed=2, greedy=True).returns.tolist()
    assert evaluate(checkpoint, 2, seed=2, greedy=True).returns.tolist() == many[:2]
    assert len(set(many)) == 4


@pytest.mark.parametrize("agents_per_process", [2, 3])
def test_parameters_do_not_depend_on_the_process_layout(tmp_path: Path, agents_per_process: int) -> None:
    federation = Federation(replace(TASK, trajectories=12), agents=3, seed=4)
    alone = run_federation(federation, tmp_path / "alone")
    together = run_federation(federation, tmp_path / "together", agents_per_process)
    assert len(alone.records) > 1
    assert digests(together) == digests(alone)
    assert [record.evaluation_returns for record in together.records] == [
        record.evaluation_returns for record in alone.records
    ]
