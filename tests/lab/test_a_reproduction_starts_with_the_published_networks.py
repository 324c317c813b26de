"""`[reproduction] published_networks = true` starts each run with the network that the published code's seed gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from fedpg_common.descriptions import describe, federation_from_fields, federation_from_toml, federation_to_toml
from fedpg_common.errors import UsageError
from fedpg_common.federation import name_of
from fedpg_common.learning.policies import Policy, make_policy
from fedpg_lab.experiments.plan import read_experiment
from fedpg_lab.figures.curves import group_runs
from fedpg_lab.figures.published import published_for
from fedpg_lab.runs.folders import load_run
from fedpg_server.learning.published_networks import published_parameters
from fedpg_server.storage.store import STORE_NAME, Store
from support.lab import digests, run_federation, write_run
from support.protocol import make_round_record
from torch import nn

TEXT = """
seeds = 2
[reproduction]
published_networks = true
carry_adam = {carry_adam}
[[federation]]
task = "CartPole-v1"
agents = 3
trajectories = 40
"""


def policy_of(task: str) -> Policy:
    environment = gymnasium.make(task)
    size = math.prod(environment.observation_space.shape or ())
    return make_policy(describe(task).task, size, environment.action_space)


def categorical() -> list[nn.Linear]:
    return [nn.Linear(4, 16), nn.Linear(16, 16), nn.Linear(16, 2)]


def gaussian() -> list[nn.Linear]:
    trunk = [nn.Linear(17, 64), nn.Linear(64, 64)]
    return [*trunk, *(nn.Linear(64, 6, bias=False) for _ in range(2))]


@pytest.mark.parametrize("seed", [0, 9, 2**63 - 1])
@pytest.mark.parametrize(("task", "make_layers"), [("CartPole-v1", categorical), ("HalfCheetah-v5", gaussian)])
def test_the_network_is_that_of_layers_made_and_drawn_over_after_the_seed(
    task: str, make_layers: Callable[[], list[nn.Linear]], seed: int
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tensors = [tensor for layer in make_layers() for tensor in layer.parameters()]
        for tensor in tensors:
            bound = 1.0 / math.sqrt(tensor.size(-1))
            nn.init.uniform_(tensor, -bound, bound)
    expected = torch.cat([tensor.detach().ravel() for tensor in tensors]).numpy()
    assert np.array_equal(published_parameters(policy_of(task).spec, seed), expected)


def test_a_run_starts_with_it_and_is_otherwise_the_seeds_own(tmp_path: Path) -> None:
    plain = describe("CartPole-v1", agents=3, seed=4, trajectories=40)
    folders = {flag: tmp_path / str(flag) for flag in (False, True)}
    runs = {
        flag: run_federation(replace(plain, published_networks=flag), folder, agents_per_process=3)
        for flag, folder in folders.items()
    }
    with Store.read(folders[True] / STORE_NAME) as store:
        assert np.array_equal(store.parameters(0), published_parameters(policy_of("CartPole-v1").spec, 4))
    plans = {flag: [record.batch_size for record in run.records] for flag, run in runs.items()}
    assert plans[True][0] == plans[False][0]
    assert digests(runs[True]) != digests(runs[False])


@pytest.mark.parametrize("carries", [False, True])
def test_an_experiments_reproduction_asks_for_it(tmp_path: Path, carries: bool) -> None:
    path = tmp_path / "reproduced.toml"
    path.write_text(TEXT.format(carry_adam=str(carries).lower()))
    first, second = (run.federation for run in read_experiment(str(path)).runs)
    assert (first.seed, second.seed) == (0, 1)
    assert [one.published_networks for one in (first, second)] == [True, True]
    assert second.adam_after == ((0,) if carries else None)
    adam = "_adam-carried-over" if carries else ""
    assert name_of(first) == f"CartPole-v1_fedpg-br_K3{adam}_published-networks"
    assert federation_from_toml(federation_to_toml(second), "description") == second
    assert published_for(second) == published_for(describe("CartPole-v1", agents=3)) is not None


def test_its_curve_is_told_from_that_of_other_networks(tmp_path: Path) -> None:
    plain = describe("CartPole-v1", agents=3, seed=4)
    runs = [
        load_run(write_run(tmp_path / str(flag), replace(plain, published_networks=flag), [make_round_record(1)]))
        for flag in (False, True)
    ]
    assert [group.label for group in group_runs(runs)] == ["FedPG-BR K=3", "FedPG-BR K=3, published networks"]


def test_a_description_without_it_does_not_name_it() -> None:
    assert "published" not in federation_to_toml(describe("CartPole-v1"))
    for value in (1, "yes"):
        with pytest.raises(UsageError, match="published_networks must be true or false, not "):
            federation_from_fields({"task": "CartPole-v1", "published_networks": value}, "")
