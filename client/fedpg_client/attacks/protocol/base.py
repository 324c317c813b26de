"""The calls of an agent that attacks the protocol: an honest line to take part on, and one of its own to attack on."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, ClassVar

import grpc
import numpy as np
from fedpg.v1 import federation_pb2 as pb
from fedpg.v1 import federation_pb2_grpc
from fedpg_common.learning.streams import Purpose, Role, stream
from fedpg_common.transport.channels import open_channel
from fedpg_common.transport.verdicts import Verdict

from fedpg_client.attacks.base import Attack, Target
from fedpg_client.calls import make_submission
from fedpg_client.retry import describe

if TYPE_CHECKING:
    from fedpg_client.attacks.base import ClosableCalls

SEND_TIMEOUT_S = 5.0
"""Deadline of an attacking call. It is made once: an attacker does not insist."""
UNLIMITED_BYTES = -1

WITHHELD = pb.SubmitUpdateReply(
    verdict=pb.VERDICT_STALE_ROUND, message="The attacker keeps its vote to itself and awaits the next round."
)
"""What the agent's loop is told in place of a verdict where no vote was sent."""

log = logging.getLogger(__name__)


class ProtocolAttack(Attack):
    """An attack on the protocol. It overrides `on_submit` or `background_task`, or nothing at all.

    What the agent computes is honest. Every random draw follows from the agent's seed.
    """

    casts_vote: ClassVar[bool] = False
    """Whether the honest vote is cast, and then first."""

    def calls(self, line: ClosableCalls, target: Target) -> AttackerCalls:
        """The calls of an agent that takes part on `line` and attacks beside it."""
        return AttackerCalls(line, target, self)

    def on_submit(self, honest: pb.SubmitUpdateRequest, calls: AttackerCalls, rng: np.random.Generator) -> None:
        """Once per round, after the vote if one is cast. `honest` is the submission of an honest agent."""

    def background_task(self, calls: AttackerCalls, rng: np.random.Generator) -> None:
        """From the first Join on, in a thread of its own. To return soon after `calls.done` is set."""


class AttackerCalls:
    """An agent's calls that do harm, as its attack has it.

    What the server makes of it is logged and otherwise ignored.
    """

    def __init__(self, line: ClosableCalls, target: Target, attack: ProtocolAttack) -> None:
        """`line` is used for taking part, and not closed."""
        self.target = target
        self.done = threading.Event()
        """Set when it is time to end."""
        self.joined = pb.JoinReply()
        """The server's answer to the latest Join."""
        self.round_number = 0
        """The latest round that the agent has worked for."""
        self.attempts = 0
        """How often it has attacked so far."""
        self._attack = attack
        self._line = line
        self._background: threading.Thread | None = None
        self._resources = ExitStack()
        channel = self._resources.enter_context(self.open_channel())
        self.stub = federation_pb2_grpc.FederationStub(channel)

    # The agent's calls ------------------------------------------------------------------------------------------------

    def join(self) -> pb.JoinReply:
        """Enter the federation like everybody else, and start the background task."""
        self.joined = self._line.join()
        if self._background is None:
            task = self._attack.background_task
            self._background = threading.Thread(target=task, args=(self, self.rng(0)), name="attack")
            self._background.start()
        return self.joined

    def await_round(self, after_round: int) -> pb.AwaitRoundReply:
        """Long poll like everybody else."""
        return self._line.await_round(after_round)

    def submit(self, round_: pb.Round, gradient: pb.Tensor, report: pb.WorkReport) -> pb.SubmitUpdateReply:
        """The honest vote, if this attack casts it, and then the attack."""
        self.round_number = round_.number
        honest = make_submission(self.joined.run_id, self.target.index, round_, gradient, report)
        reply = self._line.submit(round_, gradient, report) if self._attack.casts_vote else WITHHELD
        self._attack.on_submit(honest, self, self.rng(round_.number))
        return reply

    def ask_why(self) -> str:
        """Ask like everybody else."""
        return self._line.ask_why()

    def leave(self, reason: pb.LeaveRequest.Reason.ValueType = pb.LeaveRequest.REASON_DONE, detail: str = "") -> None:
        """Stop, and say goodbye."""
        self.done.set()
        self._line.leave(reason, detail)

    def close(self) -> None:
        """Stop, and close what is open."""
        self.done.set()
        if self._background is not None:
            self._background.join()
        self._resources.close()

    # Tools of an attack -----------------------------------------------------------------------------------------------

    def rng(self, round_number: int) -> np.random.Generator:
        """The stream of this agent's attack in a round; round 0 is that of the background task."""
        return stream(
            self.joined.seed, Role.AGENT, Purpose.HOSTILITY, agent=self.target.index, round_number=round_number
        )

    def open_channel(self) -> grpc.Channel:
        """A connection of its own that does not limit what is sent."""
        return open_channel(self.target.address, UNLIMITED_BYTES, self.target.tls)

    def send(self, request: pb.SubmitUpdateRequest) -> None:
        """Submit this once and note in the log what became of it."""
        self.attempts += 1
        try:
            reply = self.stub.SubmitUpdate(request, timeout=SEND_TIMEOUT_S)
            outcome = Verdict(reply.verdict).label
        except grpc.RpcError as error:
            code, details = describe(error)
            outcome = f"{code.name}: {details}"
        name = type(self._attack).__name__
        log.info("agent %d round %d: %s: %s", self.target.index, request.round, name, outcome)
