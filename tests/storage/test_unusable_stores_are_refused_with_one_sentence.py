"""A store that is missing, damaged, foreign, newer, taken or in use is refused with a sentence that names it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fedpg_common.errors import ExitCode, StorageError
from fedpg_common.learning.parameters import Vector
from fedpg_server.learning.state import ADAM_M, ADAM_V, THETA, State
from fedpg_server.storage.database import FORMAT_VERSION
from fedpg_server.storage.rows import Ballot, ClosedRow, VoteRow
from fedpg_server.storage.store import Store
from support.privileges import as_an_ordinary_user
from support.protocol import DESCRIPTION, digest_of_vector, make_round_record

COPY = "put the whole folder back from a copy"
SIZE = 20_000
"""Large enough for a vector to fill pages of its own."""


def vector_of(value: int) -> Vector:
    return np.arange(SIZE, dtype=np.float32) + value


def state_of(value: int) -> State:
    return State({name: vector_of(value) for name in (THETA, ADAM_M, ADAM_V)}, value)


def make_store(path: Path) -> None:
    """A store with one improved round and one open round with a vote."""
    store = Store.create(path, "run-1", DESCRIPTION, state_of(0))
    store.commit([ClosedRow(1)])
    store.finish_round(make_round_record(1), state_of(1))
    gradient = vector_of(1_000_000)
    store.commit([VoteRow(2, 1, digest_of_vector(gradient), Ballot(gradient, b""))])
    store.close()


def refused(action: Callable[[], object], path: Path) -> str:
    """The sentence of the StorageError that `action` must raise."""
    with pytest.raises(StorageError) as caught:
        action()
    sentence = str(caught.value)
    assert str(path) in sentence
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    assert caught.value.exit_code is ExitCode.STORAGE
    return sentence


def both_ways(path: Path) -> list[str]:
    """The sentences of opening and of reading."""
    return [refused(lambda: Store.open(path), path), refused(lambda: Store.read(path), path)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "run.sqlite"
    make_store(made)
    return made


def use_everything(path: Path) -> None:
    """What a server does with a store when it resumes."""
    store = Store.open(path)
    try:
        assert isinstance(store.records(), list)
        round_number, _ = store.latest_state()
        store.recall_round(round_number + 1)
    finally:
        store.close()


def test_the_sound_store_is_accepted(path: Path) -> None:
    use_everything(path)


def test_a_missing_store(tmp_path: Path) -> None:
    assert all("there is no run store" in sentence for sentence in both_ways(tmp_path / "run.sqlite"))


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "run.sqlite").mkdir()
    both_ways(tmp_path / "run.sqlite")


def test_an_empty_file(path: Path) -> None:
    path.write_bytes(b"")
    assert all("empty" in sentence and COPY in sentence for sentence in both_ways(path))


@pytest.mark.parametrize("kept", [0.1, 0.3, 0.6, 0.95])
def test_a_truncated_file(path: Path, kept: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    sentence = refused(lambda: use_everything(path), path)
    assert f"{path} is damaged: " in sentence
    assert COPY in sentence


@pytest.mark.parametrize("content", [b"hello, world\n", b"\0" * 100_000, b"PK\x03\x04" * 5000])
def test_a_file_of_another_kind(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert all(f"{path} is damaged: " in sentence and COPY in sentence for sentence in both_ways(path))


def test_the_advice_names_what_else_there_is_of_the_run(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20_000])
    assert [sentence.rpartition(": ")[2] for sentence in both_ways(path)] == [COPY, COPY]
    config, folder = path.with_name("config.toml"), path.parent
    config.write_text('task = "CartPole-v1"\nadam_after = [0]\n')
    assert all("start the run afresh" not in sentence for sentence in both_ways(path)), "no run can begin with that"
    config.write_text(DESCRIPTION)
    afresh = f"or start the run afresh, with the same settings and seed: fedpg train --federation {config}"
    assert all(sentence.endswith(f"{COPY}, {afresh}") for sentence in both_ways(path))
    (folder / "checkpoints").mkdir()
    assert all(sentence.endswith(afresh) for sentence in both_ways(path))
    (folder / "checkpoints" / "best.safetensors").write_bytes(b"")
    policies = f"its policies in checkpoints/ can be evaluated as they are: fedpg evaluate {folder}"
    assert all(sentence.endswith(f"{afresh}; {policies}") for sentence in both_ways(path))


def test_a_store_that_cannot_be_used_for_now_is_not_called_damaged(path: Path) -> None:
    path.chmod(0)
    with as_an_ordinary_user():
        assert all("damaged" not in sentence for sentence in both_ways(path))


def test_another_applications_database_is_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    assert all("not a FedPG store" in sentence for sentence in both_ways(path))
    assert path.read_bytes() == before


def test_a_newer_format(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version={FORMAT_VERSION + 1}")
    connection.close()
    assert all(f"format {FORMAT_VERSION + 1}" in sentence for sentence in both_ways(path))


def overwrite(path: Path, old: bytes, new: bytes) -> None:
    """Damage on the disk, past SQLite."""
    content = path.read_bytes()
    assert content.count(old) >= 1
    path.write_bytes(content.replace(old, new))


def test_a_damaged_page(path: Path) -> None:
    content = bytearray(path.read_bytes())
    page = 16384
    content[2 * page : 3 * page] = b"\xa5" * page
    path.write_bytes(bytes(content))
    assert "damaged" in refused(lambda: use_everything(path), path)


def test_a_flipped_bit_in_the_learners_state(path: Path) -> None:
    overwrite(path, vector_of(1)[5000:5010].tobytes(), vector_of(7)[5000:5010].tobytes())
    assert "the learner's state after round 1 has changed" in refused(lambda: use_everything(path), path)


def test_a_flipped_bit_in_a_vote(path: Path) -> None:
    overwrite(path, vector_of(1_000_000)[5000:5010].tobytes(), vector_of(7)[5000:5010].tobytes())
    assert "agent 1's vote in round 2 has changed" in refused(lambda: use_everything(path), path)


def test_a_damaged_record(path: Path) -> None:
    overwrite(path, b'"accepted"', b'"acceptad"')
    assert "record" in refused(lambda: use_everything(path), path)


@pytest.mark.parametrize("table", ["states", "vectors", "votes", "rounds", "run"])
def test_a_store_without_one_of_its_tables(path: Path, table: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"DROP TABLE {table}")
    connection.commit()
    connection.close()

    def use_and_name() -> None:
        use_everything(path)
        assert Store.read(path).run_id

    refused(use_and_name, path)


def test_a_second_server_on_the_same_store(path: Path) -> None:
    first = Store.open(path)
    assert "in use by another server" in refused(lambda: Store.open(path), path)
    Store.read(path).close()
    first.close()
    Store.open(path).close()


def test_an_existing_store_is_never_replaced(path: Path) -> None:
    before = path.read_bytes()
    sentence = refused(lambda: Store.create(path, "run-2", DESCRIPTION, state_of(5)), path)
    assert "resume" in sentence
    assert path.read_bytes() == before
    assert Store.open(path).run_id == "run-1", "and a refused server holds no lock"


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    path = tmp_path / "runs" / "run.sqlite"
    assert "cannot write in" in refused(
        lambda: Store.create(path, "run-1", DESCRIPTION, state_of(0)), tmp_path / "runs"
    )


def test_a_creation_that_was_cut_short_leaves_no_store_and_can_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    path.with_suffix(".new").write_bytes(b"half a store")
    with pytest.raises(StorageError):
        Store.open(path)
    make_store(path)
    use_everything(path)
