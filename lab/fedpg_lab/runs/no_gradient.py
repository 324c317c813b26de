"""Runs in which no gradient survived the aggregator: the agents had no part in them, which is to be told."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from fedpg_common.federation import Federation
from fedpg_common.shipped import ALGORITHMS
from fedpg_common.words import count
from fedpg_server.learning.records import RoundRecord

from fedpg_lab.runs.folders import RunData

TOLD_FROM = 0.1
"""Fewer rounds than this part of a run happen to a filter that does its work."""
LONE = "∅"
"""What stands beside the return of a run of which the agents had no part, in the matrix of an experiment."""
LONE_FROM = 0.5
"""That is so if no gradient survived in more than this part of its rounds."""
LONE_MEANS = (
    f"{LONE}: in a run, no gradient survived in more than half of the rounds. What was learned there, the server "
    "learned alone, and the return says nothing about the rule."
)


def describe_no_gradient(run: RunData) -> str | None:
    """In how many rounds no gradient survived, and what to look at; None where these were few."""
    lone = [record for record in run.records if not record.has_mu]
    if not lone or len(lone) < TOLD_FROM * len(run.records):
        return None
    learned = "the server learned alone" if any(record.inner_steps_taken for record in lone) else "nothing was learned"
    rounds = count(len(run.records), "round")
    return f"In {len(lone):,} of {rounds} no gradient survived: {learned}. {_advice(run, lone)}"


def _advice(run: RunData, lone: Sequence[RoundRecord]) -> str:
    """What to ask next, by what the rule is."""
    federation = run.federation
    poisoners, agents = len(federation.poisoners), federation.agents
    voters = max(len(record.accepted) + len(record.filtered) for record in lone)
    if not voters:
        return f"Nobody voted in them: see the logs, or fedpg watch {shlex.quote(str(run.folder))}"
    name = _rule_of(federation)
    if name is None or ":" in name:
        return "Does the rule answer with numbers? " + (f"fedpg check {name}" if name else _look(run))
    if name != "fedpg":
        return f"See what {name} made of the votes: {_look(run)}"
    if 2 * poisoners >= agents:
        return f"{poisoners} of {agents} agents attack, and the filter needs a majority"
    return f"Does sigma fit? {_spread(lone)}{_look(run)}"


def _rule_of(federation: Federation) -> str | None:
    """The aggregator's name; None where only an algorithm of one's own knows it."""
    if federation.aggregator is not None:
        return federation.aggregator.name
    if ":" in federation.algorithm.name:
        return None
    algorithm: Any = ALGORITHMS.find(federation.algorithm.name)
    return str(algorithm.default_aggregator)


def _spread(lone: Sequence[RoundRecord]) -> str:
    """How far the honest gradients lay apart, beside what the filter allows; empty where that was not kept."""
    spreads = [record.distances.get("good", math.nan) for record in lone]
    known = [spread for spread in spreads if math.isfinite(spread)]
    radius = lone[-1].figures.get("radius")
    if not known or radius is None:
        return ""
    return f"Honest gradients lay {fmean(known):.2g} apart on average; within {radius:.2g} they count as near. "


def _look(run: RunData) -> str:
    """The command that shows the rounds: distances are drawn only where there was something to measure from."""
    folder = shlex.quote(str(run.folder))
    if any(record.centre_distances for record in run.records):
        return f"fedpg figure {folder} --kind distances"
    return f"fedpg watch {folder}"
