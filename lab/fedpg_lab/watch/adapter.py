"""All that the page knows of other parts of the program: stores, records, listings, curves, a live server's status.

The rest of this package works on the plain values that are made here.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpg_common.errors import RefusedError, StorageError, UnreachableError
from fedpg_common.federation import Federation, method_of
from fedpg_common.files import shown
from fedpg_common.transport.channels import TlsFiles
from fedpg_server.learning.records import RoundRecord
from fedpg_server.learning.records import over_worlds as over_worlds
from fedpg_server.learning.totals import Totals as Totals
from fedpg_server.storage.glance import glance
from fedpg_server.storage.reading import StoredRun
from fedpg_server.storage.store import STORE_NAME, Store

from fedpg_lab.faults.report import JSON_NAME
from fedpg_lab.figures.curves import LEARNING
from fedpg_lab.local.status import fetch_status, to_plain
from fedpg_lab.runs.folders import SUMMARY_NAME, require_run, walk_runs
from fedpg_lab.runs.listing import Progress as Progress
from fedpg_lab.runs.listing import failure_of
from fedpg_lab.runs.listing import line_of as listed_line

Record = RoundRecord
"""What a comparison is made from; this package only keeps them."""
BATCH_ROUNDS = 200
"""Rounds that are read at once: a round of a thousand agents is some ten kilobytes."""
SLIM: Mapping[str, Any] = {
    "accepted": (), "filtered": (), "absent": (), "centre_distances": {}, "weights": {}, "inner_gradient_norms": (),
    "importance_ratios": (), "pairwise_distances": None, "vote_trajectories": None,
}  # fmt: skip
"""What is left out of the records that are kept: what has an entry per agent or inner step."""
FIGURES = ("batch_size", "gradient_norm", "loss", "learning_rate", "seconds", "training_length",
           "evaluation_length", "inner_steps_taken")  # fmt: skip
"""Fields of a record that are shown as figures, beside those that the aggregator gives."""
STATUS_TIMEOUT_S = 2.0
CHECKED_BYTES = 32 * 1024 * 1024
"""A store up to this size is checked as a whole when it is first read: larger ones take seconds, and are not."""


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
    is_selective: bool
    """Whether the rule chose among the voters; where it did not, nobody was "accepted"."""
    distances: Mapping[int, float]
    weights: Mapping[int, float | None]
    figures: Mapping[str, float | None]
    worlds: dict[int, float]
    """Mean return in the world of each agent; empty for a round after which these were not played."""
    whole: RoundRecord
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
        self._opened = ExitStack()
        with ExitStack() as opening:
            look_into = looking(self._folder, self._run_id is None)
            self._store = opening.enter_context(look_into(self._folder / STORE_NAME))
            facts = facts_of(self._store.run_id, self._store.federation)
            after = self._after if facts.run_id == self._run_id else 0
            fine = ("ACCEPTED", "DUPLICATE")
            refusals = {
                agent: {verdict.label: number for verdict, number in counts.items() if verdict.name not in fine}
                for agent, counts in self._store.refusal_counts().items()
            }
            reading = Reading(
                facts,
                self._batches(after),
                lambda number: frozenset(self._store.vote_digests(number)),
                {agent: counts for agent, counts in refusals.items() if counts},
                [int(entry["after_round"]) for entry in self._store.extensions()],
            )
            self._opened = opening.pop_all()
        return reading

    def __exit__(self, *_exception: object) -> None:
        """Close the store."""
        self._opened.close()

    def _batches(self, after: int) -> Iterator[list[Round]]:
        while done := self._store.records(after=after, limit=BATCH_ROUNDS):
            yield [round_of(record) for record in done]
            after = done[-1].round_number


def looking(folder: Path, is_new: bool) -> Callable[[Path], AbstractContextManager[StoredRun]]:
    """How a store is opened: checked as a whole where it is new to the page and that is quick."""
    try:
        is_small = (folder / STORE_NAME).stat().st_size <= CHECKED_BYTES
    except OSError:
        is_small = True  # whoever opens it says why not
    return Store.read if is_new and is_small else glance


def read_records(folder: Path, numbers: Sequence[int]) -> list[RoundRecord]:
    """These rounds, whole, without those that have not ended. Raises StorageError."""
    with glance(folder / STORE_NAME) as store:
        found = [record for number in numbers for record in store.records(after=number - 1, limit=1)]
    return [record for record in found if record.round_number in set(numbers)]


def facts_of(run_id: str, federation: Federation) -> Facts:
    """What the page says of a description."""
    return Facts(
        run_id=run_id,
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
        is_selective=record.is_selective,
        distances=record.centre_distances,
        weights=dict(record.weights or {}),
        figures=figures,
        worlds=dict(record.world_returns or {}),
        whole=record,
        record=dataclasses.replace(record, **{name: value for name, value in SLIM.items() if name in known}),
    )


def signature(folder: Path) -> tuple[object, ...]:
    """Changes whenever the run in `folder` may have changed."""
    marks: list[object] = [Store.is_live(folder / STORE_NAME)]
    for name in (STORE_NAME, f"{STORE_NAME}-wal", SUMMARY_NAME, JSON_NAME):
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


def results_of(totals: Totals) -> dict[str, float | None]:
    """The final and the best return."""
    return {"final": totals.returns.final, "best": totals.returns.best}


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


def line_of(folder: Path, is_new: bool, progress: Progress) -> dict[str, Any]:
    """The run in a line, as `fedpg runs --format json` has it; `progress` is what was read of it before."""
    line = listed_line(folder, looking(folder, is_new), progress)
    return {name: str(value) if name == "state" else value for name, value in dataclasses.asdict(line).items()}


def ask_status(address: str, tls: TlsFiles | None, run_id: str) -> dict[str, Any] | None:
    """The status of the run at `address`; None if nobody answers in time, or for another run."""
    try:
        reply = fetch_status(address, tls, STATUS_TIMEOUT_S)
    except (UnreachableError, RefusedError):
        return None
    return to_plain(reply) if reply.run_id == run_id else None
