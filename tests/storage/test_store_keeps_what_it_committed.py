"""What the store has committed is there when it is opened again, also after its process was killed with SIGKILL."""

from __future__ import annotations

import multiprocessing
import os
import signal
from contextlib import closing
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from fedpg_common.learning.parameters import Vector
from fedpg_common.transport.verdicts import Verdict
from fedpg_server.learning.state import ADAM_M, ADAM_V, THETA, State
from fedpg_server.storage.rows import Ballot, ClosedRow, ConflictRow, FinishedRow, VerdictRow, VoteRow
from fedpg_server.storage.store import Store
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.protocol import DESCRIPTION, digest_of_vector, make_round_record

SIZE = 6
VECTORS = hnp.arrays(np.float32, SIZE, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))


def state_of(value: float, steps: int = 0) -> State:
    theta = np.full(SIZE, value, np.float32)
    m, v = np.full(SIZE, value / 3, np.float32), np.full(SIZE, value**2, np.float32)
    return State({THETA: theta, ADAM_M: m, ADAM_V: v, "aggregator/centre": theta[:2] * 7}, steps)


def create(path: Path, state: State | None = None) -> Store:
    return Store.create(path, "run-1", DESCRIPTION, state or state_of(0.5))


def vote(round_number: int, agent: int, gradient: Vector | None = None, report: bytes = b"report") -> VoteRow:
    vector = np.full(SIZE, agent, np.float32) if gradient is None else gradient
    return VoteRow(round_number, agent, digest_of_vector(vector), Ballot(vector, report))


def same(left: State, right: State) -> bool:
    if left.steps != right.steps or set(left.vectors) != set(right.vectors):
        return False
    return all(vector.tobytes() == right.vectors[name].tobytes() for name, vector in left.vectors.items())


@settings(max_examples=25)
@given(theta=VECTORS, m=VECTORS, v=VECTORS, steps=st.integers(0, 2**40), gradient=VECTORS, report=st.binary())
def test_states_and_votes_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, theta: Vector, m: Vector, v: Vector, steps: int, gradient: Vector,
    report: bytes,
) -> None:  # fmt: skip
    path = tmp_path_factory.mktemp("store") / "run.sqlite"
    state = State({THETA: theta, ADAM_M: m, ADAM_V: v, "algorithm/a": v[:3], "algorithm/none": v[:0]}, steps)
    store = create(path, state)
    store.commit([vote(1, 2, gradient, report)])
    store.close()
    reopened = Store.open(path)
    assert (reopened.run_id, reopened.description) == ("run-1", DESCRIPTION)
    round_number, found = reopened.latest_state()
    assert round_number == 0
    assert same(found, state)
    assert reopened.parameters(0).tobytes() == theta.tobytes()
    known = reopened.recall_round(1)
    assert known.digests == {2: digest_of_vector(gradient)}
    assert known.ballots[2].gradient.tobytes() == gradient.tobytes()
    assert known.ballots[2].report == report
    reopened.close()


def test_votes_closings_conflicts_and_verdicts_come_back(tmp_path: Path) -> None:
    store = create(tmp_path / "run.sqlite")
    store.commit([vote(1, 3), vote(1, 1), ConflictRow(1, 3, b"other"), VerdictRow(3, Verdict.CONFLICT)])
    store.commit([VerdictRow(0, Verdict.NOT_A_MEMBER), VerdictRow(3, Verdict.CONFLICT), ConflictRow(1, 3, b"third")])
    store.commit([ClosedRow(1)])
    store.close()
    reopened = Store.open(tmp_path / "run.sqlite")
    known = reopened.recall_round(1)
    assert known.is_closed
    assert list(known.ballots) == [1, 3], "in the order of the agents"
    assert reopened.vote_digest(1, 3) == vote(1, 3).digest
    assert reopened.vote_digest(1, 2) is None
    assert reopened.verdict_counts() == {
        0: {Verdict.NOT_A_MEMBER: 1}, 1: {Verdict.ACCEPTED: 1}, 3: {Verdict.ACCEPTED: 1, Verdict.CONFLICT: 2},
    }  # fmt: skip
    assert reopened.conflicts() == [ConflictRow(1, 3, b"other")], "the first differing digest is evidence enough"
    assert reopened.last_votes() == {1: 1, 3: 1}


