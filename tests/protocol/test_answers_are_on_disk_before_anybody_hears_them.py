"""A verdict is answered after its transaction; verdicts share transactions, and a round's end waits for one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from fedpg_common.transport.verdicts import Verdict
from fedpg_server.protocol.events import Answer, CloseRound, Effect, StoreVote
from fedpg_server.protocol.journal import GATHER_S, LEARNER_S, Journal
from fedpg_server.storage.rows import Ballot, ClosedRow, FinishedRow, ImprovedRow, Row, VoteRow
from support.protocol import initial_state, make_round_record
from support.simulated_clock import VirtualLoop


class Disk:
    """Takes down what happens in which order, and when."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.times_s: list[float] = []
        self.journal = Journal(self.commit, self.carry_out)
        self.tasks: list[asyncio.Task[None]] = []

    async def commit(self, rows: Sequence[Row]) -> None:
        """Write rows, in a tenth of a second."""
        self.times_s.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.1)
        votes = [f"vote {row.agent}" for row in rows if isinstance(row, VoteRow)]
        finished = [f"round {row.record.round_number}" for row in rows if isinstance(row, FinishedRow)]
        closed = ["closed" for row in rows if isinstance(row, ClosedRow)]
        improved = ["improved" for row in rows if isinstance(row, ImprovedRow)]
        self.events += [*votes, *closed, *finished, *improved, "on disk"]

    def carry_out(self, effect: Effect) -> None:
        """What the journal leaves to others."""
        if isinstance(effect, CloseRound):
            assert self.journal.ballots  # the learner takes them from here
            self.events.append(f"learner with {len(self.journal.ballots)}")

    def vote(self, agent: int) -> None:
        """A vote comes in. Its answer is taken down."""
        ticket, answer = self.journal.take(Ballot(np.zeros(1, np.float32), b""))
        answer.add_done_callback(lambda _: self.events.append(f"answer {agent}"))
        self.journal.add([StoreVote(ticket, agent, 1, b"digest"), Answer(ticket, Verdict.ACCEPTED)])


def play(story: Callable[[Disk], None], disk: Disk, for_s: float = 1.0) -> None:
    """Let the journal write while the story, which plans what happens when, is played in virtual time."""

    async def main() -> None:
        writing = asyncio.create_task(disk.journal.write())
        story(disk)
        await asyncio.sleep(for_s)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)

    loop = VirtualLoop(lambda *_: None)
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def after(delay_s: float, action: Callable[..., None], *args: object) -> None:
    """Plan something."""
    asyncio.get_running_loop().call_later(delay_s, action, *args)


def close(disk: Disk, agent: int) -> None:
    """The vote that closes the round."""
    disk.vote(agent)
    disk.journal.add([CloseRound(1, (1, 2, 3))])


def test_votes_that_come_soon_after_each_other_share_a_transaction() -> None:
    disk = Disk()

    def story(disk: Disk) -> None:
        disk.vote(1)
        after(GATHER_S * 0.9, disk.vote, 2)
        after(GATHER_S * 1.1, disk.vote, 3)

    play(story, disk)
    assert disk.events == ["vote 1", "vote 2", "on disk", "answer 1", "answer 2", "vote 3", "on disk", "answer 3"]
    assert disk.times_s[0] == pytest.approx(GATHER_S)


def test_a_lone_vote_does_not_wait_for_long() -> None:
    disk = Disk()
    play(lambda disk: disk.vote(1), disk)
    assert disk.times_s == [pytest.approx(GATHER_S)]
    assert GATHER_S <= 0.1


def improve(disk: Disk) -> None:
    """The learner is done. That its result is on disk is taken down."""
    stored = disk.journal.store(ImprovedRow(make_round_record(1), initial_state()), at_once=True)
    stored.add_done_callback(lambda _: disk.events.append("next round"))


def test_the_vote_that_closes_a_round_takes_the_others_along() -> None:
    disk = Disk()

    def story(disk: Disk) -> None:
        disk.vote(1)
        disk.vote(2)
        after(GATHER_S / 10, close, disk, 3)

    play(story, disk)
    assert disk.events[:6] == ["learner with 3", "vote 1", "vote 2", "vote 3", "closed", "on disk"]
    assert disk.times_s == [pytest.approx(GATHER_S / 10 + LEARNER_S)]


def test_what_a_fast_learner_makes_of_the_votes_shares_their_transaction() -> None:
    disk = Disk()

    def story(disk: Disk) -> None:
        disk.vote(1)
        close(disk, 2)
        after(LEARNER_S / 2, improve, disk)

    play(story, disk)
    assert disk.events == ["learner with 2", "vote 1", "vote 2", "closed", "improved", "on disk", "next round",
                           "answer 1", "answer 2"]  # fmt: skip
    assert disk.times_s == [pytest.approx(LEARNER_S / 2)]


def test_votes_are_on_disk_and_answered_while_a_slow_learner_works() -> None:
    disk = Disk()

    def story(disk: Disk) -> None:
        disk.vote(1)
        close(disk, 2)
        after(0.5, improve, disk)

    play(story, disk)
    assert disk.events == ["learner with 2", "vote 1", "vote 2", "closed", "on disk", "answer 1", "answer 2",
                           "improved", "on disk", "next round"]  # fmt: skip
    assert disk.times_s == [pytest.approx(LEARNER_S), pytest.approx(0.5)]


def test_what_the_learner_makes_of_votes_is_never_on_disk_before_them() -> None:
    disk = Disk()

    def story(disk: Disk) -> None:
        disk.vote(1)
        after(GATHER_S + 0.05, close, disk, 2)  # while the first vote is written
        after(GATHER_S + 0.05, improve, disk)

    play(story, disk)
    assert disk.events == ["learner with 2", "vote 1", "on disk", "answer 1", "vote 2", "closed", "improved", "on disk",
                           "next round", "answer 2"]  # fmt: skip


def test_a_round_that_closes_while_a_transaction_is_written_waits_for_that_alone() -> None:
    disk = Disk()

    def story(disk: Disk) -> None:
        disk.vote(1)
        after(GATHER_S + 0.05, close, disk, 2)

    play(story, disk)
    assert disk.times_s == [pytest.approx(GATHER_S), pytest.approx(GATHER_S + 0.1)]


def finish(disk: Disk, number: int) -> None:
    """A round has been evaluated. That it is on disk is taken down."""

    async def store() -> None:
        await disk.journal.store(FinishedRow(make_round_record(number)))
        disk.events.append(f"round {number} is recorded")

    disk.tasks.append(asyncio.create_task(store()))


def test_an_evaluated_round_shares_the_transaction_that_closes_the_next_one() -> None:
    disk = Disk()

    def story(disk: Disk) -> None:
        finish(disk, 1)
        after(GATHER_S / 10, close, disk, 3)

    play(story, disk)
    assert disk.events == ["learner with 1", "vote 3", "closed", "round 1", "on disk", "round 1 is recorded",
                           "answer 3"]  # fmt: skip
    assert disk.times_s == [pytest.approx(GATHER_S / 10 + LEARNER_S)]


def test_an_evaluated_round_does_not_wait_for_long_when_nothing_else_happens() -> None:
    disk = Disk()
    play(lambda disk: finish(disk, 1), disk)
    assert disk.events == ["round 1", "on disk", "round 1 is recorded"]
    assert disk.times_s == [pytest.approx(GATHER_S)]
