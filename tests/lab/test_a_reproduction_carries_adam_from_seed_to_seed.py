"""`[reproduction] carry_adam = true` starts each seed's run with the Adam state of the one before, and only that."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fedpg_common.descriptions import describe, federation_from_fields, federation_from_toml, federation_to_toml
from fedpg_common.errors import ExitCode, StorageError, UsageError
from fedpg_common.federation import Federation, name_of
from fedpg_lab.experiments.plan import PATIENT_S, Experiment, read_experiment
from fedpg_lab.experiments.runner import RunsFailedError, run_missing
from fedpg_lab.figures.curves import group_runs
from fedpg_lab.figures.published import published_for
from fedpg_lab.runs.folders import load_run
from fedpg_server.carried_adam import adam_digest, check_carried, finished_state, with_adam_of
from fedpg_server.learning.state import ADAM_M, ADAM_V, THETA, State
from fedpg_server.storage.store import STORE_NAME, Store
from rich.console import Console
from support.lab import Command, digests, run_federation, write_run
from support.protocol import make_round_record

TEXT = """
seeds = [4, 2, 7]
[reproduction]
carry_adam = true
[[federation]]
task = "CartPole-v1"
agents = 3
trajectories = 60
"""
NAME = "CartPole-v1_fedpg-br_K3_adam-carried-over"


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """Three seeds, in an order of their own."""
    path = tmp_path_factory.mktemp("file") / "leak.toml"
    path.write_text(TEXT)
    return read_experiment(str(path))


@pytest.fixture(scope="module")
def folder(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The experiment, run with two jobs at a time."""
    place = tmp_path_factory.mktemp("runs")
    run_missing(experiment.runs, place, jobs=2, console=Console(file=io.StringIO()))
    return place


def adam_after(place: Path) -> State:
    """The state that a run ended with."""
    with Store.read(place / STORE_NAME) as store:
        return store.latest_state()[1]


def test_each_seed_starts_with_the_adam_state_that_the_one_before_ended_with(folder: Path) -> None:
    runs = {seed: load_run(folder / NAME / f"seed-{seed}") for seed in (4, 2, 7)}
    assert all(run.is_complete for run in runs.values())
    assert {seed: run.federation.adam_after for seed, run in runs.items()} == {4: (), 2: (4,), 7: (4, 2)}
    taken_over = {seed: run.federation.adam_digest for seed, run in runs.items()}
    ended_with = {seed: adam_digest(adam_after(run.folder)) for seed, run in runs.items()}
    assert taken_over == {4: "", 2: ended_with[4], 7: ended_with[2]}
    steps = {seed: sum(record.inner_steps_taken for record in run.records) for seed, run in runs.items()}
    assert adam_after(runs[7].folder).steps == sum(steps.values()), "the step count is handed on, too"


def test_what_starts_a_chain_is_the_plain_run_and_what_follows_is_not(folder: Path, tmp_path: Path) -> None:
    for seed, is_same in ((4, True), (2, False)):
        carried = load_run(folder / NAME / f"seed-{seed}")
        plain = run_federation(replace(carried.federation, adam_after=None), tmp_path / f"{seed}", agents_per_process=3)
        assert (digests(plain) == digests(carried)) == is_same
        assert plain.records[0].distances == carried.records[0].distances, "the policy at the start is the seed's own"
        assert (plain.records[0].parameters_digest == carried.records[0].parameters_digest) == is_same


def test_an_unfinished_run_of_a_chain_is_resumed_to_the_same_parameters(
    experiment: Experiment, folder: Path, tmp_path: Path
) -> None:
    # As a killed experiment leaves it: the first run complete, the second with a store and not a round.
    first, second = experiment.runs[:2]
    whole = load_run(folder / first.name)
    write_run(tmp_path / first.name, whole.federation, whole.records)
    place = tmp_path / second.name
    place.mkdir(parents=True)
    with Store.read(folder / second.name / STORE_NAME) as store:
        begun = State({THETA: store.parameters(0)})
        description = store.description
    start = with_adam_of(adam_after(folder / first.name), begun)
    Store.create(place / STORE_NAME, "run", description, start).close()
    run_missing([first, second], tmp_path, jobs=2, console=Console(file=io.StringIO()))
    assert digests(load_run(place)) == digests(load_run(folder / second.name))


def test_a_run_is_refused_while_the_one_before_it_is_not_complete(experiment: Experiment, tmp_path: Path) -> None:
    first, second, third = experiment.runs
    quiet = Console(file=io.StringIO())
    sentence = f"^{second.name} starts with the Adam state of {first.name}, which is not complete: choose that run too$"
    with pytest.raises(UsageError, match=sentence):
        run_missing([second, third], tmp_path, jobs=1, console=quiet)
    write_run(tmp_path / first.name, first.federation, [make_round_record(1)])
    with pytest.raises(UsageError, match=sentence):
        run_missing([second], tmp_path, jobs=1, console=quiet)
    with pytest.raises(StorageError, match="is not complete: its Adam state cannot be taken over yet"):
        finished_state(tmp_path / first.name, second.federation)
    with pytest.raises(StorageError, match="holds another run than the one whose Adam state"):
        finished_state(tmp_path / first.name, third.federation)


