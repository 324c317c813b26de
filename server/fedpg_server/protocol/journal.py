"""Persist before answering: the coordinator's effects, stored in batches, and only then answered.

Effects gather for a moment, and while a transaction is being written, so that a thousand votes take some dozens of
transactions. The learner begins with a closed round's votes at once: nobody hears of what it makes of them before that
is on disk as well, and after the votes or in one transaction with them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from fedpg_common.transport.verdicts import Verdict

from fedpg_server.protocol.events import Answer, CloseRound, CountVerdict, Effect, StoreConflict, StoreVote
from fedpg_server.storage.rows import Ballot, ClosedRow, ConflictRow, Row, VerdictRow, VoteRow

GATHER_S = 0.05
"""How long a verdict waits for others to share its transaction, at most.

Nobody misses a verdict meanwhile: whoever has voted has nothing to do until the round is closed. A transaction costs
the disk two writes that are waited for, and one just before a round's end would delay that by as much.
"""
LEARNER_S = 0.02
"""How long the votes of a closed round wait for what the learner makes of them, to share its transaction, at most.

A learner that takes longer works while the votes are written. Either way the next round waits for one transaction."""


class RunStoppedError(Exception):
    """The run stopped before it could answer."""


@dataclass
class _Waiting:
    """A submission whose verdict is not on disk yet."""

    ballot: Ballot | None
    """None if the gradient is defective."""
    answer: asyncio.Future[Verdict]


@dataclass
class _StoreRow:
    """What a run has to store beside the coordinator's effects."""

    row: Row
    stored: asyncio.Future[None]


class Journal:
    """Carries effects out in their right order. To be used from the event loop alone."""

    def __init__(self, commit: Callable[[Sequence[Row]], Awaitable[None]], carry_out: Callable[[Effect], None]) -> None:
        """`commit` writes rows in one transaction; `carry_out` does what is neither to be stored nor to be answered."""
        self.ballots: dict[int, Ballot] = {}
        """The open round's votes by agent, on disk or on their way there. To be replaced when a round is opened."""
        self._commit = commit
        self._carry_out = carry_out
        self._tickets = 0
        self._waiting: dict[int, _Waiting] = {}
        self._effects: list[Effect | _StoreRow] = []
        self._is_due = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        """Runs while effects wait for their transaction, and sets `_is_due`."""
        self._is_stopped = False

    def check_running(self) -> None:
        """Raise RunStoppedError if the run has stopped."""
        if self._is_stopped:
            raise RunStoppedError

    def take(self, ballot: Ballot | None) -> tuple[int, asyncio.Future[Verdict]]:
        """A ticket for a submission, and the future of its verdict; None stands for a defective ballot.

        The future raises RunStoppedError if the run stops before.
        """
        self._tickets += 1
        waiting = _Waiting(ballot, asyncio.get_running_loop().create_future())
        if self._is_stopped:
            waiting.answer.set_exception(RunStoppedError())
        self._waiting[self._tickets] = waiting
        return self._tickets, waiting.answer

    def add(self, effects: Sequence[Effect]) -> None:
        """Have these effects carried out soon."""
        if not effects:
            return
        self._effects += effects
        self._write_soon()
        for effect in effects:
            if isinstance(effect, StoreVote):
                self.ballots[effect.agent] = self._ballot(effect.ticket)
            elif isinstance(effect, CloseRound):
                self._set_timer(LEARNER_S)
                self._carry_out(effect)

    def store(self, row: Row, at_once: bool = False) -> asyncio.Future[None]:
        """Have a row stored, after those that are waiting or with them. The result is there when it is on disk.

        Unless `at_once`, it waits for the transaction of the next verdicts.
        """
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._effects.append(_StoreRow(row, stored))
        if at_once:
            self._is_due.set()
        else:
            self._write_soon()
        return stored

    def _write_soon(self) -> None:
        """Have the next transaction begin within GATHER_S, or as soon as the one before has ended."""
        if self._timer is None:
            self._set_timer(GATHER_S)

    def _set_timer(self, delay_s: float) -> None:
        """Have the next transaction begin then, whenever it was to begin until now."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._is_due.set)

    async def write(self) -> None:
        """Store what has gathered in one transaction, then answer; over and over. Raises what `commit` raises."""
        while True:
            await self._is_due.wait()
            self._is_due.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            effects, self._effects = self._effects, []
            if rows := list(self._rows(effects)):
                await self._commit(rows)
            for effect in sorted(effects, key=_turn):
                self._after_commit(effect)

    def stop(self) -> None:
        """Fail the calls whose verdicts will not be on disk; their senders try again when the run is resumed."""
        self._is_stopped = True
        for waiting in self._waiting.values():
            if not waiting.answer.done():
                waiting.answer.set_exception(RunStoppedError())
        self._waiting.clear()

    def _rows(self, effects: Sequence[Effect | _StoreRow]) -> Iterator[Row]:
        for effect in effects:
            match effect:
                case StoreVote(ticket, agent, round_number, digest):
                    yield VoteRow(round_number, agent, digest, self._ballot(ticket))
                case StoreConflict(agent, round_number, digest):
                    yield ConflictRow(round_number, agent, digest)
                case CountVerdict(agent, verdict):
                    yield VerdictRow(agent, verdict)
                case CloseRound(round_number):
                    yield ClosedRow(round_number)
                case _StoreRow(row):
                    yield row

    def _after_commit(self, effect: Effect | _StoreRow) -> None:
        match effect:
            case StoreVote() | CloseRound():
                pass
            case Answer(ticket, verdict):
                answer = self._waiting.pop(ticket).answer
                if not answer.done():  # the caller may have given up meanwhile
                    answer.set_result(verdict)
            case _StoreRow(_, stored):
                if not stored.done():  # likewise
                    stored.set_result(None)
            case _:
                self._carry_out(effect)

    def _ballot(self, ticket: int) -> Ballot:
        ballot = self._waiting[ticket].ballot
        assert ballot is not None  # the coordinator accepts no defective gradient
        return ballot


def _turn(effect: Effect | _StoreRow) -> int:
    """When to carry out an effect that is stored: what the next round waits for comes before what agents wait for."""
    match effect:
        case _StoreRow():
            return 0
        case Answer():
            return 1
    return 2
