"""What is kept of a closed round: plain figures, as the store, the telemetry, status and plots read them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean
from typing import Any

from fedpg_common.json_text import to_json

FINAL_FRACTION = 0.05
"""The final return is the mean over the last rounds that make up this part of the trajectories."""


@dataclass(frozen=True)
class Evaluation:
    """A round's greedy episodes, in order."""

    returns: tuple[float, ...]
    """Undiscounted return of each."""
    lengths: tuple[int, ...]
    """Steps of each."""
    world_returns: dict[int, float] | None = None
    """Mean greedy return in the world of each agent; None where that was not asked for."""


@dataclass(frozen=True)
class RoundRecord:
    """One closed round. Returns are undiscounted; counts of the round alone unless they say `total`.

    A round that has been improved and is still being evaluated has no evaluation returns, and nobody but the run and
    its store sees its record.
    """

    round_number: int
    parameters_digest: str
    """SHA-256 of θ after the round, hexadecimal."""
    batch_size: int
    """B_t."""
    inner_steps: int
    """N_t as drawn."""
    inner_steps_taken: int
    inner_aborted: bool
    """Whether the importance ratio left its bounds."""
    trajectories_total: int
    """The x-axis of the published figures, after this round: dropped inner batches do not count."""
    sampled_trajectories: dict[str, int]
    """Honest counts by "agents", "inner", "aborted" and "evaluation"; and by "reference", the batch of the server's own
    gradient, where the aggregator needed one."""
    environment_steps: dict[str, int]
    """Likewise."""
    rule: str
    """What decided, in the aggregator's own words."""
    has_mu: bool
    """Whether any gradient survived the aggregator."""
    accepted: tuple[int, ...]
    """Whose votes counted; all voters where the rule selects nobody in particular."""
    filtered: tuple[int, ...]
    """The voters whose votes did not count."""
    absent: tuple[int, ...]
    median_agent: int | None
    """Whose vector the rule measured distances from."""
    weights: dict[int, float] | None
    """How much each voter's vote counted, from 0 to 1; None where the rule selects nobody in particular."""
    figures: dict[str, float]
    """What the aggregator has to tell, by name, for example its "radius"."""
    distances: dict[str, float]
    """Mean pairwise distances: "good", "byzantine", "between"; a key is missing where there is no such pair."""
    centre_distances: dict[int, float]
    """Each voter's distance to the median agent's vector, or else to μ; empty where there is neither."""
    detection: dict[str, float]
    """The filter scored against the federation's description: "precision", "recall", "f1"; keys may be missing, and all
    are where the rule selects nobody in particular."""
    evaluation_returns: tuple[float, ...]
    evaluation_lengths: tuple[float, ...]
    training_return: float | None
    """Mean over the reports of agents that are not described as Byzantine; None without one."""
    training_length: float | None
    loss: float | None
    """Mean surrogate loss of the same agents."""
    gradient_norm: float
    """‖μ‖, 0 when no gradient survived."""
    inner_gradient_norms: tuple[float, ...]
    importance_ratios: tuple[float, ...]
    """mean(ω) of each inner batch, the aborted one included."""
    learning_rate: float
    skipped_steps: int
    """Steps left out because they would have made the parameters infinite or NaN."""
    seconds: float
    """From the round's opening until the next could open. Differs between runs, like nothing else here."""
    world_returns: dict[int, float] | None = None
    """Mean greedy return in the world of each agent; None for a round after which that was not asked for."""
    vote_trajectories: dict[int, int] | None = None
    """For how many trajectories each vote counted; None where that was B_t for all."""
    pairwise_distances: str | None = None
    """Distances between the voters' gradients, as `fedpg_server.learning.pairwise` packs them; None for a round of
    more than 50 voters."""

    @property
    def is_selective(self) -> bool:
        """Whether the rule chose among the voters: where it selects nobody in particular, nobody was "accepted"."""
        return bool(self.weights) or bool(self.filtered)

    @property
    def evaluation_return(self) -> float:
        """Mean greedy return."""
        return sum(self.evaluation_returns) / len(self.evaluation_returns)

    @property
    def evaluation_length(self) -> float:
        """Mean greedy episode length in steps."""
        return sum(self.evaluation_lengths) / len(self.evaluation_lengths)

    def evaluated(self, evaluation: Evaluation) -> RoundRecord:
        """The record of the same round, complete with its evaluation, which is also counted as sampled."""
        trajectories, steps = dict(self.sampled_trajectories), dict(self.environment_steps)
        trajectories["evaluation"] += len(evaluation.returns)
        steps["evaluation"] += sum(evaluation.lengths)
        return replace(
            self,
            sampled_trajectories=trajectories,
            environment_steps=steps,
            evaluation_returns=evaluation.returns,
            evaluation_lengths=tuple(float(length) for length in evaluation.lengths),
            world_returns=evaluation.world_returns,
        )

    def to_json(self) -> str:
        """The record as one line of JSON, with null for a figure that is not a finite number."""
        return to_json({field.name: getattr(self, field.name) for field in fields(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> RoundRecord:
        """The inverse of `to_json`; a figure that was not a finite number is NaN."""
        values: dict[str, Any] = json.loads(text)
        for name, value in values.items():
            if isinstance(value, list):
                values[name] = tuple(_figure(entry) for entry in value)
            elif isinstance(value, dict):
                values[name] = {key: _figure(entry) for key, entry in value.items()}
        for name in ("gradient_norm", "learning_rate", "seconds"):
            values[name] = _figure(values[name])
        for name in ("centre_distances", "weights", "world_returns", "vote_trajectories"):
            if values.get(name) is not None:
                values[name] = {int(agent): value for agent, value in values[name].items()}
        # A run that was begun before a field was added goes without it.
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})


def _figure(value: Any) -> Any:
    return math.nan if value is None else value


@dataclass(frozen=True)
class OverWorlds:
    """Mean returns in several worlds, over these."""

    mean: float
    worst: float
    spread: float
    """The highest less the lowest."""


def over_worlds(returns: dict[int, float]) -> OverWorlds:
    """What returns by agent come to; there is one at least."""
    values = list(returns.values())
    return OverWorlds(fmean(values), min(values), max(values) - min(values))


def best_return(records: Iterable[RoundRecord]) -> float | None:
    """The highest evaluation return. One that is not a finite number is never the best; None without any other."""
    returns = (record.evaluation_return for record in records)
    return max(filter(math.isfinite, returns), default=None)


def final_return(records: Sequence[RoundRecord]) -> float | None:
    """Mean evaluation return over the last 5 % of trajectories, as the figures are read.

    Rounds whose return is not a finite number are left out; None if that leaves none.
    """
    if not records:
        return None
    end = records[-1].trajectories_total
    last = [record for record in records if record.trajectories_total > end * (1 - FINAL_FRACTION)]
    returns = [record.evaluation_return for record in last if math.isfinite(record.evaluation_return)]
    return fmean(returns) if returns else None
