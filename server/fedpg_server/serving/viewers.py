"""Who looks at the status, and what of it they are told.

The filter's verdicts are for the operator alone: to an attacker, they would say how far it can go.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedpg.v1 import federation_pb2 as pb
from fedpg_common.transport.channels import OPERATOR_NAME, SERVER_NAME, agent_of_name, is_loopback_peer

OPERATOR_NAMES = (OPERATOR_NAME, SERVER_NAME)
"""Common names of the certificates that are told everything. The server's own is for looking from its container."""


@dataclass(frozen=True)
class Viewer:
    """Who asks for the status. By default somebody who is not known."""

    is_operator: bool = False
    agent: int | None = None
    """The agent whose certificate it is."""


def viewer_of(peer: str, common_name: str | None, authenticated: bool) -> Viewer:
    """Who a caller is, by its certificate's common name; without `authenticated`, by gRPC's name of its address."""
    if not authenticated:
        return Viewer(is_operator=is_loopback_peer(peer))
    name = common_name or ""
    return Viewer(is_operator=name in OPERATOR_NAMES, agent=agent_of_name(name))


def status_for(viewer: Viewer, whole: pb.GetStatusReply) -> pb.GetStatusReply:
    """What of the `whole` status this viewer is told: see federation.proto."""
    if viewer.is_operator:
        return whole
    return pb.GetStatusReply(
        is_partial=True,
        run_id=whole.run_id,
        task=whole.task,
        phase=whole.phase,
        message=_message(whole),
        round=whole.round,
        trajectories=whole.trajectories,
        trajectories_target=whole.trajectories_target,
        quorum=whole.quorum,
        deadline_in_s=whole.deadline_in_s,
        uptime_s=whole.uptime_s,
        agents=[_own_row(row) for row in whole.agents if row.agent == viewer.agent],
    )


def _own_row(row: pb.AgentStatus) -> pb.AgentStatus:
    """An agent's row without what the filter made of its votes."""
    own = pb.AgentStatus()
    own.CopyFrom(row)
    own.ClearField("rounds_accepted")
    own.ClearField("rounds_filtered")
    return own


def _message(whole: pb.GetStatusReply) -> str:
    """What the run waits for, without a word on who is who."""
    agents = len(whole.agents)
    votes = sum(row.voted for row in whole.agents)
    match whole.phase:
        case pb.PHASE_ENDED:
            return "the run has ended"
        case pb.PHASE_IMPROVING:
            return "the server improves the policy"
        case pb.PHASE_JOINING:
            joined = sum(row.presence == pb.AgentStatus.PRESENCE_JOINED for row in whole.agents)
            return f"{joined} of {agents} agents have joined"
        case pb.PHASE_BELOW_QUORUM:
            return f"{max(0, whole.quorum - votes)} more agents must submit for a quorum of {whole.quorum}"
    return f"{votes} of {agents} agents have submitted"
