"""A flipped bit anywhere in a run's files, or a file that is missing, changes nothing that is read or is refused."""

from __future__ import annotations

import errno
import fcntl
import logging
import multiprocessing
import os
import random
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from fedpg_common.errors import StorageError
from fedpg_common.transport.verdicts import Verdict
from fedpg_server.learning.records import RoundRecord
from fedpg_server.learning.state import ADAM_M, THETA, State
from fedpg_server.storage import database
from fedpg_server.storage.mark import mark_path
from fedpg_server.storage.rows import Ballot, ClosedRow, ConflictRow, VerdictRow, VoteRow
from fedpg_server.storage.store import STORE_NAME, Store
from support.protocol import DESCRIPTION, digest_of_vector, make_round_record

SIZE = 6
Files = dict[str, bytes]
WAL_NAME = f"{STORE_NAME}-wal"
MARK_NAME = mark_path(Path(STORE_NAME)).name


def state_of(value: int) -> State:
    return State({THETA: np.full(SIZE, value, np.float32), ADAM_M: np.full(SIZE, value, np.float32)}, value)


def vote(round_number: int, agent: int) -> VoteRow:
    gradient = np.full(SIZE, 10 * round_number + agent, np.float32)
    return VoteRow(round_number, agent, digest_of_vector(gradient), Ballot(gradient, b"report"))


def write_rounds(store: Store, first: int, last: int) -> None:
    for number in range(first, last + 1):
        store.commit([vote(number, 1), vote(number, 2), VerdictRow(1, Verdict.DUPLICATE), ConflictRow(number, 2, b"x")])
        store.commit([ClosedRow(number)])
        store.finish_round(make_round_record(number), state_of(number))


def files_of(folder: Path) -> Files:
    names = (STORE_NAME, WAL_NAME, MARK_NAME)
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """What a killed server leaves: a store, a log of writes that has not been copied back, and a mark."""
    folder = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "PAGE_BYTES", 512)  # little empty space
        store = Store.create(folder / STORE_NAME, "run-1", DESCRIPTION, state_of(0))
    write_rounds(store, 1, 2)
    store.commit([vote(3, 1)])
    store.commit([vote(3, 2), VerdictRow(0, Verdict.NOT_A_MEMBER)])
    files = files_of(folder)
    store.close()
    assert len(files[WAL_NAME]) > 512
    return files


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory, killed: Files) -> Files:
    """The same run, closed as it should be."""
    folder = tmp_path_factory.mktemp("closed")
    lay_out(folder, killed)
    Store.open(folder / STORE_NAME).close()
    files = files_of(folder)
    assert WAL_NAME not in files
    return files


def lay_out(folder: Path, files: Files) -> None:
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def everything(store: Store) -> object:
    """All that can be read of a store."""
    round_number, state = store.latest_state()
    known = store.recall_round(round_number + 1)
    return (
        store.run_id, store.description, store.extensions(), store.records(), store.progress(), round_number,
        state.steps, {name: vector.tobytes() for name, vector in state.vectors.items()}, known.digests, known.is_closed,
        {agent: (ballot.gradient.tobytes(), ballot.report) for agent, ballot in known.ballots.items()},
        {number: store.parameters(number).tobytes() for number in store.state_rounds()}, store.votes(),
        store.vote_digests(1), store.vote_digest(2, 1), store.last_votes(), store.verdict_counts(), store.conflicts(),
        store.unevaluated(),
    )  # fmt: skip


def read(path: Path) -> object:
    with closing(Store.read(path)) as store:
        return everything(store)


def resume(path: Path) -> object:
    with closing(Store.open(path)) as store:
        return everything(store)


def whole(folder: Path, files: Files) -> object:
    lay_out(folder, files)
    return read(folder / STORE_NAME)


def flip(content: bytes, position: int, bit: int) -> bytes:
    changed = bytearray(content)
    changed[position] ^= 1 << bit
    return bytes(changed)


def outcomes(folder: Path, files: Files, name: str, step: int) -> tuple[int, int]:
    """Flip a bit of every `step`-th byte, read, resume; how often that changed nothing, how often it was refused."""
    expected = whole(folder, files)
    draw = random.Random(name)
    harmless = refused = 0
    for position in range(0, len(files[name]), step):
        damaged = {**files, name: flip(files[name], position, draw.randrange(8))}
        for use in (read, resume):
            lay_out(folder, damaged)
            try:
                assert use(folder / STORE_NAME) == expected, f"byte {position} of {name}"
                harmless += 1
            except StorageError:
                refused += 1
    return harmless, refused


