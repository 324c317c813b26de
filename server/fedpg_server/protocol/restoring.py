"""A coordinator that continues an earlier process's counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fedpg_common.federation import Federation
from fedpg_common.transport.verdicts import Verdict

from fedpg_server.learning.records import RoundRecord
from fedpg_server.protocol.coordinator import Coordinator, Member, Rules
from fedpg_server.protocol.gathering import GRACE_S
from fedpg_server.storage.store import Store


def restore_coordinator(
    federation: Federation, store: Store, records: Sequence[RoundRecord], grace_s: float = GRACE_S
) -> Coordinator:
    """The coordinator as the store knows it; `records` are the evaluated rounds in it. No round is open yet."""
    counts = store.verdict_counts()
    if (unevaluated := store.unevaluated()) is not None:
        records = [*records, unevaluated]
    last_votes = store.last_votes()
    accepted = Counter(agent for record in records for agent in record.accepted)
    filtered = Counter(agent for record in records for agent in record.filtered)
    members = {
        agent: Member(
            last_vote_round=last_votes.get(agent, 0),
            verdicts=Counter(counts.get(agent, {})),
            rounds_accepted=accepted[agent],
            rounds_filtered=filtered[agent],
        )
        for agent in range(1, federation.agents + 1)
    }
    last_round = records[-1].round_number if records else 0
    return Coordinator(
        Rules(federation.agents, federation.quorum, federation.round_timeout_s, grace_s),
        members,
        intrusions=sum(counts.get(0, {}).values())
        + sum(counts[agent].get(Verdict.NOT_A_MEMBER, 0) for agent in counts if agent > 0),
        round_number=last_round,
        votes=store.vote_digests(last_round),
    )
