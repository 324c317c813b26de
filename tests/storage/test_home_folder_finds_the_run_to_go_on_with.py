"""A server that is started again in a folder of runs goes on with its own unfinished run, or starts the next one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fedpg_common.descriptions import describe, federation_to_toml
from fedpg_common.errors import StorageError
from fedpg_common.federation import Federation
from fedpg_server.storage.run_folders import folder_for
from fedpg_server.storage.store import STORE_NAME, Store
from support.protocol import initial_state, make_round_record

FEDERATION = describe("CartPole-v1", agents=4, byzantine=1, trajectories=100)
NAME = "CartPole-v1_fedpg-br_K4_B1_random-noise"


def make_run(folder: Path, federation: Federation, trajectories: int | None) -> None:
    """A run that got that far; None: it has not closed a round."""
    folder.mkdir(parents=True)
    store = Store.create(folder / STORE_NAME, "run-1", federation_to_toml(federation), initial_state())
    if trajectories is not None:
        store.finish_round(make_round_record(1, trajectories_total=trajectories), initial_state())
    store.close()


def test_the_first_run_is_named_for_its_federation(tmp_path: Path) -> None:
    assert folder_for(tmp_path, FEDERATION) == (tmp_path / NAME, False)


def test_a_home_that_is_not_there_yet_is_no_error(tmp_path: Path) -> None:
    assert folder_for(tmp_path / "a" / "b", FEDERATION) == (tmp_path / "a" / "b" / NAME, False)


@pytest.mark.parametrize("trajectories", [None, 16, 99])
def test_an_unfinished_run_is_gone_on_with(tmp_path: Path, trajectories: int | None) -> None:
    make_run(tmp_path / NAME, FEDERATION, trajectories)
    assert folder_for(tmp_path, FEDERATION) == (tmp_path / NAME, True)


@pytest.mark.parametrize("trajectories", [100, 112])
def test_after_a_finished_run_comes_the_next(tmp_path: Path, trajectories: int) -> None:
    make_run(tmp_path / NAME, FEDERATION, trajectories)
    assert folder_for(tmp_path, FEDERATION) == (tmp_path / f"{NAME}-2", False)
    make_run(tmp_path / f"{NAME}-2", FEDERATION, 16)
    assert folder_for(tmp_path, FEDERATION) == (tmp_path / f"{NAME}-2", True)


@pytest.mark.parametrize(
    "other",
    [
        replace(FEDERATION, seed=1),
        replace(FEDERATION, round_timeout_s=1.0),
        replace(FEDERATION, task=replace(FEDERATION.task, trajectories=200)),
        replace(FEDERATION, task=replace(FEDERATION.task, sigma=0.5)),
    ],
    ids=["seed", "timeout", "trajectories", "sigma"],
)
def test_another_federation_of_the_same_name_is_left_alone(tmp_path: Path, other: Federation) -> None:
    make_run(tmp_path / NAME, other, 16)
    assert folder_for(tmp_path, FEDERATION) == (tmp_path / f"{NAME}-2", False)
    assert folder_for(tmp_path, other) == (tmp_path / NAME, True)


def test_a_folder_without_a_store_is_used(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()  # a server was killed before it had made its store
    assert folder_for(tmp_path, FEDERATION) == (tmp_path / NAME, False)


def test_a_damaged_store_is_reported_and_not_stepped_over(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / STORE_NAME).write_bytes(b"rubbish" * 1000)
    with pytest.raises(StorageError):
        folder_for(tmp_path, FEDERATION)
