"""A running federation as a table."""

from __future__ import annotations

from typing import Any

import grpc
from fedpg.v1 import federation_pb2 as pb
from fedpg.v1 import federation_pb2_grpc
from fedpg_common.errors import RefusedError, UnreachableError
from fedpg_common.transport.channels import TlsFiles, open_channel, tls_hint, why_untrusted
from fedpg_common.transport.verdicts import Verdict
from fedpg_common.words import count, on_one_line
from google.protobuf.message import Message
from rich.console import Group
from rich.table import Table
from rich.text import Text

STATUS_BYTES_MAX = 64 * 1024 * 1024
"""Room for the status of the largest federation."""

_PRESENCE = {
    pb.AgentStatus.PRESENCE_NEVER_SEEN: "not seen",
    pb.AgentStatus.PRESENCE_JOINED: "joined",
    pb.AgentStatus.PRESENCE_LEFT: "left",
    pb.AgentStatus.PRESENCE_FAILED: "failed",
}

_COUNTS = ("accepted", "filtered", "refused")
"""Columns of rounds in which the agent was accepted, filtered, and of submissions that were refused."""


class StatusClient:
    """Asks a server for its run's status, over one connection. A context manager."""

    def __init__(self, server: str, tls: TlsFiles | None, timeout_s: float, use_proxy: bool = False) -> None:
        """`server` is HOST:PORT; each call waits for at most `timeout_s`."""
        self._server = server
        self._is_encrypted = tls is not None
        self._timeout_s = timeout_s
        self._channel = open_channel(server, STATUS_BYTES_MAX, tls, use_proxy)
        self._stub = federation_pb2_grpc.FederationStub(self._channel)

    def __enter__(self) -> StatusClient:
        """Nothing is sent yet."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close the connection."""
        self._channel.close()

    def fetch(self, rounds_after: int | None = None) -> pb.GetStatusReply:
        """The status as it is now, with the rounds after `rounds_after` where that is given.

        Texts are without control characters. Raises UnreachableError, RefusedError.
        """
        request = pb.GetStatusRequest(rounds_after=rounds_after)
        try:
            reply: pb.GetStatusReply = self._stub.GetStatus(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            code, details = error.code(), _printable(error.details() or "")
            if untrusted := why_untrusted(details):
                raise RefusedError(f"the certificate of the server at {self._server} {untrusted}") from error
            if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                hint = tls_hint(details or "", "the" if self._is_encrypted else None)
                if "connection refused" in details.lower():  # gRPC's own sentence is long, and advises nothing
                    details = "nothing listens there; a run of fedpg train has its address in its logs/server.log"
                raise UnreachableError(f"no status from {self._server}: {details}{hint}") from error
            raise RefusedError(f"{self._server} refused: {details} ({code.name})") from error
        without_control_characters(reply)
        return reply


def fetch_status(
    server: str, tls: TlsFiles | None, timeout_s: float, use_proxy: bool = False, rounds_after: int | None = None
) -> pb.GetStatusReply:
    """The status of the run at `server` (HOST:PORT), as `StatusClient.fetch` has it. Raises likewise."""
    with StatusClient(server, tls, timeout_s, use_proxy) as client:
        return client.fetch(rounds_after)


def without_control_characters(message: Message) -> None:
    """Replace in all texts of a message what would do something to a terminal."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING and not field.is_repeated:
            setattr(message, field.name, _printable(value))
        elif _is_map(field):
            for key in [key for key in value if isinstance(key, str) and key != _printable(key)]:
                value[_printable(key)] = value.pop(key)
        elif field.type == field.TYPE_MESSAGE:
            for part in value if field.is_repeated else (value,):
                without_control_characters(part)


def _is_map(field: Any) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def to_plain(message: Message) -> dict[str, Any]:
    """A message's fields by their names in the contract, for JSON: enums by name, what is not set is null.

    Whole numbers stay numbers, which protobuf's own JSON makes text of.
    """
    return {field.name: _plain_field(message, field) for field in message.DESCRIPTOR.fields}


def _plain_field(message: Message, field: Any) -> Any:
    if field.has_presence and not message.HasField(field.name):
        return None

    def plain(value: Any) -> Any:
        if isinstance(value, Message):
            return to_plain(value)
        if field.enum_type is not None:
            known = field.enum_type.values_by_number.get(value)
            return value if known is None else known.name
        return value.hex() if isinstance(value, bytes) else value

    value = getattr(message, field.name)
    if _is_map(field):
        return {str(key): entry for key, entry in sorted(value.items())}
    return [plain(entry) for entry in value] if field.is_repeated else plain(value)


def render(status: pb.GetStatusReply) -> Group:
    """The status for a terminal: what the run is at, and a row per agent that is told of."""
    if status.is_partial:
        return _render_partial(status)
    lines = [
        f"{status.task}, {status.algorithm}, seed {status.seed}, run {status.run_id}",
        status.message
        if status.message.startswith(f"round {status.round}")
        else f"round {status.round}: {status.message}",
        f"{status.trajectories}/{status.trajectories_target} {_trajectories(status)}, "
        f"{status.environment_steps:,} environment steps, quorum {status.quorum} of {len(status.agents)}",
    ]
    if status.HasField("latest"):
        latest = status.latest
        votes = (
            f"accepted {len(latest.accepted)}, filtered {len(latest.filtered)}"
            if _is_selective(latest)
            else count(len(latest.accepted), "vote")
        )
        lines.append(
            f"round {latest.round} closed by {latest.rule}: {votes}, absent {len(latest.absent)}; "
            f"return {latest.evaluation_return:.1f}"
        )
        if latest.figures:
            lines.append(", ".join(f"{name} {value:.4g}" for name, value in sorted(latest.figures.items())))
    if status.intrusions:
        calls = count(status.intrusions, "call")
        lines.append(f"{calls} from strangers or with another's identity {_were(status.intrusions)} refused")
    if status.unreadable:
        requests = count(status.unreadable, "request")
        lines.append(f"{requests} did not arrive whole, in time, or {_were(status.unreadable)} not a message")
    if status.connections_closed:
        connections = count(status.connections_closed, "connection")
        lines.append(f"{connections} made no call in time, or {_were(status.connections_closed)} too many: closed")
    lines += [
        f"agent {agent.agent} held too many polls: {agent.polls_cut} of its {agent.calls} calls were answered early"
        for agent in status.agents
        if agent.polls_cut
    ]
    lines += [f"agent {agent.agent}: {agent.note}" for agent in status.agents if agent.note]
    return Group(*(Text(on_one_line(line)) for line in lines), _agents_table(status))


def _render_partial(status: pb.GetStatusReply) -> Group:
    """What an agent, or somebody who is not known, is told."""
    lines = [
        f"{status.task}, run {status.run_id}",
        f"round {status.round}: {status.message}",
        f"{status.trajectories}/{status.trajectories_target} trajectories, quorum {status.quorum}",
        "Who was filtered, the return and the other agents are for the operator: on the server's machine, or with "
        "--tls and the folder operator of `fedpg certs`.",
    ]
    table = [_agents_table(status)] if status.agents else []
    return Group(*map(Text, lines), *table)


def _agents_table(status: pb.GetStatusReply) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    weights = status.latest.weights
    is_weighed = any(0 < weight < 1 for weight in weights.values())
    figures = ("agent", "last vote", "weight", *_COUNTS)
    columns = ["agent", "state", "last seen", "last vote", "last verdict", "last round", *_COUNTS]
    if is_weighed:
        columns.insert(columns.index("last round") + 1, "weight")
    for name in columns:
        is_figure = name in figures
        table.add_column(name, justify="right" if is_figure else "left", overflow="fold")
    for agent in status.agents:
        table.add_row(
            str(agent.agent),
            _PRESENCE.get(agent.presence, f"state {agent.presence} (unknown to this version)"),
            "never" if agent.last_seen_s < 0 else f"{agent.last_seen_s:.0f} s",
            str(agent.last_vote_round or "none"),
            _verdict(agent.last_verdict),
            _outcome(agent.agent, status),
            *([f"{weights[agent.agent]:.2f}" if agent.agent in weights else "-"] if is_weighed else []),
            *(("-", "-") if status.is_partial else (str(agent.rounds_accepted), str(agent.rounds_filtered))),
            str(_refused(agent)),
            style="red" if agent.agent in status.latest.filtered else None,
        )
    return table


def _verdict(number: int) -> str:
    """A verdict for people; a newer server may know others."""
    if number == pb.VERDICT_UNSPECIFIED:
        return "none"
    try:
        return Verdict(number).label
    except ValueError:
        return f"verdict {number} (unknown to this version)"


def _trajectories(status: pb.GetStatusReply) -> str:
    return "trajectory" if status.trajectories_target == 1 else "trajectories"


def _were(number: int) -> str:
    return "was" if number == 1 else "were"


def _is_selective(latest: pb.RoundSummary) -> bool:
    """Whether the rule chose among the voters."""
    return bool(latest.weights) or bool(latest.filtered)


def _outcome(agent: int, status: pb.GetStatusReply) -> str:
    """What became of the agent in the latest closed round; "-" where that is not told."""
    if status.is_partial:
        return "-"
    latest = status.latest
    outcomes = {
        "accepted" if _is_selective(latest) else "voted": latest.accepted,
        "filtered": latest.filtered,
        "absent": latest.absent,
    }
    return next((name for name, agents in outcomes.items() if agent in agents), "none")


def _refused(agent: pb.AgentStatus) -> int:
    """How many of the agent's submissions were neither votes nor repetitions of one."""
    fine = (pb.VERDICT_ACCEPTED, pb.VERDICT_DUPLICATE)
    return sum(entry.count for entry in agent.verdicts if entry.verdict not in fine)
