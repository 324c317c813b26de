"""The federation's calls as an agent makes them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import grpc
from fedpg.v1 import federation_pb2 as pb
from fedpg.v1 import federation_pb2_grpc
from fedpg_common.cli.version import version
from fedpg_common.errors import UnreachableError
from fedpg_common.transport.channels import JOIN_MESSAGE_BYTES_MAX, TlsFiles, open_channel, tls_hint
from fedpg_common.transport.wire import tensor_digest

from fedpg_client.retry import BACKOFF_CAP_S, Caller

CALL_TIMEOUT_S = 15.0
JOIN_TIMEOUT_MIN_S = 0.5
AWAIT_S = 20.0
AWAIT_TIMEOUT_S = AWAIT_S + 10.0
LEAVE_PATIENCE_S = 1.0
DAMAGED_ATTEMPTS_MAX = 20
WORDS_MAX = 500
"""Characters of a sentence that is sent or shown."""

log = logging.getLogger(__name__)


class Calls(Protocol):
    """An agent's line to a server; see `FederationCalls`."""

    def join(self) -> pb.JoinReply:
        """Enter the federation."""

    def await_round(self, after_round: int) -> pb.AwaitRoundReply:
        """Long poll for the next round."""

    def submit(self, round_: pb.Round, gradient: pb.Tensor, report: pb.WorkReport) -> pb.SubmitUpdateReply:
        """Submit a gradient."""

    def leave(self, reason: pb.LeaveRequest.Reason.ValueType = pb.LeaveRequest.REASON_DONE, detail: str = "") -> None:
        """Say goodbye; with REASON_FAILED, `detail` is the sentence that says what happened."""

    def ask_why(self) -> str:
        """What the server waits for, in its own words; empty if it does not answer at once."""


class FederationCalls:
    """One agent's line to the server. Every call has a deadline and is repeated until it gets through.

    Calls raise UnreachableError, ServerRefusedError or StoppedError; see `fedpg_client.retry`.
    """

    def __init__(
        self,
        agent: int,
        caller: Caller,
        tls: TlsFiles | None,
        connect_patience_s: float,
        patience_s: float,
        connect: Callable[[str, int, TlsFiles | None], grpc.Channel] = open_channel,
    ) -> None:
        """`connect_patience_s` bounds the wait for the server at Join, `patience_s` any later silence.

        `connect` opens a channel to an address, for messages up to a size, with these TLS files.
        """
        self._agent = agent
        self._caller = caller
        self._tls = tls
        self._connect = connect
        self._connect_patience_s = connect_patience_s
        self._patience_s = patience_s
        self._run_id = ""
        self._open(JOIN_MESSAGE_BYTES_MAX)

    def _open(self, message_bytes: int) -> None:
        self._channel = self._connect(self._caller.address, message_bytes, self._tls)
        self._stub = federation_pb2_grpc.FederationStub(self._channel)

    def join(self) -> pb.JoinReply:
        """Enter the federation; later calls are for its run."""
        patience_s = self._connect_patience_s
        log.info("agent %d: looking for the server at %s, for up to %.0f s, again every %.0f s or sooner",
                 self._agent, self._caller.address, patience_s, min(BACKOFF_CAP_S, patience_s))  # fmt: skip
        request = pb.JoinRequest(agent=self._agent, version=version())
        timeout_s = min(CALL_TIMEOUT_S, max(self._connect_patience_s, JOIN_TIMEOUT_MIN_S))
        try:
            reply = self._caller.call(
                self._stub.Join, request, timeout_s=timeout_s, patience_s=self._connect_patience_s
            )
        except UnreachableError as error:
            hint = tls_hint(str(error), "this agent's" if self._tls else None)
            raise UnreachableError(f"{error}{hint}") from error
        self._run_id = reply.run_id
        self.close()
        self._open(reply.message_bytes_max)
        return reply

    def await_round(self, after_round: int) -> pb.AwaitRoundReply:
        """One long poll for the first open round after `after_round`."""
        request = pb.AwaitRoundRequest(run_id=self._run_id, agent=self._agent, after_round=after_round, wait_s=AWAIT_S)
        return self._caller.call(self._stub.AwaitRound, request, timeout_s=AWAIT_TIMEOUT_S, patience_s=self._patience_s)

    def submit(self, round_: pb.Round, gradient: pb.Tensor, report: pb.WorkReport) -> pb.SubmitUpdateReply:
        """Submit a gradient; every attempt sends the same bytes, and again if they were damaged on the way."""
        request = make_submission(self._run_id, self._agent, round_, gradient, report)
        for attempt in range(1, DAMAGED_ATTEMPTS_MAX + 1):
            reply = self._caller.call(
                self._stub.SubmitUpdate, request, timeout_s=CALL_TIMEOUT_S, patience_s=self._patience_s
            )
            if reply.verdict != pb.VERDICT_DAMAGED:
                break
            self._caller.back_off(attempt)
        return reply

    def ask_why(self) -> str:
        """What the server waits for, in its own words; empty if it does not answer at once."""
        try:
            status: pb.GetStatusReply = self._stub.GetStatus(pb.GetStatusRequest(), timeout=LEAVE_PATIENCE_S)
        except grpc.RpcError as error:
            log.debug("no status: %s", error)  # with many agents it is larger than this line takes
            return ""
        return "".join(character for character in status.message[:WORDS_MAX] if character.isprintable())

    def leave(self, reason: pb.LeaveRequest.Reason.ValueType = pb.LeaveRequest.REASON_DONE, detail: str = "") -> None:
        """Say goodbye once, without insisting: a server that is gone already needs none, nor one never joined."""
        if not self._run_id:
            return
        request = pb.LeaveRequest(run_id=self._run_id, agent=self._agent, reason=reason, detail=detail[:WORDS_MAX])
        try:
            self._stub.Leave(request, timeout=LEAVE_PATIENCE_S)
        except grpc.RpcError as error:
            log.debug("the goodbye was not heard: %s", error)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


def make_submission(
    run_id: str, agent: int, round_: pb.Round, gradient: pb.Tensor, report: pb.WorkReport
) -> pb.SubmitUpdateRequest:
    """An honest submission for a round."""
    return pb.SubmitUpdateRequest(
        run_id=run_id,
        agent=agent,
        round=round_.number,
        parameters_digest=round_.parameters_digest,
        gradient=gradient,
        gradient_digest=tensor_digest(gradient),
        report=report,
    )
