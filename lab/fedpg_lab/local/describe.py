"""A run's state in words: its figures, what is being waited for, and what is wrong."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from fedpg.v1 import federation_pb2 as pb
from fedpg_common.words import agents, count, on_one_line
from fedpg_server.learning.records import RoundRecord
from fedpg_server.protocol.status import summarize

WARNINGS_MAX = 3
"""Lines on what is wrong; the rest is counted."""
HOUR_S, DAY_S = 3600, 86400


@dataclass(frozen=True)
class Pace:
    """How fast a run goes, measured between two states."""

    steps_per_s: float
    left_s: float | None
    """Time to the end at this pace; None while there is nothing to go by."""


class PaceMeter:
    """Measures pace from the first state seen."""

    def __init__(self) -> None:
        """Nothing is seen yet."""
        self._first: tuple[float, pb.GetStatusReply] | None = None

    def measure(self, status: pb.GetStatusReply, now_s: float) -> Pace:
        """The mean pace since the first state; `now_s` is monotonic."""
        if self._first is None:
            self._first = now_s, status
        first_s, first = self._first
        elapsed_s = now_s - first_s
        done = status.trajectories - first.trajectories
        if elapsed_s <= 0 or done <= 0:
            return Pace(0.0, None)
        left = max(0, status.trajectories_target - status.trajectories)
        return Pace((status.environment_steps - first.environment_steps) / elapsed_s, elapsed_s * left / done)


def status_after(
    record: RoundRecord, target: int, steps: int, phase: pb.Phase.ValueType, message: str = ""
) -> pb.GetStatusReply:
    """The state of a run whose latest round is this, without a server that tells; `steps` are of all rounds."""
    return pb.GetStatusReply(
        round=record.round_number,
        phase=phase,
        message=message,
        trajectories=record.trajectories_total,
        trajectories_target=target,
        environment_steps=steps,
        latest=summarize(record),
    )


def describe_count(status: pb.GetStatusReply) -> str:
    """How far the run is, for example "120/5000"; without a target just how many trajectories there are."""
    if not status.trajectories_target:
        return count(status.trajectories, "trajectory", "trajectories")
    return f"{status.trajectories}/{status.trajectories_target}"


def describe_figures(status: pb.GetStatusReply, pace: Pace) -> str:
    """What came out of the latest round, the most wanted first; empty before there is one."""
    if not status.HasField("latest"):
        return ""
    latest = status.latest
    parts = [f"return {latest.evaluation_return:.1f}"]
    if latest.weights or latest.filtered:
        parts += [f"accepted {len(latest.accepted)}", f"filtered {len(latest.filtered)}"]
    else:  # the rule selects nobody in particular
        parts.append(count(len(latest.accepted), "vote"))
    if pace.left_s:
        parts.append(f"{duration(pace.left_s)} left")
    parts.append(f"round {latest.round}")
    if latest.absent:
        parts.append(f"absent {len(latest.absent)}")
    if pace.steps_per_s:
        parts.append(f"{pace.steps_per_s:,.0f} steps/s")
    return "  ".join(parts)


def describe_wait(status: pb.GetStatusReply) -> str:
    """What the run is at, in one line: who has joined, how many votes there are, and what the server says to it."""
    members = len(status.agents)
    joined = sum(agent.presence == pb.AgentStatus.PRESENCE_JOINED for agent in status.agents)
    votes = sum(agent.voted for agent in status.agents)
    message = on_one_line(status.message)
    if status.phase == pb.PHASE_JOINING or (not status.HasField("latest") and not votes and joined < members):
        at = f"{joined} of {count(members, 'agent')} joined"
        if status.phase != pb.PHASE_JOINING or not message:
            return at
        return message if f"{joined} of {members} agent" in message else f"{at}: {message}"
    if status.phase in (pb.PHASE_COLLECTING, pb.PHASE_BELOW_QUORUM):
        at = f"round {status.round}: {votes} of {count(members, 'vote')}"
        if message.startswith(at):
            return message
        message = message.removeprefix(f"round {status.round} is ")  # below the quorum
        return f"{at}, {message}" if message else at
    return message


def describe_warnings(status: pb.GetStatusReply) -> list[str]:
    """A line for each thing that is wrong with agents, those with the same trouble together; at most a few lines."""
    alike: dict[str, list[int]] = defaultdict(list)
    for agent in status.agents:
        failed = agent.presence == pb.AgentStatus.PRESENCE_FAILED
        if agent.note or failed:
            alike[f"{'failed: ' if failed else ''}{on_one_line(agent.note) or 'no reason given'}"].append(agent.agent)
    lines = [f"{agents(indices)}: {note}" for note, indices in alike.items()]
    more = len(lines) - WARNINGS_MAX
    return lines if more <= 0 else [*lines[:WARNINGS_MAX], f"and {more} more: fedpg status, or the logs, tell"]


def describe_state(status: pb.GetStatusReply, pace: Pace, with_warnings: bool = True, with_wait: bool = False) -> str:
    """All of it in one line, for where there is no room for more.

    `with_warnings` of what is wrong with agents; `with_wait`, what is waited for, also where there are figures.
    """
    figures = describe_figures(status, pace)
    wait = describe_wait(status) if with_wait or status.phase == pb.PHASE_BELOW_QUORUM or not figures else ""
    warnings = describe_warnings(status) if with_warnings else []
    return "  ".join(filter(None, [figures, wait, *(text for text in warnings if not _says(wait, text))]))


def _says(wait: str, warning: str) -> bool:
    """Whether what is waited for names the reason already: "agents 1, 2 have failed: no torque"."""
    reason = warning.partition(": ")[2].removeprefix("failed: ")
    reason = reason.replace("its latest submission was refused: ", "refused, ")  # as the server's message has it
    return bool(reason) and reason in wait


def duration(seconds: float) -> str:
    """A time for people: 0:07, 12:30, 3:05:00, "2 days 4 h"."""
    whole = round(seconds)
    if whole >= DAY_S:
        return f"{count(whole // DAY_S, 'day')} {whole % DAY_S // HOUR_S} h"
    hours, minutes, seconds = whole // HOUR_S, whole % HOUR_S // 60, whole % 60
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