def test_records_and_the_latest_state_come_back_after_each_round(tmp_path: Path) -> None:
    store = create(tmp_path / "run.sqlite")
    records = [make_round_record(number, parameters_digest=f"{number:064x}") for number in (1, 2)]
    for record in records:
        store.commit([vote(record.round_number, 1), ClosedRow(record.round_number)])
        store.finish_round(record, state_of(record.round_number, steps=record.round_number))
    store.close()
    reopened = Store.open(tmp_path / "run.sqlite")
    assert reopened.records() == records
    round_number, state = reopened.latest_state()
    assert round_number == 2
    assert same(state, state_of(2, steps=2))
    assert reopened.parameters(1).tolist() == [1.0] * SIZE, "θ of every round is kept"
    assert reopened.vote_digest(1, 1) == vote(1, 1).digest, "and the digest of every vote"
    assert not reopened.recall_round(3).is_closed


def test_an_evaluated_round_is_the_same_in_the_transaction_that_closes_the_next_one(tmp_path: Path) -> None:
    """Records, kept parameters and seal do not depend on whom a finished round shares its transaction with."""
    for name in ("alone", "shared"):
        (tmp_path / name).mkdir()
    alone, shared = (create(tmp_path / name / "run.sqlite") for name in ("alone", "shared"))
    records = [make_round_record(number, evaluation_returns=(10.0 - number,)) for number in (1, 2, 3)]
    for store in (alone, shared):
        store.keep_parameters = 1
        for record in records:
            number = record.round_number
            store.commit([vote(number, 1), ClosedRow(number)])
            store.improve_round(replace(record, evaluation_returns=()), state_of(number))
            if store is alone:
                store.finish_round(record)
            else:
                store.commit([vote(number + 1, 2), VerdictRow(2, Verdict.DUPLICATE), FinishedRow(record)])
                store.copy_back()
        store.close()
    reopened = [Store.open(tmp_path / name / "run.sqlite") for name in ("alone", "shared")]
    for store in reopened:
        assert store.records() == records
        assert store.unevaluated() is None
        assert [number for number in range(4) if store.parameters_if_kept(number) is not None] == [0, 1, 3]
    assert list(reopened[1].recall_round(4).digests) == [2]


def test_a_failed_transaction_leaves_nothing_behind(tmp_path: Path) -> None:
    store = create(tmp_path / "run.sqlite")
    store.commit([vote(1, 1)])
    with pytest.raises(Exception, match="UNIQUE"):
        store.commit([vote(1, 2), vote(1, 1)])
    assert list(store.recall_round(1).digests) == [1]
    store.commit([vote(1, 2)])
    assert list(store.recall_round(1).digests) == [1, 2]


def test_a_reader_sees_what_the_server_commits_meanwhile(tmp_path: Path) -> None:
    store = create(tmp_path / "run.sqlite")
    reader = Store.read(tmp_path / "run.sqlite")
    store.finish_round(make_round_record(1), state_of(1.0))
    assert [record.round_number for record in reader.records()] == [1]


def commit_until_killed(path: Path, pipe: Connection) -> None:
    """Commits votes one by one and says so after each, like a server that answers."""
    store = Store.open(path)
    for agent in range(1, 10_000):
        store.commit([vote(1, agent)])
        pipe.send(agent)


def test_everything_committed_survives_sigkill(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    create(path).close()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=commit_until_killed, args=(path, theirs))
    process.start()
    theirs.close()
    answered = [ours.recv() for _ in range(25)]
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    while True:
        try:
            answered.append(ours.recv())
        except EOFError:
            break
    ballots = Store.open(path).recall_round(1).ballots
    assert set(answered) <= set(ballots), "what was answered is there"
    assert len(ballots) <= len(answered) + 1, "and at most the one vote more that was not answered yet"
    assert all(ballots[agent].gradient.tolist() == [agent] * SIZE for agent in ballots)


def test_a_commit_waits_for_the_disk(tmp_path: Path) -> None:
    create(tmp_path / "run.sqlite").close()
    with closing(Store.open(tmp_path / "run.sqlite")) as store:  # as a server opens it
        connection = store._connection
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