def test_what_follows_a_run_that_failed_fails_with_it(experiment: Experiment, tmp_path: Path) -> None:
    broken = [
        replace(run, federation=replace(run.federation, task=replace(run.federation.task, environment="Nonsense-v0")))
        for run in experiment.runs
    ]
    with pytest.raises(RunsFailedError, match=f"^3 of 3 runs failed, first {broken[0].name}: .*Nonsense") as caught:
        run_missing(broken, tmp_path, jobs=2, console=Console(file=io.StringIO()))
    assert f"also {broken[1].name}, {broken[2].name}" in str(caught.value)
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_chain_is_a_group_of_its_own_with_the_published_curve_beside_it(folder: Path, tmp_path: Path) -> None:
    chain = [load_run(folder / NAME / f"seed-{seed}") for seed in (4, 2, 7)]
    plain = load_run(
        write_run(tmp_path / "plain", replace(chain[0].federation, adam_after=None, seed=2), chain[1].records)
    )
    groups = group_runs([*chain, plain])
    assert sorted((group.label, [run.federation.seed for run in group.runs]) for group in groups) == [
        ("FedPG-BR K=3", [2]),
        ("FedPG-BR K=3, Adam carried over", [2, 4, 7]),
    ]
    assert published_for(chain[1].federation) == published_for(plain.federation) is not None


def carried(seeds: tuple[int, ...]) -> Federation:
    return replace(describe("CartPole-v1", seed=5), adam_after=seeds)


def test_the_description_says_where_adam_came_from() -> None:
    federation = replace(carried((3, 1)), adam_digest="0a1b")
    read = federation_from_toml(federation_to_toml(federation), "description")
    assert (read, read.adam_digest) == (federation, "0a1b")
    assert federation.predecessor == replace(carried((3,)), seed=1)
    assert carried(()).predecessor is None
    assert "adam" not in federation_to_toml(describe("CartPole-v1"))
    assert name_of(federation) == "CartPole-v1_fedpg-br_K10_adam-carried-over"
    assert describe("CartPole-v1", seed=5) != carried(()) != carried((3,))
    for seeds in ((5,), (1, 1), (-1,), (True,)):
        with pytest.raises(UsageError, match="adam_after must be different seeds, without the run's own"):
            carried(seeds)
    for field, value in (("adam_after", 3), ("adam_after", "3"), ("adam_digest", 5), ("adam_digest", "xyz")):
        with pytest.raises(UsageError, match=f"{field} must be a"):
            federation_from_fields({"task": "CartPole-v1", field: value}, "")


def test_nothing_but_an_experiment_hands_adam_on(tmp_path: Path, fedpg: Command) -> None:
    check_carried(describe("CartPole-v1"), None)
    check_carried(carried(()), None)
    with pytest.raises(UsageError, match="starts with the Adam state of the finished run of seed 3, which only"):
        check_carried(carried((3,)), None)
    described = tmp_path / "config.toml"
    described.write_text(federation_to_toml(carried((3,))))
    code, _, error = fedpg("train", "--federation", described, "--out", tmp_path / "runs")
    assert (code, error) == (
        ExitCode.USAGE,
        "fedpg: adam_after belongs to the runs of an experiment's [reproduction]: leave it out\n",
    )
    assert not (tmp_path / "runs").exists()


def test_moments_and_step_count_are_taken_over_and_nothing_else() -> None:
    ones, twos = np.ones(3, np.float32), np.full(3, 2, np.float32)
    finished = State({THETA: twos, ADAM_M: twos, ADAM_V: twos, "aggregator/mean": twos, "algorithm/m": twos}, 40)
    taken = with_adam_of(finished, State({THETA: ones, ADAM_M: ones, ADAM_V: ones}))
    assert set(taken.vectors) == {THETA, ADAM_M, ADAM_V}
    assert (taken.theta is ones, taken.vectors[ADAM_M] is twos, taken.vectors[ADAM_V] is twos) == (True, True, True)
    assert taken.steps == 40


def test_the_plan_is_by_seed_and_each_run_names_the_one_before(experiment: Experiment) -> None:
    assert [(run.name, run.after) for run in experiment.runs] == [
        (f"{NAME}/seed-4", None),
        (f"{NAME}/seed-2", f"{NAME}/seed-4"),
        (f"{NAME}/seed-7", f"{NAME}/seed-2"),
    ]
    assert experiment.runs[2].federation == replace(
        describe("CartPole-v1", agents=3, seed=7, trajectories=60), round_timeout_s=PATIENT_S, adam_after=(4, 2)
    )
