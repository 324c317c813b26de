"""The calls of a hostile agent: an honest line to take part on, and one of its own to misbehave on."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar

import grpc
import numpy as np
from fedpg.v1 import federation_pb2 as pb
from fedpg.v1 import federation_pb2_grpc
from fedpg_common.channels import TlsFiles, open_channel
from fedpg_common.streams import Purpose, Role, stream
from fedpg_common.verdicts import Verdict

from fedpg_client.agent import Calls
from fedpg_client.calls import make_submission
from fedpg_client.retry import describe

SEND_TIMEOUT_S = 5.0
"""Deadline of a hostile call. It is made once: a hostile agent does not insist."""
UNLIMITED_BYTES = -1

WITHHELD = pb.SubmitUpdateReply(
    verdict=pb.VERDICT_STALE_ROUND, message="The hostile agent keeps its vote to itself and awaits the next round."
)
"""What the agent's loop is told in place of a verdict where no vote was sent."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Target:
    """Who misbehaves, and against which server."""

    index: int
    """The agent's own."""
    address: str
    """The server's HOST:PORT."""
    tls: TlsFiles | None = None


class HostileCalls:
    """An agent's calls that do harm. A behaviour overrides `misbehave` or `pester`, or nothing at all.

    What the server makes of it is logged and otherwise ignored. Every draw follows from the run's seed.
    """

    casts_vote: ClassVar[bool] = False
    """Whether the honest vote is cast, and first."""

    def __init__(self, line: Calls, target: Target) -> None:
        """`line` is used for taking part, and not closed."""
        self.target = target
        self.done = threading.Event()
        """Set when it is time to end."""
        self.joined = pb.JoinReply()
        """The server's answer to the latest Join."""
        self.round_number = 0
        """The latest round that the agent has worked for."""
        self.misdeeds = 0
        """How many there have been so far."""
        self._line = line
        self._pesterer: threading.Thread | None = None
        self._resources = ExitStack()
        channel = self._resources.enter_context(self.open_channel())
        self.stub = federation_pb2_grpc.FederationStub(channel)

    # What a behaviour overrides ---------------------------------------------------------------------------------------

    def misbehave(self, honest: pb.SubmitUpdateRequest, rng: np.random.Generator) -> None:
        """Once a round, after the vote if one is cast. `honest` is the submission of an honest agent."""

    def pester(self, rng: np.random.Generator) -> None:
        """From the first Join on, in a thread of its own. To return soon after `done` is set."""

    # The agent's calls ------------------------------------------------------------------------------------------------

    def join(self) -> pb.JoinReply:
        """Enter the federation like everybody else, and begin to pester."""
        self.joined = self._line.join()
        if self._pesterer is None:
            self._pesterer = threading.Thread(target=self.pester, args=(self.rng(0),), name="pesterer")
            self._pesterer.start()
        return self.joined

    def await_round(self, after_round: int) -> pb.AwaitRoundReply:
        """Long poll like everybody else."""
        return self._line.await_round(after_round)

    def submit(self, round_: pb.Round, gradient: pb.Tensor, report: pb.WorkReport) -> pb.SubmitUpdateReply:
        """The honest vote, if this behaviour casts it, and then the misdeed."""
        self.round_number = round_.number
        honest = make_submission(self.joined.run_id, self.target.index, round_, gradient, report)
        reply = self._line.submit(round_, gradient, report) if self.casts_vote else WITHHELD
        self.misbehave(honest, self.rng(round_.number))
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
        if self._pesterer is not None:
            self._pesterer.join()
        self._resources.close()

    # Tools ------------------------------------------------------------------------------------------------------------

    def rng(self, round_number: int) -> np.random.Generator:
        """The stream of this agent's misdeeds in a round; round 0 is that of pestering."""
        return stream(
            self.joined.seed, Role.AGENT, Purpose.HOSTILITY, agent=self.target.index, round_number=round_number
        )

    def open_channel(self) -> grpc.Channel:
        """A connection of its own that does not limit what is sent."""
        return open_channel(self.target.address, UNLIMITED_BYTES, self.target.tls)

    def send(self, request: pb.SubmitUpdateRequest) -> None:
        """Submit this once and note in the log what became of it."""
        self.misdeeds += 1
        try:
            reply = self.stub.SubmitUpdate(request, timeout=SEND_TIMEOUT_S)
            outcome = Verdict(reply.verdict).label
        except grpc.RpcError as error:
            code, details = describe(error)
            outcome = f"{code.name}: {details}"
        name = type(self).__name__
        log.info("agent %d round %d: %s: %s", self.target.index, request.round, name, outcome)
