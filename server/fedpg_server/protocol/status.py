"""The run as people see it: the status message and a line a round for the log."""

from __future__ import annotations

from collections.abc import Sequence

from fedpg.v1 import federation_pb2 as pb
from fedpg_common.descriptions import federation_to_toml
from fedpg_common.federation import Federation
from fedpg_common.transport import wire
from fedpg_common.transport.verdicts import Verdict

from fedpg_server.learning.records import RoundRecord
from fedpg_server.protocol.coordinator import Coordinator, Member, Phase
from fedpg_server.protocol.membership import Presence
from fedpg_server.protocol.situation import name_agents

FIGURES_MAX, FIGURE_NAME_MAX = 100, 100
"""How many of a round's figures a status tells, and the characters of their names: aggregators may have any number."""


def make_status(
    run_id: str,
    federation: Federation,
    coordinator: Coordinator,
    records: Sequence[RoundRecord],
    environment_steps: int,
    now_s: float,
    uptime_s: float,
    rounds_after: int | None = None,
) -> pb.GetStatusReply:
    """A snapshot of the run at the monotonic time `now_s`, with the rounds after `rounds_after` where it is given.

    `environment_steps` are those of all `records`, which may be many: a status is asked for every second.
    """
    is_collecting = coordinator.phase is Phase.COLLECTING
    return pb.GetStatusReply(
        run_id=run_id,
        task=federation.task.name,
        algorithm=" + ".join(part.label for part in (federation.algorithm, federation.aggregator) if part),
        seed=federation.seed,
        phase=pb.Phase.ValueType(coordinator.phase),
        message=coordinator.waiting_for(),
        round=coordinator.round_number,
        trajectories=records[-1].trajectories_total if records else 0,
        trajectories_target=federation.task.trajectories,
        quorum=federation.quorum,
        deadline_in_s=max(0.0, coordinator.deadline_s - now_s) if is_collecting else 0.0,
        latest=summarize(records[-1]) if records else None,
        agents=[_agent_status(agent, coordinator, now_s) for agent in coordinator.members],
        environment_steps=environment_steps,
        uptime_s=uptime_s,
        intrusions=coordinator.intrusions,
        unreadable=coordinator.unreadable,
        connections_closed=coordinator.connections_closed,
        records_json=[] if rounds_after is None else _records_after(records, rounds_after),
        federation_toml=b"" if rounds_after is None else federation_to_toml(federation).encode(),
    )


def _records_after(records: Sequence[RoundRecord], after: int) -> list[str]:
    """The rounds after round `after`, the first ones that fit."""
    found: list[str] = []
    room = wire.RECORDS_BYTES
    for record in records[after:]:
        found.append(record.to_json())
        room -= len(found[-1])
        if room <= 0:
            break
    return found


def _agent_status(agent: int, coordinator: Coordinator, now_s: float) -> pb.AgentStatus:
    member: Member = coordinator.members[agent]
    return pb.AgentStatus(
        agent=agent,
        presence=pb.AgentStatus.Presence.ValueType(member.presence),
        last_vote_round=member.last_vote_round,
        voted=agent in coordinator.votes,
        last_verdict=pb.Verdict.ValueType(member.last_verdict or pb.VERDICT_UNSPECIFIED),
        verdicts=[
            pb.VerdictCount(verdict=pb.Verdict.ValueType(verdict), count=count)
            for verdict, count in sorted(member.verdicts.items())
        ],
        rounds_accepted=member.rounds_accepted,
        rounds_filtered=member.rounds_filtered,
        last_seen_s=-1.0 if member.last_seen_s is None else now_s - member.last_seen_s,
        calls=member.calls,
        polls_cut=member.polls_cut,
        note=_note(member),
    )


def _note(member: Member) -> str:
    """What is wrong with the agent, if anything."""
    if member.presence is Presence.FAILED:
        return member.failure or "it has failed, and does not say why"
    if member.last_verdict in (None, Verdict.ACCEPTED, Verdict.DUPLICATE):
        return ""
    return f"its latest submission was refused: {member.last_verdict.label}"


def summarize(record: RoundRecord) -> pb.RoundSummary:
    """A closed round as status shows it."""
    told = sorted(name for name in record.figures if len(name) <= FIGURE_NAME_MAX)
    return pb.RoundSummary(
        round=record.round_number,
        evaluation_return=record.evaluation_return,
        evaluation_length=record.evaluation_length,
        training_return=float("nan") if record.training_return is None else record.training_return,
        rule=record.rule,
        radius=record.figures.get("radius", 0.0),
        accepted=record.accepted,
        filtered=record.filtered,
        absent=record.absent,
        parameters_digest=bytes.fromhex(record.parameters_digest),
        seconds=record.seconds,
        figures={name: record.figures[name] for name in told[:FIGURES_MAX]},
        weights=record.weights or {},
    )


def describe_round(record: RoundRecord, trajectories_target: int) -> str:
    """One line for the log: what came out of the round and who was filtered."""
    parts = [
        f"round {record.round_number}",
        f"{record.trajectories_total}/{trajectories_target} trajectories",
        f"return {record.evaluation_return:.1f}",
        f"{record.rule} accepted {len(record.accepted)}",
    ]
    if record.filtered:
        parts.append(f"filtered {name_agents(record.filtered)}")
    if record.absent:
        parts.append(f"absent {name_agents(record.absent)}")
    if not record.has_mu:
        parts.append("NO GRADIENT SURVIVED: the server took plain policy-gradient steps")
    if record.skipped_steps:
        parts.append(f"{record.skipped_steps} STEPS SKIPPED that would have made the parameters infinite")
    return "  ".join([*parts, f"{record.seconds:.2f} s"])
