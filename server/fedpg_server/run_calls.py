"""What a run answers to the service's calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fedpg.v1 import federation_pb2 as pb
from fedpg_common.derived_seeds import agent_seed
from fedpg_common.federation import Federation
from fedpg_common.learning.parameters import ParameterSpec
from fedpg_common.transport import wire
from fedpg_common.transport.verdicts import Verdict

from fedpg_server.protocol import events
from fedpg_server.protocol.board import RoundBoard
from fedpg_server.protocol.coordinator import LOST_FOR_THE_ROUND
from fedpg_server.protocol.driver import Driver
from fedpg_server.protocol.polls import PollLimit
from fedpg_server.protocol.status import make_status
from fedpg_server.recorded_rounds import RecordedRounds
from fedpg_server.sparse_log import SparseLog
from fedpg_server.storage.rows import Ballot

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedRun:
    """What stays the same about a run while it is served."""

    run_id: str
    federation: Federation
    spec: ParameterSpec
    message_bytes_max: int
    """Of a message with a round or a submission."""
    started_s: float
    """When this process took the run up, on the run's clock."""


class RunCalls:
    """The calls to one run. Each gives events to the coordinator. For the event loop alone."""

    def __init__(
        self,
        served: ServedRun,
        driver: Driver,
        board: RoundBoard,
        recorded: RecordedRounds,
        stored_vote: Callable[[int, int], Awaitable[bytes | None]],
    ) -> None:
        """`stored_vote` looks up the digest of the vote for a round (first) by an agent (second) in the store."""
        self.run_id = served.run_id
        self._served = served
        self._size = served.spec.size
        self._driver = driver
        self._board = board
        self._recorded = recorded
        self._stored_vote = stored_vote
        self._coordinator = driver.coordinator
        self._polls = PollLimit(self._coordinator.count_cut_poll)
        self._knows_round = asyncio.Event()
        self._refusals = SparseLog(log)

    def take_submissions(self) -> None:
        """Judge them from now on: a server that has just started does not know before which round is open."""
        self._knows_round.set()

    @property
    def members(self) -> tuple[int, ...]:
        """The federation's agents."""
        return tuple(self._coordinator.members)

    def is_member(self, agent: int) -> bool:
        """Whether the federation has that agent."""
        return agent in self._coordinator.members

    def count_intrusion(self, owner: int | None) -> None:
        """Count a call whose certificate does not fit its message; `owner` is the agent whose certificate it is.

        The owner's row shows it as the verdict "not a member". It is stored, though nobody waits for that.
        """
        self._driver.journal.add(self._coordinator.count_intrusion(owner))

    def count_unreadable(self) -> None:
        """Count a request that did not arrive whole or was no message."""
        self._coordinator.unreadable += 1

    def count_closed_connections(self, count: int) -> None:
        """Count connections that were closed because they were too many or made no call."""
        self._coordinator.connections_closed += count

    def join(self, agent: int) -> pb.JoinReply:
        """Admit a member."""
        self._driver.feed(events.Joined(agent))
        federation = self._served.federation
        speed = federation.speed_of(agent)
        return pb.JoinReply(
            run_id=self.run_id,
            task=wire.task_to_message(federation.task_of(agent)),
            parameters=wire.spec_to_messages(self._served.spec),
            seed=agent_seed(federation.seed, agent),
            agents=federation.agents,
            message_bytes_max=self._served.message_bytes_max,
            trajectories=speed.trajectories or 0,
            min_trajectories=speed.min_trajectories or 0,
        )

    def leave(self, agent: int) -> None:
        """Note that a member is gone."""
        self._driver.feed(events.Left(agent))

    def fail(self, agent: int, why: str) -> str:
        """Note that a member has failed, `why` in its own words; gives them as they are kept."""
        self._driver.feed(events.Failed(agent, why))
        return self._coordinator.members[agent].failure

    async def await_round(self, agent: int, after_round: int, wait_s: float) -> pb.AwaitRoundReply:
        """See `RoundBoard.wait` and `PollLimit`. Raises RunStoppedError."""
        self._driver.feed(events.Seen(agent))
        reply = self._board.news(after_round)
        if reply is None:
            reply = await self._polls.hold(agent, self._board.wait(after_round, wait_s))
        if reply.state == pb.AwaitRoundReply.STATE_OPEN:
            # The message is the same for all, for it may be large; whoever is sent it next is told the time of now.
            reply.time_left_s = self._coordinator.time_left_s(self._driver.now_s())
        return reply

    async def submit(self, request: pb.SubmitUpdateRequest) -> Verdict:
        """Judge a submission; answered when the verdict is on disk. Raises RunStoppedError."""
        await self._knows_round.wait()
        self._driver.journal.check_running()  # the store answers no more either
        gradient_digest = wire.tensor_digest(request.gradient)
        ballot, defect = self._read(request, gradient_digest)
        stored = None
        if ballot is not None and self.is_member(request.agent) and request.round < self._coordinator.round_number:
            stored = await self._stored_vote(request.round, request.agent)
        ticket, answer = self._driver.journal.take(ballot)
        self._driver.feed(
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
        if request.ByteSize() > self._served.message_bytes_max:
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

    def status(self, rounds_after: int | None) -> pb.GetStatusReply:
        """The run as an operator sees it, with the rounds after `rounds_after` where that is given."""
        now_s = self._driver.now_s()
        return make_status(
            self.run_id,
            self._served.federation,
            self._coordinator,
            self._recorded.records,
            self._recorded.totals.environment_steps,
            now_s,
            now_s - self._served.started_s,
            rounds_after,
        )
