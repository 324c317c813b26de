"""All that the page knows of other parts of the program: stores, records, listings, curves, a live server's status.

The rest of this package works on the plain values that are made here.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedpg_common.errors import RefusedError, StorageError, UnreachableError
from fedpg_common.federation import Federation, method_of
from fedpg_common.files import shown
from fedpg_common.transport.channels import TlsFiles
from fedpg_server.learning.records import RoundRecord, best_return, final_return
from fedpg_server.storage.store import STORE_NAME, Store

from fedpg_lab.figures.curves import LEARNING, Group, group_runs, mean_curve
from fedpg_lab.figures.published import published_for
from fedpg_lab.local.status import fetch_status, to_plain
from fedpg_lab.runs.folders import SUMMARY_NAME, RunData, require_run, walk_runs
from fedpg_lab.runs.listing import failure_of, list_runs

Record = RoundRecord
"""What a comparison is made from; this package only keeps them."""
BATCH_ROUNDS = 200
"""Rounds that are read at once: a round of a thousand agents is some ten kilobytes."""
SLIM: Mapping[str, Any] = {
    "accepted": (), "filtered": (), "absent": (), "centre_distances": {}, "weights": {}, "inner_gradient_norms": (),
    "importance_ratios": (),
}  # fmt: skip
"""What is left out of the records that are kept: what has an entry per agent or inner step."""
FIGURES = ("batch_size", "gradient_norm", "loss", "learning_rate", "seconds", "training_length",
           "evaluation_length", "inner_steps_taken")  # fmt: skip
"""Fields of a record that are shown as figures, beside those that the aggregator gives."""
STATUS_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Facts:
    """What a run's description says."""

    run_id: str
    task: str
    algorithm: str
    agents: int
    seed: int
    target: int
    """Trajectories at which it ends."""
    quorum: int
    round_timeout_s: float
    byzantine: Mapping[int, str]
    """What the described attackers do, by agent; empty where the description names none."""
    federation: Federation


@dataclass(frozen=True)
class Round:
    """One closed round, as the page shows it."""

    number: int
    trajectories: int
    sampled: int
    """By all agents and the server in this round, without evaluation."""
    evaluation: float
    training: float | None
    rule: str
    steps: int
    seconds: float
    accepted: Sequence[int]
    filtered: Sequence[int]
    distances: Mapping[int, float]
    weights: Mapping[int, float | None]
    figures: Mapping[str, float | None]
    record: RoundRecord
    """Without what has an entry per agent."""


@dataclass(frozen=True)
class Reading:
    """What a store says at one moment."""

    facts: Facts
    rounds: Iterator[list[Round]]
    """The new rounds, in batches; to be read before the store is closed."""
    voters: Callable[[int], frozenset[int]]
    """Who has voted in a round; like `rounds`."""
    refusals: Mapping[int, Mapping[str, int]]
    """Submissions that were refused, by agent and why; agent 0 stands for callers that are not members."""
    extensions: Sequence[int]
    """The rounds after which the run was given another end."""


class RunStore:
    """Reads one run's store; each reading is a context of its own."""

    def __init__(self, folder: Path, run_id: str | None, after: int) -> None:
        """The rounds after `after` of the run `run_id`, or all if the store holds another run."""
        self._folder, self._run_id, self._after = folder, run_id, after

    def __enter__(self) -> Reading:
        """Raises StorageError, UsageError."""
        self._store = Store.read(self._folder / STORE_NAME)
        try:
            facts = facts_of(self._store)
            after = self._after if facts.run_id == self._run_id else 0
            fine = ("ACCEPTED", "DUPLICATE")
            refusals = {
                agent: {verdict.label: number for verdict, number in counts.items() if verdict.name not in fine}
                for agent, counts in self._store.refusal_counts().items()
            }
            return Reading(
                facts,
                self._batches(after),
                lambda number: frozenset(self._store.vote_digests(number)),
                {agent: counts for agent, counts in refusals.items() if counts},
                [int(entry["after_round"]) for entry in self._store.extensions()],
            )
        except BaseException:
            self._store.close()
            raise

    def __exit__(self, *_exception: object) -> None:
        """Close the store."""
        self._store.close()

    def _batches(self, after: int) -> Iterator[list[Round]]:
        while done := self._store.records(after=after, limit=BATCH_ROUNDS):
            yield [round_of(record) for record in done]
            after = done[-1].round_number


def facts_of(store: Store) -> Facts:
    """The description in a store."""
    federation = store.federation
    return Facts(
        run_id=store.run_id,
        task=federation.task.name,
        algorithm=method_of(federation),
        agents=federation.agents,
        seed=federation.seed,
        target=federation.task.trajectories,
        quorum=federation.quorum,
        round_timeout_s=federation.round_timeout_s,
        byzantine={agent: attack.label for agent, attack in federation.byzantine.items()},
        federation=federation,
    )