STEP = int(os.environ.get("FEDPG_DAMAGE_STEP", "11"))
"""1 tries every byte."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory, where there is such a thing: thousands of stores are written."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


@pytest.mark.parametrize("name", [STORE_NAME, WAL_NAME, MARK_NAME])
def test_any_flipped_bit_of_a_killed_run(folder: Path, killed: Files, name: str) -> None:
    harmless, refused = outcomes(folder, killed, name, 1 if name == MARK_NAME else STEP)
    assert harmless > 0
    assert (refused == 0) is (name == MARK_NAME), "one place of the mark is enough"


@pytest.mark.parametrize("name", [STORE_NAME, MARK_NAME])
def test_any_flipped_bit_of_a_closed_run(folder: Path, closed: Files, name: str) -> None:
    harmless, refused = outcomes(folder, closed, name, 1 if name == MARK_NAME else STEP)
    assert harmless > 0
    assert (refused == 0) is (name == MARK_NAME)


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(StorageError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_log_of_writes_that_is_missing_or_cut(folder: Path, killed: Files) -> None:
    without = {name: content for name, content in killed.items() if name != WAL_NAME}
    for cut in (
        without,
        {**killed, WAL_NAME: killed[WAL_NAME][:700]},
        {**killed, WAL_NAME: b""},
    ):
        for use in (read, resume):
            lay_out(folder, cut)
            (folder / "checkpoints").mkdir(exist_ok=True)
            (folder / "checkpoints" / "latest.safetensors").touch()
            text = refusal(partial(use, folder / STORE_NAME))
            assert "has lost answers of that round" in text
            assert "-wal" in text
            assert "checkpoints/" in text, "it says what is left"


def test_a_store_of_an_earlier_moment(tmp_path: Path) -> None:
    path = tmp_path / STORE_NAME
    store = Store.create(path, "run-1", DESCRIPTION, state_of(0))
    write_rounds(store, 1, 1)
    store.close()
    earlier = files_of(tmp_path)
    with closing(Store.open(path)) as store:
        write_rounds(store, 2, 4)
    path.write_bytes(earlier[STORE_NAME])
    for use in (read, resume):
        assert "it is as it was after round 1, but had got to round 4" in refusal(partial(use, path))


def test_another_runs_store(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Store.create(tmp_path / name / STORE_NAME, f"run-{name}", DESCRIPTION, state_of(0)).close()
    shutil.copy(tmp_path / "a" / STORE_NAME, tmp_path / "b" / STORE_NAME)
    assert "does not belong to run.mark" in refusal(lambda: resume(tmp_path / "b" / STORE_NAME))


def test_a_mark_that_is_missing(folder: Path, killed: Files, closed: Files, caplog: pytest.LogCaptureFixture) -> None:
    for files in (killed, closed):
        expected = whole(folder, files)
        lay_out(folder, {name: content for name, content in files.items() if name != MARK_NAME})
        assert read(folder / STORE_NAME) == expected, "a sound copy can be read"
    with caplog.at_level(logging.WARNING):
        resume(folder / STORE_NAME)
    assert "run.mark is missing" in caplog.text
    assert (folder / MARK_NAME).exists(), "and is there again"
    lay_out(folder, {name: content for name, content in killed.items() if name != MARK_NAME})
    assert "cannot be told" in refusal(lambda: resume(folder / STORE_NAME))


def test_a_mark_that_is_damaged_altogether(folder: Path, closed: Files) -> None:
    lay_out(folder, {**closed, MARK_NAME: b"?" * len(closed[MARK_NAME])})
    assert "run.mark is damaged" in refusal(lambda: resume(folder / STORE_NAME))


def test_a_server_that_dies_before_it_has_marked_what_it_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / STORE_NAME
    store = Store.create(path, "run-1", DESCRIPTION, state_of(0))
    write_rounds(store, 1, 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        assert "cannot be used" in refusal(lambda: store.commit([vote(2, 1)]))
    store.close()
    with closing(Store.open(path)) as store:
        assert list(store.recall_round(2).digests) == [1], "it was not answered, and may be there"


def fail(*_arguments: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_what_is_sound_is_said(tmp_path: Path) -> None:
    path = tmp_path / STORE_NAME
    with closing(Store.create(path, "run-1", DESCRIPTION, state_of(0))) as store:
        write_rounds(store, 1, 4)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE rounds SET record = replace(record, '1', '2') WHERE round = 3")
    assert "the record of round 3 has changed; rounds 1 to 2 are sound" in refusal(lambda: read(path))


def test_a_text_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / STORE_NAME
    Store.create(path, "run-1", DESCRIPTION, state_of(0)).close()
    for broken in ("CAST(x'ff80' AS TEXT)", "NULL", "x'ff'", "1.5"):
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("DELETE FROM verdicts")
            connection.execute("INSERT INTO conflicts VALUES (1, 1, x'00') ON CONFLICT DO NOTHING")
            connection.execute(f"INSERT OR REPLACE INTO rounds VALUES (1, 1, x'00', {broken}, {broken})")
        assert "damaged" in refusal(lambda: read(path)) or "cannot be used" in refusal(lambda: read(path))


# While a server runs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [STORE_NAME, WAL_NAME, MARK_NAME])
@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_file_that_is_removed_or_replaced(tmp_path: Path, name: str, is_replaced: bool) -> None:
    store = Store.create(tmp_path / STORE_NAME, "run-1", DESCRIPTION, state_of(0))
    write_rounds(store, 1, 1)
    if is_replaced:
        shutil.copy(tmp_path / name, tmp_path / "copy")
        os.replace(tmp_path / "copy", tmp_path / name)
    else:
        (tmp_path / name).unlink()
    text = refusal(lambda: write_rounds(store, 2, 2))
    assert f"{name} has been {'replaced' if is_replaced else 'removed'}" in text
    store.close()


def test_a_folder_that_is_moved_away(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    store = Store.create(tmp_path / "run" / STORE_NAME, "run-1", DESCRIPTION, state_of(0))
    os.replace(tmp_path / "run", tmp_path / "moved")
    assert "has been removed" in refusal(lambda: write_rounds(store, 1, 1))
    store.close()


def test_a_lock_file_that_is_deleted_frees_no_run(tmp_path: Path) -> None:
    path = tmp_path / STORE_NAME
    with closing(Store.create(path, "run-1", DESCRIPTION, state_of(0))) as store:
        path.with_suffix(".lock").unlink()
        assert "in use by another server" in refusal(lambda: Store.open(path))
        assert Store.is_live(path)
        write_rounds(store, 1, 1)
    Store.open(path).close()


def test_where_folders_cannot_be_locked_the_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = fcntl.flock

    def refuse_folders(file: int, operation: int) -> None:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(errno.EBADF, "no lock on a folder")
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", refuse_folders)
    path = tmp_path / STORE_NAME
    with closing(Store.create(path, "run-1", DESCRIPTION, state_of(0))):
        assert "in use by another server" in refusal(lambda: Store.open(path))
        assert Store.is_live(path)
    assert not Store.is_live(path)


def write_until_told(folder: Path, stop: Event, ready: Event) -> None:
    """A server's writes without a pause, in a process of its own."""
    with closing(Store.open(folder / STORE_NAME)) as store:
        number = 0
        while not stop.is_set():
            number = min(number + 1, 200)
            if number == 200:
                store.commit([VerdictRow(1, Verdict.DUPLICATE)])
                continue
            write_rounds(store, number, number)
            ready.set()


def test_a_live_run_is_never_taken_for_a_damaged_one(tmp_path: Path) -> None:
    folder = tmp_path  # on a disk, where a reader meets a write that is under way
    Store.create(folder / STORE_NAME, "run-1", DESCRIPTION, state_of(0)).close()
    context = multiprocessing.get_context("spawn")
    stop, ready = context.Event(), context.Event()
    writer = context.Process(target=write_until_told, args=(folder, stop, ready))
    writer.start()
    try:
        assert ready.wait(300)
        seen = [len(records_of(folder / STORE_NAME)) for _ in range(25)]
    finally:
        stop.set()
        writer.join()
    assert seen == sorted(seen)
    assert len(records_of(folder / STORE_NAME)) >= seen[-1]


def records_of(path: Path) -> list[RoundRecord]:
    with closing(Store.read(path)) as store:
        return store.records()
