"""One run from its first round to its last: drives the coordinator, the store and the learner.

All state is touched from the event loop alone. The store and the learner work in a thread each, so that the service
keeps answering.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, Protocol, TypeVar, runtime_checkable

from fedpg.v1 import federation_pb2 as pb
from fedpg_common.derived_seeds import agent_seed
from fedpg_common.federation import Federation
from fedpg_common.learning.aggregators import RoundPlan
from fedpg_common.learning.parameters import ParameterSpec, Vector
from fedpg_common.learning.recursion import Recursion
from fedpg_common.transport import wire
from fedpg_common.transport.verdicts import Verdict

from fedpg_server.evaluations import Evaluations
from fedpg_server.learning.learner import RoundResult
from fedpg_server.learning.make_record import make_record
from fedpg_server.learning.records import Evaluation, RoundRecord
from fedpg_server.learning.sizes import claims_of
from fedpg_server.learning.state import State
from fedpg_server.observers.base import Observer, Observers
from fedpg_server.protocol import events
from fedpg_server.protocol.board import ENDED, RoundBoard
from fedpg_server.protocol.coordinator import LOST_FOR_THE_ROUND, Coordinator, Presence
from fedpg_server.protocol.gathering import GRACE_S
from fedpg_server.protocol.journal import Journal
from fedpg_server.protocol.polls import PollLimit
from fedpg_server.protocol.restoring import restore_coordinator
from fedpg_server.protocol.status import describe_round
from fedpg_server.sparse_log import SparseLog
from fedpg_server.storage.rows import Ballot, RecalledRound, Row
from fedpg_server.storage.store import Store

P = ParamSpec("P")
T = TypeVar("T")

LINGER_MAX_S = 10.0
"""How long an ended run waits for its agents to hear of it."""

log = logging.getLogger(__name__)


class RoundLearner(Protocol):
    """What a run needs of the learner."""

    def plan(self, round_number: int) -> RoundPlan:
        """The round's random choices."""

    def improve(self, state: State, plan: RoundPlan, updates: Mapping[int, Vector]) -> RoundResult:
        """Filter and improve; evaluate where the next round depends on it.

        Finite vectors cause nothing but the UsageError of a part that is not ours.
        """

    def evaluate(self, theta: Vector, round_number: int) -> Evaluation:
        """How good θ (d,) is, the policy after that round. Follows from the arguments alone."""


@runtime_checkable
class HandingOut(Protocol):
    """A learner whose rounds may hold more than θ_0."""

    round_vectors: int
    """How many vectors (d,) a round's message holds at most."""

    def recursion(self, state: State, plan: RoundPlan) -> Recursion | None:
        """What agents need beside θ_0."""


@runtime_checkable
class Counting(Protocol):
    """A learner that wants to know how many trajectories agents say they have sampled."""

    def improve_counting(
        self, state: State, plan: RoundPlan, updates: Mapping[int, Vector], claims: Mapping[int, int]
    ) -> RoundResult:
        """As `RoundLearner.improve`; claims by agent."""


