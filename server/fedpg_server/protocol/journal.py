"""Persist before answering: the coordinator's effects, stored in batches, and only then answered.

Effects gather for a moment, and while a transaction is being written, so that a thousand votes take some dozens of
transactions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from fedpg_common.transport.verdicts import Verdict

from fedpg_server.protocol.events import Answer, CloseRound, CountVerdict, Effect, StoreConflict, StoreVote
from fedpg_server.storage.rows import Ballot, ClosedRow, ConflictRow, Row, VerdictRow, VoteRow

GATHER_S = 0.05
"""How long a verdict waits for others to share its transaction. The vote that completes a round does not wait.

Nobody misses a verdict meanwhile: whoever has voted has nothing to do until the round is closed. A transaction costs
the disk two writes that are waited for, and one just before a round's end would delay that by as much.
"""


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
        """The open round's votes by agent, as far as they are on disk. To be replaced when a round is opened."""
        self._commit = commit
        self._carry_out = carry_out
        self._tickets = 0
        self._waiting: dict[int, _Waiting] = {}
        self._effects: list[Effect | _StoreRow] = []
        self._has_effects = asyncio.Event()
        self._hurry = asyncio.Event()
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
        if effects:
            self._effects += effects
            self._has_effects.set()
        if any(isinstance(effect, CloseRound) for effect in effects):
            self._hurry.set()

    async def store(self, row: Row) -> None:
        """Have a row stored that nobody is in a hurry for: it shares the transaction of the next verdicts.

        Returns when it is on disk.
        """
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._effects.append(_StoreRow(row, stored))
        self._has_effects.set()
        await stored

    async def write(self) -> None:
        """Store what has gathered in one transaction, then answer; over and over. Raises what `commit` raises."""
        while True:
            await self._has_effects.wait()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), GATHER_S)
            effects, self._effects = self._effects, []
            self._has_effects.clear()
            self._hurry.clear()
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
            case StoreVote(ticket, agent):
                self.ballots[agent] = self._ballot(ticket)
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
    """When to carry out an effect that is stored: what the learner waits for comes before what agents wait for.

    Answering them takes the event loop as long as improving takes the learner, in whose thread it then happens.
    """
    match effect:
        case StoreVote() | _StoreRow():
            return 0
        case CloseRound():
            return 1
        case Answer():
            return 2
    return 3
