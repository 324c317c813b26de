"""One run from its first round to its last: drives the coordinator, the store and the learner.

All state is touched from the event loop alone. The store and the learner work in a thread each, so that the service
keeps answering.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from fedpg.v1 import federation_pb2 as pb
from fedpg_common.federation import Federation
from fedpg_common.learning.aggregators import RoundPlan
from fedpg_common.learning.parameters import ParameterSpec, Vector
from fedpg_common.transport import wire

from fedpg_server.evaluations import Evaluations
from fedpg_server.learning.make_record import make_record
from fedpg_server.learning.records import Evaluation, RoundRecord
from fedpg_server.learning.round_learner import RoundLearner, improve, recursion_of, round_vectors_of
from fedpg_server.learning.state import State
from fedpg_server.observers.base import Observer, Observers
from fedpg_server.protocol import events
from fedpg_server.protocol.board import ENDED, RoundBoard
from fedpg_server.protocol.coordinator import Coordinator, Presence
from fedpg_server.protocol.driver import Driver
from fedpg_server.protocol.gathering import GRACE_S
from fedpg_server.protocol.restoring import restore_coordinator
from fedpg_server.recorded_rounds import RecordedRounds
from fedpg_server.run_calls import RunCalls, ServedRun
from fedpg_server.storage.rows import FinishedRow, ImprovedRow, RecalledRound, Row
from fedpg_server.storage.store import Store
from fedpg_server.threads import run_in

P = ParamSpec("P")
T = TypeVar("T")

LINGER_MAX_S = 10.0
"""How long an ended run waits for its agents to hear of it."""
COPY_BACK_EVERY_S = 1.0
"""The log of writes is brought back in every round, but no sooner than this after the last time: it costs three writes
that wait for the disk, the last of them when the next transaction begins the log again."""


class Run:
    """A federation's run. `serve` does the rounds; `calls` are what the service asks of it meanwhile."""

    def __init__(
        self,
        federation: Federation,
        spec: ParameterSpec,
        store: Store,
        learner: RoundLearner,
        observers: Sequence[Observer],
        clock: Callable[[], float],
        learner_thread: Executor | None = None,
        joining_grace_s: float = GRACE_S,
        records: list[RoundRecord] | None = None,
    ) -> None:
        """Take up the run in `store` where it stopped. `clock` gives monotonic seconds.

        `records` are those in the store, to be added to; None reads them, which takes seconds for a long run.
        When a quorum has joined, the first round's clock waits `joining_grace_s` for each newcomer.
        The learner works in `learner_thread`, of one thread, which is shut down by whoever made it.
        """
        self.federation = federation
        self.run_id = store.run_id
        self._store = store
        self._learner = learner
        self._clock = clock
        records = store.records() if records is None else records
        self._recorded = RecordedRounds(records, federation.task.trajectories, Observers(observers))
        self._driver = Driver(restore_coordinator(federation, store, records, joining_grace_s), self._commit, clock)
        self._board = RoundBoard()
        self._evaluations = Evaluations(self._evaluate, self._finish)
        self._trajectories = records[-1].trajectories_total if records else 0
        self._copied_back_s = -COPY_BACK_EVERY_S
        self._store_thread = ThreadPoolExecutor(1, "store")
        self._learner_thread = learner_thread or ThreadPoolExecutor(1, "learner")
        self._made_learner_thread = learner_thread is None
        message_bytes = wire.message_bytes_max(spec.size, round_vectors_of(learner))
        served = ServedRun(self.run_id, federation, spec, message_bytes, started_s=clock())
        self.calls = RunCalls(served, self._driver, self._board, self._recorded, self._stored_vote)

    @property
    def records(self) -> list[RoundRecord]:
        """Of the rounds that have been evaluated; the latest improved one may be missing."""
        return self._recorded.records

    @property
    def coordinator(self) -> Coordinator:
        """To look at."""
        return self._driver.coordinator

    async def serve(self) -> None:
        """Do rounds until the trajectory count is reached, then wait for the agents to leave.

        Raises StorageError when the store cannot be written; everything answered so far is in it.
        """
        works = (self._driver.journal.write(), self._evaluations.work(), self._all_rounds())
        tasks = [asyncio.create_task(work) for work in works]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._driver.journal.stop()
            self._board.close()
            self.calls.take_submissions()  # those that wait are told that the run has stopped
            self._store_thread.shutdown()
            if self._made_learner_thread:
                self._learner_thread.shutdown()
            self._recorded.close()

    async def _all_rounds(self) -> None:
        round_number, state = await self._in_store(self._store.latest_state)
        known = await self._in_store(self._store.recall_round, round_number + 1)
        if (unevaluated := await self._in_store(self._store.unevaluated)) is not None:
            self._evaluate_beside(unevaluated, state)
        while self._trajectories < self.federation.task.trajectories:
            round_number += 1
            state = await self._one_round(round_number, state, known)
            known = RecalledRound()
        await self._evaluations.done()
        self._driver.feed(events.RunEnded())
        self.calls.take_submissions()
        self._board.post(ENDED)
        await self._linger()

    async def _one_round(self, round_number: int, state: State, known: RecalledRound) -> State:
        opened_s = self._clock()
        plan = self._learner.plan(round_number)
        await self._collect(plan, state, known)
        ballots = self._driver.journal.ballots
        gradients = {agent: ballots[agent].gradient for agent in sorted(ballots)}
        reports = {agent: ballot.report for agent, ballot in ballots.items()}
        result = await self._in_learner(improve, self._learner, state, plan, gradients, reports)
        record = make_record(
            result, plan, self.federation, reports, self._trajectories, seconds=self._clock() - opened_s
        )
        await self._evaluations.all_evaluated()  # the round before is complete by now: its record is stored before
        if result.evaluation is None:
            await self._driver.journal.store(ImprovedRow(record, result.state), at_once=True)
            self._evaluate_beside(record, result.state)
        else:
            self._trajectories = record.trajectories_total
            await self._finish(record, result.state.theta, result.state)
        self._driver.feed(events.RoundImproved(round_number, record.accepted, record.filtered))
        return result.state

    def _evaluate_beside(self, record: RoundRecord, state: State) -> None:
        """Have an improved round evaluated while the next one is open."""
        self._trajectories = record.trajectories_total
        self._evaluations.add(record, state.theta)

    async def _evaluate(self, theta: Vector, round_number: int) -> Evaluation:
        return await self._in_learner(self._learner.evaluate, theta, round_number)

    def _finish(self, record: RoundRecord, theta: Vector, state: State | None = None) -> Awaitable[None]:
        """Store an evaluated round, and the state after it where that is not stored yet; then record it.

        If another round follows, the record shares the transaction that closes that one.
        """
        is_last = self._trajectories >= self.federation.task.trajectories
        stored = self._driver.journal.store(FinishedRow(record, state), at_once=is_last or state is not None)
        return self._record(stored, record, theta)

    async def _record(self, stored: Awaitable[None], record: RoundRecord, theta: Vector) -> None:
        await stored
        self._recorded.add(record, theta)

    async def _collect(self, plan: RoundPlan, state: State, known: RecalledRound) -> None:
        """Open the round and wait until it is closed. `known` is what an earlier process collected."""
        number = plan.round_number
        parameters = wire.vector_to_tensor(state.theta)
        parameters_digest = wire.tensor_digest(parameters)
        self._driver.open_round(number, parameters_digest, known)
        self.calls.take_submissions()
        if known.is_closed:
            return
        round_ = pb.Round(
            number=number, batch_size=plan.batch_size, parameters=parameters, parameters_digest=parameters_digest
        )
        recursion = recursion_of(self._learner, state, plan)
        if recursion is not None:
            round_.recursion.CopyFrom(wire.recursion_to_message(recursion))
        self._board.post(pb.AwaitRoundReply(state=pb.AwaitRoundReply.STATE_OPEN, round=round_))
        await self._copy_back()  # while the agents work
        await self._driver.round_closed.wait()
        self._board.clear()

    async def _copy_back(self) -> None:
        """Bring the log of writes back into the store's file, unless that was done a moment ago."""
        if (now_s := self._clock()) >= self._copied_back_s + COPY_BACK_EVERY_S:
            self._copied_back_s = now_s
            await self._in_store(self._store.copy_back)

    async def _linger(self) -> None:
        """Give the agents that are there time to hear that the run has ended."""
        deadline_s = self._clock() + LINGER_MAX_S
        while self._clock() < deadline_s and any(
            member.presence is Presence.JOINED for member in self.coordinator.members.values()
        ):
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.1)  # the last goodbye is still being answered

    async def _commit(self, rows: Sequence[Row]) -> None:
        await self._in_store(self._store.commit, rows)

    async def _stored_vote(self, round_number: int, agent: int) -> bytes | None:
        return await self._in_store(self._store.vote_digest, round_number, agent)

    async def _in_store(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await run_in(self._store_thread, function, *args, **kwargs)

    async def _in_learner(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await run_in(self._learner_thread, function, *args, **kwargs)