def round_of(record: RoundRecord) -> Round:
    """A record, as the page shows it."""
    known = {one.name for one in dataclasses.fields(record)}
    figures = {name: getattr(record, name) for name in FIGURES if getattr(record, name, None) is not None}
    figures |= {f"filter {name}": value for name, value in record.detection.items()}
    figures |= dict(record.figures)
    return Round(
        number=record.round_number,
        trajectories=record.trajectories_total,
        sampled=sum(record.sampled_trajectories.get(kind, 0) for kind in LEARNING),
        evaluation=record.evaluation_return,
        training=record.training_return,
        rule=str(record.rule),
        steps=sum(record.environment_steps.values()),
        seconds=record.seconds,
        accepted=record.accepted,
        filtered=record.filtered,
        distances=record.centre_distances,
        weights=dict(record.weights or {}),
        figures=figures,
        record=dataclasses.replace(record, **{name: value for name, value in SLIM.items() if name in known}),
    )


def signature(folder: Path) -> tuple[object, ...]:
    """Changes whenever the run in `folder` may have changed."""
    marks: list[object] = [Store.is_live(folder / STORE_NAME)]
    for name in (STORE_NAME, f"{STORE_NAME}-wal", SUMMARY_NAME):
        try:
            found = os.stat(folder / name)
            marks.append((found.st_mtime_ns, found.st_size, found.st_ino))
        except OSError:
            marks.append(None)
    return tuple(marks)


def state_of(folder: Path, facts: Facts, trajectories: int) -> str:
    """The run's state as `fedpg runs` names it."""
    if trajectories >= facts.target:
        return "finished"
    if Store.is_live(folder / STORE_NAME):
        return "live"
    return "failed" if failure_of(folder) else "unfinished"


def why_failed(folder: Path) -> str | None:
    """The sentence with which the run ended, if it did with one."""
    return failure_of(folder)


def results_of(records: Sequence[RoundRecord]) -> dict[str, float | None]:
    """The final and the best return."""
    return {"final": final_return(records), "best": best_return(records)}


def check_run(folder: Path) -> None:
    """Raise StorageError, which says what is there instead, unless `folder` is a run's."""
    require_run(folder)


def run_folders(folder: Path) -> list[Path]:
    """The run folders at or below `folder`. Raises StorageError for a folder that cannot be read."""
    found = []
    for place, failure in walk_runs(folder):
        if failure is None:
            found.append(place)
        elif place == folder:
            raise StorageError(f"{shown(folder)} cannot be read: {failure.strerror}")
    return sorted(found)


def line_of(folder: Path) -> dict[str, Any]:
    """The run in a line, as `fedpg runs --format json` has it."""
    line = next(line for line in list_runs(folder) if line.run == shown(folder))
    return {name: str(value) if name == "state" else value for name, value in dataclasses.asdict(line).items()}


@dataclass
class Comparison:
    """A federation's curve over its seeds."""

    label: str
    task: str
    attack: str
    seeds: list[int]
    counts: list[float]
    mean: list[float]
    half_width: list[float] | None
    final: float | None
    published: list[tuple[float, float, str]] = field(default_factory=list)
    """(trajectories, return, what it is)."""


def compare(runs: Sequence[tuple[Path, Facts, list[RoundRecord]]], honest: bool, window: int) -> list[Comparison]:
    """Mean and 90 % interval over seeds of the runs that have a round, in the order of the figures."""
    groups = group_runs([RunData(folder, facts.federation, records) for folder, facts, records in runs if records])
    return [one for group in groups if (one := _comparison(group, honest, window)) is not None]


def _comparison(group: Group, honest: bool, window: int) -> Comparison | None:
    curve = mean_curve(group.runs, honest=honest, window=window)
    if curve is None:
        return None
    points: list[tuple[float, float, str]] = []
    published = None if honest else published_for(group.federation)
    if published is not None:
        end = float(curve.counts[-1]) * 1.03
        points = [(float(count), target, "reaches a return") for target, count in published.reaches.items()]
        points.append((float(published.trajectories), published.final, "final return"))
        points = [point for point in points if point[0] <= end]
    finals = [value for run in group.runs if (value := final_return(run.records)) is not None]
    return Comparison(
        group.label,
        group.federation.task.name,
        group.attack,
        [run.federation.seed for run in group.runs],
        curve.counts.tolist(),
        curve.mean.tolist(),
        None if curve.half_width is None else curve.half_width.tolist(),
        sum(finals) / len(finals) if finals else None,
        points,
    )


def ask_status(address: str, tls: TlsFiles | None, run_id: str) -> dict[str, Any] | None:
    """The status of the run at `address`; None if nobody answers in time, or for another run."""
    try:
        reply = fetch_status(address, tls, STATUS_TIMEOUT_S)
    except (UnreachableError, RefusedError):
        return None
    return to_plain(reply) if reply.run_id == run_id else None
