"""The gRPC service: checks who calls and what, and hands the call to the run."""

from __future__ import annotations

import logging
import math
from typing import Any, NoReturn

import grpc
from fedpg.v1 import federation_pb2 as pb
from fedpg.v1 import federation_pb2_grpc
from fedpg_common.transport.channels import agent_of_name

from fedpg_server.protocol.journal import RunStoppedError
from fedpg_server.run_calls import RunCalls
from fedpg_server.serving.identity import common_name
from fedpg_server.serving.request_guard import STOPS
from fedpg_server.serving.viewers import status_for, viewer_of
from fedpg_server.sparse_log import SparseLog

VERSION_SHOWN = 40
NAME_SHOWN = 80
"""Characters of what a caller says of itself that are logged."""

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


class FederationService(federation_pb2_grpc.FederationServicer):
    """Serves one run; without one, every call is UNAVAILABLE."""

    def __init__(self, authenticated: bool) -> None:
        """With `authenticated`, callers have certificates and are who these say."""
        self._authenticated = authenticated
        self._run: RunCalls | None = None
        self._why_unavailable = "the server is restoring the run; try again"
        self._log = SparseLog(log)

    def serve(self, run: RunCalls) -> None:
        """Answer calls from now on."""
        self._run = run

    def withdraw(self, why: str) -> None:
        """Answer UNAVAILABLE from now on, with this sentence."""
        self._run = None
        self._why_unavailable = why

    def count_unreadable(self) -> None:
        """Count a request that did not arrive whole or was no message."""
        if self._run is not None:
            self._run.count_unreadable()

    def note_revoked(self, context: Context) -> None:
        """Count and log a call with a certificate that has been revoked. The caller is refused already."""
        if self._run is not None:
            self._run.count_intrusion(None)
        self._log_refusal(context, "it has been revoked")

    def count_closed_connections(self, count: int) -> None:
        """Count connections that were closed because they were too many or made no call."""
        if self._run is not None:
            self._run.count_closed_connections(count)

    async def Join(self, request: pb.JoinRequest, context: Context) -> pb.JoinReply:  # noqa: N802 (gRPC's names)
        """See federation.proto."""
        run = await self._admit(request.agent, context)
        version = request.version[:VERSION_SHOWN] or "unknown"
        joined = f"agent {request.agent} joined from {context.peer()}, version {version}"
        self._log.write(logging.INFO, f"{request.agent} joined", joined)
        return run.join(request.agent)

    async def AwaitRound(self, request: pb.AwaitRoundRequest, context: Context) -> pb.AwaitRoundReply:  # noqa: N802
        """See federation.proto."""
        run = await self._admit(request.agent, context)
        if request.run_id != run.run_id:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"this server's run is {run.run_id}: join again")
        if not (math.isfinite(request.wait_s) and request.wait_s >= 0):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "wait_s must be a number of seconds from 0")
        try:
            return await run.await_round(request.agent, request.after_round, request.wait_s)
        except RunStoppedError:
            await self._send_away(context)

    async def SubmitUpdate(  # noqa: N802
        self, request: pb.SubmitUpdateRequest, context: Context
    ) -> pb.SubmitUpdateReply:
        """See federation.proto. An unknown agent gets a verdict like every other bad submission."""
        run = await self._identify(request.agent, context)
        try:
            verdict = await run.submit(request)
        except RunStoppedError:
            await self._send_away(context)
        return pb.SubmitUpdateReply(verdict=pb.Verdict.ValueType(verdict), message=verdict.sentence)

    async def Leave(self, request: pb.LeaveRequest, context: Context) -> pb.LeaveReply:  # noqa: N802
        """See federation.proto."""
        run = await self._admit(request.agent, context)
        if request.run_id == run.run_id:
            self._take_leave(run, request)
        return pb.LeaveReply()

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusReply:  # noqa: N802
        """See federation.proto."""
        run = await self._require_run(context)
        viewer = viewer_of(context.peer(), common_name(context), self._authenticated)
        is_following = viewer.is_operator and request.HasField("rounds_after")
        after = request.rounds_after if is_following else None
        return status_for(viewer, run.status(after))

    def _take_leave(self, run: RunCalls, request: pb.LeaveRequest) -> None:
        agent = request.agent
        if request.reason == pb.LeaveRequest.REASON_FAILED:
            why = run.fail(agent, request.detail)
            self._log.write(logging.WARNING, f"{agent} failed", f"agent {agent} has failed: {why or 'no reason given'}")
            return
        run.leave(agent)
        how = "left: it was stopped" if request.reason == pb.LeaveRequest.REASON_STOPPED else "left"
        self._log.write(logging.INFO, f"{agent} left", f"agent {agent} {how}")

    async def _admit(self, agent: int, context: Context) -> RunCalls:
        """The run, for a caller that is the member it says it is."""
        run = await self._identify(agent, context)
        if not run.is_member(agent):
            run.count_intrusion(agent_of_name(common_name(context) or ""))
            await self._refuse(
                context, f"agent {agent} is not in this federation: its agents are 1 to {len(run.members)}"
            )
        return run

    async def _identify(self, agent: int, context: Context) -> RunCalls:
        """The run, for a caller whose certificate, if there are any, is that of `agent`."""
        run = await self._require_run(context)
        if not self._authenticated:
            return run
        owner = agent_of_name(common_name(context) or "")
        if owner is None:
            run.count_intrusion(None)
            self._log_refusal(context, "the certificate does not name an agent")
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the certificate does not name an agent")
        if owner != agent:
            run.count_intrusion(owner)
            await self._refuse(context, f"the certificate is agent {owner}'s, the message agent {agent}'s")
        return run

    async def _require_run(self, context: Context) -> RunCalls:
        if self._run is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, self._why_unavailable)
        return self._run

    async def _send_away(self, context: Context) -> NoReturn:
        await context.abort(grpc.StatusCode.UNAVAILABLE, STOPS)

    async def _refuse(self, context: Context, why: str) -> NoReturn:
        self._log_refusal(context, why)
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, why)

    def _log_refusal(self, context: Context, why: str) -> None:
        """Log it, sparsely for each caller: none can keep another's out of the log."""
        name = common_name(context)
        caller = context.peer().rpartition(":")[0] if name is None else name
        whose = "" if name is None else f" with the certificate of {name[:NAME_SHOWN]}"
        self._log.write(logging.WARNING, f"refused {caller}", f"refused {context.peer()}{whose}: {why}")
