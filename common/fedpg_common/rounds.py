"""About how many rounds a run has: for who wants something done every so many of them."""

from __future__ import annotations

import math

from fedpg_common.federation import Federation

SAMPLED_BY_SERVER = ("fedpg-br", "fedpg-guard", "svrpg")
"""Algorithms with an inner loop, whose trajectories count, too."""


def rounds_of(federation: Federation) -> tuple[int, int] | None:
    """The fewest and the most rounds that a run is likely to have; None for an algorithm that does not come with FedPG.

    The most is a bound, but for a round that takes longer than its share: every batch as small as it can be, and no
    inner step. docs/algorithm.md, "Trajectory count".
    """
    batches = _batches(federation)
    if batches is None:
        return None
    least, most = batches
    b = federation.task.mini_batch_size
    # N_t is 1 + B_t/b on average, and b · N_t trajectories are b + B_t; early ends of the inner loop make it less.
    inner = b + most if federation.algorithm.name in SAMPLED_BY_SERVER else 0
    total = federation.task.trajectories
    return math.ceil(total / _counted(federation, most, inner)), math.ceil(total / _counted(federation, least, 0))


def _batches(federation: Federation) -> tuple[int, int] | None:
    """The smallest and the largest B_t."""
    task, settings = federation.task, federation.algorithm.settings
    match federation.algorithm.name:
        case "fedpg-br" | "fedpg-guard":
            return task.batch_size_min, task.batch_size_max
        case "svrpg" | "gpomdp":
            return task.batch_size, task.batch_size
        case "res-nharpg":
            batch = int(settings.get("batch", 2))
            return batch, batch
        case "byzpg":
            small, large = settings.get("small"), settings.get("large")
            return int(small or task.mini_batch_size), int(large or 3 * task.batch_size)
    return None


def _counted(federation: Federation, batch_size: int, inner: int) -> int:
    """What a round of B_t = `batch_size` counts on the axis of trajectories; 1 at least."""
    K = federation.agents
    asked = sum(federation.speed_of(agent).most(batch_size) for agent in range(1, K + 1))
    return max(1, round((asked + inner) / (K + 1)) if K > 1 else asked + inner)


def why_no_worlds(federation: Federation) -> str | None:
    """A sentence on a run that is to be evaluated in all worlds so rarely that it may end before; None otherwise."""
    every, likely = federation.worlds_every, rounds_of(federation)
    if not every or likely is None or every <= likely[0]:
        return None
    fewest, most = likely
    about = f"about {most}" if fewest == most else f"{fewest} to {most}"
    when = "never" if every > most else "at the end, if at all"
    return (
        f"worlds_every is {every}, and a run of {federation.task.trajectories} trajectories has {about} rounds: "
        f"policies are evaluated in the agents' worlds {when}"
    )
