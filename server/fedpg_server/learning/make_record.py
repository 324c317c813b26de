"""From a round's result to its record. Here, and only here, the description of who is Byzantine is looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np
from fedpg.v1 import federation_pb2 as pb
from fedpg_common.federation import Federation
from fedpg_common.learning.aggregators import Aggregate, RoundPlan, Votes
from fedpg_common.learning.parameters import digest
from fedpg_common.transport.wire import finite_or_zero

from fedpg_server.learning.learner import RoundResult
from fedpg_server.learning.pairwise import pack
from fedpg_server.learning.records import RoundRecord

REPORTED_MAX = float(np.finfo(np.float32).max)
"""Reported figures are cut to what TensorBoard can hold: their sum is then far from overflow."""


def make_record(
    result: RoundResult,
    plan: RoundPlan,
    federation: Federation,
    reports: Mapping[int, bytes],
    trajectories_before: int,
    seconds: float,
) -> RoundRecord:
    """The record of a closed round; without evaluation where the result has none yet (see `RoundRecord.evaluated`).

    `reports` are the voters' WorkReport messages by agent.
    """
    votes, aggregate = result.votes, result.aggregate
    accepted, filtered = verdicts_of(aggregate, votes.agents)
    works = {agent: pb.WorkReport.FromString(report) for agent, report in reports.items()}
    honest = [work for agent, work in works.items() if agent not in federation.byzantine]
    horizon_steps = plan.batch_size * federation.task.horizon
    record = RoundRecord(
        round_number=plan.round_number,
        parameters_digest=digest(result.state.theta),
        batch_size=plan.batch_size,
        inner_steps=plan.inner_steps,
        inner_steps_taken=result.inner.steps_taken,
        inner_aborted=result.inner.aborted,
        trajectories_total=trajectories_before + result.trajectories,
        sampled_trajectories={
            "agents": sum(min(work.trajectories, plan.batch_size) for work in works.values()),
            "inner": result.inner.sampled.trajectories,
            "aborted": result.inner.dropped.trajectories,
            "evaluation": result.inner.judged.trajectories,
            **({"reference": result.reference.trajectories} if result.reference.trajectories else {}),
        },
        environment_steps={
            "agents": sum(min(work.environment_steps, horizon_steps) for work in works.values()),
            "inner": result.inner.sampled.steps,
            "aborted": result.inner.dropped.steps,
            "evaluation": result.inner.judged.steps,
            **({"reference": result.reference.steps} if result.reference.trajectories else {}),
        },
        rule=aggregate.rule,
        has_mu=aggregate.vector is not None,
        accepted=accepted,
        filtered=filtered,
        absent=tuple(sorted(set(range(1, federation.agents + 1)) - set(votes.agents))),
        median_agent=aggregate.median_agent,
        weights=None if aggregate.weights is None else dict(aggregate.weights),
        figures={**aggregate.figures, **result.inner.figures},
        distances=_mean_distances(votes, federation),
        centre_distances=dict(result.centre_distances),
        detection={} if aggregate.weights is None else score_filter(accepted, filtered, federation),
        evaluation_returns=(),
        evaluation_lengths=(),
        training_return=_mean_of(honest, "mean_return"),
        training_length=_mean_of(honest, "mean_length"),
        loss=_mean_of(honest, "loss"),
        gradient_norm=result.gradient_norm,
        inner_gradient_norms=tuple(result.inner.gradient_norms),
        importance_ratios=tuple(result.inner.importance_ratios),
        learning_rate=result.learning_rate,
        skipped_steps=result.inner.skipped_steps,
        seconds=seconds,
        vote_trajectories=_vote_trajectories(votes, plan),
        pairwise_distances=pack(votes.distances),
    )
    return record if result.evaluation is None else record.evaluated(result.evaluation)


def verdicts_of(aggregate: Aggregate, voters: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Who was accepted and who was filtered. A rule that selects nobody in particular accepts all, if there is a μ."""
    if aggregate.weights is None:
        return (tuple(voters), ()) if aggregate.vector is not None else ((), tuple(voters))
    accepted = tuple(agent for agent in voters if aggregate.weights.get(agent, 0.0) > 0)
    counted = set(accepted)
    return accepted, tuple(agent for agent in voters if agent not in counted)


def score_filter(accepted: Sequence[int], filtered: Sequence[int], federation: Federation) -> dict[str, float]:
    """How well "filtered" predicts "Byzantine" among those that submitted: precision, recall and F1.

    An agent that is hostile to the protocol alone votes honestly, so that accepting its vote is right.
    Precision is missing when nobody was filtered, recall when no Byzantine agent submitted.
    """
    byzantine = {*accepted, *filtered} & federation.poisoners
    hits = len(byzantine.intersection(filtered))
    scores = {}
    if filtered:
        scores["precision"] = hits / len(filtered)
    if byzantine:
        scores["recall"] = hits / len(byzantine)
        scores["f1"] = 2 * hits / (len(filtered) + len(byzantine))
    return scores


def _vote_trajectories(votes: Votes, plan: RoundPlan) -> dict[int, int] | None:
    if votes.trajectories is None or all(count == plan.batch_size for count in votes.trajectories):
        return None
    return dict(zip(votes.agents, votes.trajectories, strict=True))


def _mean_distances(votes: Votes, federation: Federation) -> dict[str, float]:
    """Mean distance over the pairs of good agents, of Byzantine agents, and between the two."""
    poisoners = federation.poisoners
    byzantine = [row for row, agent in enumerate(votes.agents) if agent in poisoners]
    good = [row for row, agent in enumerate(votes.agents) if agent not in poisoners]
    means = {}
    for kind, group in (("good", good), ("byzantine", byzantine)):
        if len(group) > 1:  # each pair lies twice in the block, and its diagonal is zero
            is_all = len(group) == len(votes.agents)  # then a copy would take as long as all distances
            block = votes.distances if is_all else votes.distances[np.ix_(group, group)]
            means[kind] = float(block.sum()) / (len(group) * (len(group) - 1))
    if good and byzantine:
        means["between"] = float(votes.distances[np.ix_(good, byzantine)].mean())
    return means


def _mean_of(works: list[pb.WorkReport], field: str) -> float | None:
    """The mean of a reported figure, None without reports. An absurd figure spoils the mean, but nothing else."""
    values = [min(max(finite_or_zero(getattr(work, field)), -REPORTED_MAX), REPORTED_MAX) for work in works]
    return fmean(values) if values else None
