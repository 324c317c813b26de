"""A store keeps θ of the start, the best and the latest rounds; looking for the others costs the same each round."""

from __future__ import annotations

import math
import random
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from fedpg_common.errors import StorageError
from fedpg_server.learning.state import ADAM_M, THETA, State
from fedpg_server.storage import retention
from fedpg_server.storage.store import STORE_NAME, Store
from support.protocol import DESCRIPTION, make_round_record

SIZE = 6


def state_of(value: int) -> State:
    return State({THETA: np.full(SIZE, value, np.float32), ADAM_M: np.full(SIZE, value, np.float32)}, value)


def finish(store: Store, number: int, value: float) -> None:
    """A round's two transactions."""
    record = make_round_record(number, evaluation_returns=(value,))
    store.improve_round(record, state_of(number))
    store.finish_round(record)


def test_past_parameters_are_kept_as_far_as_they_are_wanted(tmp_path: Path) -> None:
    returns = [1.0, 9.0, 9.0, float("nan"), 2.0, 3.0, 4.0]
    path = tmp_path / STORE_NAME
    with closing(Store.create(path, "run-1", DESCRIPTION, state_of(0))) as store:
        store.keep_parameters = 2
        for number, value in enumerate(returns[:5], start=1):
            store.finish_round(make_round_record(number, evaluation_returns=(value,)), state_of(number))
    with closing(Store.open(path)) as store:  # it remembers which round was the best
        store.keep_parameters = 2
        for number, value in enumerate(returns[5:], start=6):
            store.finish_round(make_round_record(number, evaluation_returns=(value,)), state_of(number))
        assert store.state_rounds() == [0, 2, 6, 7], "the start, the best, and the last two"
        assert store.latest_state()[0] == 7
        assert store.parameters(2).tolist() == [2.0] * SIZE
        with pytest.raises(StorageError, match="no parameters of round 5"):
            store.parameters(5)
        assert len(store.records()) == 7


def test_without_a_wish_they_are_kept_up_to_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "KEPT_BYTES", 3 * 4 * SIZE + 1)
    with closing(Store.create(tmp_path / STORE_NAME, "run-1", DESCRIPTION, state_of(0))) as store:
        for number in range(1, 8):
            store.finish_round(make_round_record(number, evaluation_returns=(-number,)), state_of(number))
        assert store.state_rounds() == [0, 1, 5, 6, 7]


def test_a_file_that_drops_what_it_need_not_keep_stays_small(tmp_path: Path) -> None:
    path = tmp_path / STORE_NAME
    large = State({THETA: np.zeros(100_000, np.float32)})
    with closing(Store.create(path, "run-1", DESCRIPTION, large)) as store:
        store.keep_parameters = 1
        for number in range(1, 30):
            store.finish_round(make_round_record(number), large)
    assert path.stat().st_size < 6 * large.theta.nbytes


def to_be_kept(returns: list[float], keep: int, kept: list[int]) -> list[int]:
    """The rule, applied to all rounds; `kept` are those that were before the last one."""
    last = len(returns)
    finite = [value for value in returns if math.isfinite(value)]
    best = returns.index(max(finite)) + 1 if finite else 0
    return [number for number in [*kept, last] if number in (0, best) or number > last - keep]


def names_of(path: Path) -> set[tuple[int, str]]:
    with closing(Store.read(path)) as store:
        return set(store._rows("SELECT round, name FROM vectors"))


@pytest.mark.parametrize("seed", range(4))
def test_what_is_kept_does_not_depend_on_restarts_and_follows_a_wish_that_changes(tmp_path: Path, seed: int) -> None:
    rng, path = random.Random(seed), tmp_path / STORE_NAME
    store = Store.create(path, "run-1", DESCRIPTION, state_of(0))
    store.keep_parameters = 3
    returns: list[float] = []
    kept = [0]
    for number in range(1, 80):
        if rng.random() < 0.1:
            store.close()
            store = Store.open(path)
            store.keep_parameters = 3
        if rng.random() < 0.1:
            store.keep_parameters = rng.randrange(1, 6)
        returns.append(rng.choice([math.nan, float(rng.randrange(40))]))
        finish(store, number, returns[-1])
        kept = to_be_kept(returns, store.keep_parameters or 0, kept)
        assert store.state_rounds() == kept
    store.close()
    assert names_of(path) == {(number, THETA) for number in kept} | {(79, ADAM_M)}


def test_a_failed_transaction_leaves_nothing_behind_that_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Store.create(tmp_path / STORE_NAME, "run-1", DESCRIPTION, state_of(0))) as store:
        store.keep_parameters = 1
        finish(store, 1, 5.0)
        finish(store, 2, 1.0)
        with monkeypatch.context() as patch:
            patch.setattr("fedpg_server.storage.seal.Seal.write", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                finish(store, 3, 9.0)
        finish(store, 3, 2.0)
        assert store.state_rounds() == [0, 1, 3], "the best is not the one that was taken back"


def test_a_round_costs_the_same_however_many_there_have_been(tmp_path: Path) -> None:
    def steps(number: int) -> int:
        """What SQLite does for a round, in its own instructions."""
        done = 0

        def count() -> int:
            nonlocal done
            done += 1
            return 0

        store._connection.set_progress_handler(count, 10)
        finish(store, number, -number)
        store._connection.set_progress_handler(None, 0)
        return done

    with closing(Store.create(tmp_path / STORE_NAME, "run-1", DESCRIPTION, state_of(0))) as store:
        early = late = 0
        for number in range(1, 301):
            if number in (20, 300):
                early, late = late, steps(number)
            else:
                finish(store, number, -number)
        assert len(store.state_rounds()) == 301
    assert 0 < late < 1.5 * early