class Run:
    """A federation's run. `serve` does the rounds; the other methods are the service's calls."""

    def __init__(
        self,
        federation: Federation,
        spec: ParameterSpec,
        store: Store,
        learner: RoundLearner,
        observers: Sequence[Observer],
        clock: Callable[[], float],
        learner_thread: ThreadPoolExecutor | None = None,
        joining_grace_s: float = GRACE_S,
    ) -> None:
        """Take up the run in `store` where it stopped. `clock` gives monotonic seconds.

        When a quorum has joined, the first round's clock waits `joining_grace_s` for each newcomer.
        The learner works in `learner_thread`, of one thread, which is shut down by whoever made it.
        """
        self.federation = federation
        self.spec = spec
        self._size = spec.size
        vectors = learner.round_vectors if isinstance(learner, HandingOut) else 1
        self._message_bytes = wire.message_bytes_max(spec.size, vectors)
        self.run_id = store.run_id
        self.records = store.records()
        """Of the rounds that have been evaluated; the latest improved one may be missing."""
        self._store = store
        self._learner = learner
        self._observers = Observers(observers)
        self._clock = clock
        self._started_s = clock()
        self._has_said_nan = False
        self._coordinator = restore_coordinator(federation, store, self.records, joining_grace_s)
        self._evaluations = Evaluations(self._evaluate, self._finish)
        self._trajectories = self.records[-1].trajectories_total if self.records else 0
        self._store_thread = ThreadPoolExecutor(1, "store")
        self._learner_thread = learner_thread or ThreadPoolExecutor(1, "learner")
        self._made_learner_thread = learner_thread is None
        self._taken_up = asyncio.Event()
        self._journal = Journal(self._commit, self._carry_out)
        self._closed = asyncio.Event()
        self._board = RoundBoard()
        self._polls = PollLimit(self._coordinator.count_cut_poll)
        self._wake: asyncio.TimerHandle | None = None
        self._refusals = SparseLog(log)

    # The rounds -------------------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Do rounds until the trajectory count is reached, then wait for the agents to leave.

        Raises StorageError when the store cannot be written; everything answered so far is in it.
        """
        works = (self._journal.write(), self._evaluations.work(), self._all_rounds())
        tasks = [asyncio.create_task(work) for work in works]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._journal.stop()
            self._board.close()
            self._taken_up.set()
            self._store_thread.shutdown()
            if self._made_learner_thread:
                self._learner_thread.shutdown()
            self._observers.close()

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
        self._feed(events.RunEnded())
        self._taken_up.set()
        self._board.post(ENDED)
        await self._linger()

    async def _one_round(self, round_number: int, state: State, known: RecalledRound) -> State:
        opened_s = self._clock()
        plan = self._learner.plan(round_number)
        await self._collect(plan, state, known)
        ballots = self._journal.ballots
        gradients = {agent: ballots[agent].gradient for agent in sorted(ballots)}
        reports = {agent: ballot.report for agent, ballot in ballots.items()}
        result = await self._in_learner(self._improve, state, plan, gradients, reports)
        await self._evaluations.done()  # the round before is complete by now; records are stored in their order
        record = make_record(
            result, plan, self.federation, reports, self._trajectories, seconds=self._clock() - opened_s
        )
        if result.evaluation is None:
            await self._in_store(self._store.improve_round, record, result.state)
            self._evaluate_beside(record, result.state)
        else:
            await self._finish(record, result.state.theta, result.state)
            self._trajectories = record.trajectories_total
        self._feed(events.RoundImproved(round_number, record.accepted, record.filtered))
        return result.state

    def _improve(
        self, state: State, plan: RoundPlan, gradients: Mapping[int, Vector], reports: Mapping[int, bytes]
    ) -> RoundResult:
        """In the learner's thread."""
        if not isinstance(self._learner, Counting):
            return self._learner.improve(state, plan, gradients)
        return self._learner.improve_counting(state, plan, gradients, claims_of(reports))

    def _evaluate_beside(self, record: RoundRecord, state: State) -> None:
        """Have an improved round evaluated while the next one is open."""
        self._trajectories = record.trajectories_total
        self._evaluations.add(record, state.theta)

    async def _evaluate(self, theta: Vector, round_number: int) -> Evaluation:
        return await self._in_learner(self._learner.evaluate, theta, round_number)

    async def _finish(self, record: RoundRecord, theta: Vector, state: State | None = None) -> None:
        """Record an evaluated round, and the state after it where that is not stored yet. Tell those who look on."""
        await self._in_store(self._store.finish_round, record, state)
        self.records.append(record)
        self._observers.record(record, theta)
        log.info(describe_round(record, self.federation.task.trajectories))
        if not (self._has_said_nan or math.isfinite(record.evaluation_return)):
            self._has_said_nan = True
            log.warning("round %d: the evaluation's return is %s: such a round is never the best (said once)",
                        record.round_number, record.evaluation_return)  # fmt: skip

    async def _collect(self, plan: RoundPlan, state: State, known: RecalledRound) -> None:
        """Open the round and wait until it is closed, on disk too. `known` is what an earlier process collected."""
        number = plan.round_number
        parameters = wire.vector_to_tensor(state.theta)
        parameters_digest = wire.tensor_digest(parameters)
        self._journal.ballots = known.ballots
        self._closed.clear()
        self._feed(events.RoundOpened(number, parameters_digest, known.digests, known.is_closed))
        self._taken_up.set()
        if known.is_closed:
            return
        round_ = pb.Round(
            number=number, batch_size=plan.batch_size, parameters=parameters, parameters_digest=parameters_digest
        )
        recursion = self._learner.recursion(state, plan) if isinstance(self._learner, HandingOut) else None
        if recursion is not None:
            round_.recursion.CopyFrom(wire.recursion_to_message(recursion))
        self._board.post(pb.AwaitRoundReply(state=pb.AwaitRoundReply.STATE_OPEN, round=round_))
        await self._closed.wait()
        self._board.clear()

    async def _linger(self) -> None:
        """Give the agents that are there time to hear that the run has ended."""
        deadline_s = self._clock() + LINGER_MAX_S
        while self._clock() < deadline_s and any(
            member.presence is Presence.JOINED for member in self._coordinator.members.values()
        ):
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.1)  # the last goodbye is still being answered

    # The calls --------------------------------------------------------------------------------------------------------

    def is_member(self, agent: int) -> bool:
        """Whether the federation has that agent."""
        return agent in self._coordinator.members

    def count_intrusion(self, owner: int | None) -> None:
        """Count a call whose certificate does not fit its message; `owner` is the agent whose certificate it is.

        The owner's row shows it as the verdict "not a member". It is stored, though nobody waits for that.
        """
        self._coordinator.intrusions += 1
        member = self._coordinator.members.get(owner or 0)
        if member is not None:
            member.calls += 1
            member.verdicts[Verdict.NOT_A_MEMBER] += 1
        agent = 0 if member is None or owner is None else owner
        self._journal.add([events.CountVerdict(agent, Verdict.NOT_A_MEMBER)])

    def count_unreadable(self) -> None:
        """Count a request that did not arrive whole or was no message."""
        self._coordinator.unreadable += 1

    def count_closed_connections(self, count: int) -> None:
        """Count connections that were closed because they were too many or made no call."""
        self._coordinator.connections_closed += count

    def join(self, agent: int) -> pb.JoinReply:
        """Admit a member."""
        self._feed(events.Joined(agent))
        speed = self.federation.speed_of(agent)
        return pb.JoinReply(
            run_id=self.run_id,
            task=wire.task_to_message(self.federation.task_of(agent)),
            parameters=wire.spec_to_messages(self.spec),
            seed=agent_seed(self.federation.seed, agent),
            agents=self.federation.agents,
            message_bytes_max=self._message_bytes,
            trajectories=speed.trajectories or 0,
            min_trajectories=speed.min_trajectories or 0,
        )

    def leave(self, agent: int) -> None:
        """Note that a member is gone."""
        self._feed(events.Left(agent))

    def fail(self, agent: int, why: str) -> str:
        """Note that a member has failed, `why` in its own words; gives them as they are kept."""
        self._feed(events.Failed(agent, why))
        return self._coordinator.members[agent].failure

    async def await_round(self, agent: int, after_round: int, wait_s: float) -> pb.AwaitRoundReply:
        """See `RoundBoard.wait` and `PollLimit`. Raises RunStoppedError."""
        self._feed(events.Seen(agent))
        reply = await self._polls.hold(agent, self._board.wait(after_round, wait_s))
        if reply.state == pb.AwaitRoundReply.STATE_OPEN:
            # The message is the same for all, for it may be large; whoever is sent it next is told the time of now.
            reply.time_left_s = self._coordinator.time_left_s(self._clock())
        return reply

    async def submit(self, request: pb.SubmitUpdateRequest) -> Verdict:
        """Judge a submission; answered when the verdict is on disk. Raises RunStoppedError."""
        await self._taken_up.wait()  # until then, a restarted server does not know which round is open
        gradient_digest = wire.tensor_digest(request.gradient)
        ballot, defect = self._read(request, gradient_digest)
        stored = None
        if ballot is not None and self.is_member(request.agent) and request.round < self._coordinator.round_number:
            stored = await self._in_store(self._store.vote_digest, request.round, request.agent)
        ticket, answer = self._journal.take(ballot)
        self._feed(
            events.Submitted(
                ticket, request.agent, request.round, request.parameters_digest, gradient_digest, defect, stored
            )
        )
        verdict = await answer
        if verdict in LOST_FOR_THE_ROUND:
            who = f"agent {request.agent}" if self.is_member(request.agent) else "a stranger"
            message = f"refused a gradient of {who} for round {request.round}: {verdict.label}"
            self._refusals.write(logging.WARNING, f"{who} {verdict.label}", message)
        return verdict

    def _read(
        self, request: pb.SubmitUpdateRequest, gradient_digest: bytes
    ) -> tuple[Ballot, None] | tuple[None, Verdict]:
        """What a submission contains, or what is wrong with it."""
        if request.run_id != self.run_id:
            return None, Verdict.WRONG_RUN
        if request.ByteSize() > self._message_bytes:
            return None, Verdict.TOO_LARGE
        if request.gradient_digest != gradient_digest:
            return None, Verdict.DAMAGED
        try:
            gradient = wire.tensor_to_vector(request.gradient, self._size)
        except wire.WrongShapeError:
            return None, Verdict.WRONG_SHAPE
        except wire.NotFiniteError:
            return None, Verdict.NOT_FINITE
        request.report.DiscardUnknownFields()  # votes are kept
        return Ballot(gradient, request.report.SerializeToString()), None

    def _feed(self, event: events.Event) -> None:
        self._journal.add(self._coordinator.step(event, self._clock()))

    async def _commit(self, rows: Sequence[Row]) -> None:
        await self._in_store(self._store.commit, rows)

    def _carry_out(self, effect: events.Effect) -> None:
        """What is left of an effect once it is stored and answered."""
        match effect:
            case events.CloseRound():
                self._closed.set()
            case events.WakeAt(time_s):
                self._wake_at(time_s)
            case events.Warn(message):
                log.warning(message)

    def _wake_at(self, time_s: float) -> None:
        if self._wake is not None:
            self._wake.cancel()
        delay_s = max(0.0, time_s - self._clock())
        self._wake = asyncio.get_running_loop().call_later(delay_s, self._feed, events.Tick())

    async def _in_store(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        work = partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._store_thread, work)

    async def _in_learner(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        work = partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._learner_thread, work)

    # Status -----------------------------------------------------------------------------------------------------------

    @property
    def coordinator(self) -> Coordinator:
        """For status, read-only."""
        return self._coordinator

    @property
    def members(self) -> tuple[int, ...]:
        """The federation's agents."""
        return tuple(self._coordinator.members)

    @property
    def uptime_s(self) -> float:
        """Time that this process has served the run."""
        return self._clock() - self._started_s

    def now_s(self) -> float:
        """The run's clock."""
        return self._clock()
