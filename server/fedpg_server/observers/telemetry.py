"""Round records as TensorBoard scalars, and the run's description as hyperparameters."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from fedpg_common.errors import StorageError
from fedpg_common.federation import Federation
from fedpg_common.learning.parameters import Vector
from fedpg_common.tasks import task_to_fields

from fedpg_server.learning.records import RoundRecord, over_worlds
from fedpg_server.learning.totals import Totals
from fedpg_server.observers.base import Observed
from fedpg_server.observers.scalar_help import describe_scalar

SHOWN_AS_RESULTS = ("summary/final_return", "summary/best_return", "summary/environment_steps")
"""The scalars that stand beside the hyperparameters."""


log = logging.getLogger(__name__)


class TensorBoard:
    """Writes TensorBoard event files. The step is the trajectory count, as in the published figures."""

    def __init__(self, observed: Observed) -> None:
        """Write below the run folder; events after the rounds so far are superseded.

        Raises StorageError if the folder is not writable.
        """
        from fedpg_server.observers.event_files import EventFile  # TensorBoard is imported where it is used

        records, folder = observed.records, observed.folder
        self._totals = Totals(records)
        self._described: set[str] = set()
        self._folder = folder
        self._is_broken = False
        self._files: set[Path] = set()
        earlier = self._event_files()
        try:
            resumed_at = records[-1].trajectories_total + 1 if records else None
            self._file = EventFile(folder, purge_from=resumed_at)
        except OSError as error:
            raise StorageError(f"cannot write in {folder}: {error.strerror}") from error
        self._write(lambda: self._write_hyperparameters(observed.federation))
        self._files = self._event_files() - earlier

    def record(self, record: RoundRecord, theta: Vector) -> None:
        """Write the round's scalars."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._totals.add(record)
        values = [self._value(name, value) for name, value in (*scalars(record), *totals(self._totals))]
        self._write(lambda: self._file.add([Summary(value=values)], step=record.trajectories_total))

    def close(self) -> None:
        """Write what is buffered."""
        from fedpg_server.observers.event_files import session_end

        self._write(lambda: self._file.add(session_end()))
        self._write(self._file.close)

    def _write(self, action: Callable[[], None]) -> None:
        """Write, unless that has failed before. The run does not depend on these files: it goes on without them."""
        if self._is_broken:
            return
        try:
            for file in self._files:  # one that has been removed could still be written, for nobody
                file.stat()
            action()
        except (OSError, ValueError) as error:  # the latter: the file was closed by a failure before
            self._is_broken = True
            log.warning("no more TensorBoard files: %s cannot be written: %s", self._folder, error)

    def _event_files(self) -> set[Path]:
        return set(self._folder.glob("events.out.tfevents.*"))

    def _value(self, name: str, value: float) -> Any:
        """A scalar as TensorBoard's files hold it; with its description where it stands for the first time."""
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata

        if name in self._described:
            return Summary.Value(tag=name, simple_value=value)
        self._described.add(name)
        scalars = SummaryMetadata.PluginData(plugin_name="scalars")  # without it TensorBoard drops the description
        about = SummaryMetadata(plugin_data=scalars, summary_description=describe_scalar(name))
        return Summary.Value(tag=name, simple_value=value, metadata=about)

    def _write_hyperparameters(self, federation: Federation) -> None:
        """Start a session of TensorBoard's table of hyperparameters."""
        from fedpg_server.observers.event_files import session_start

        self._file.add(session_start(hyperparameters(federation), SHOWN_AS_RESULTS))


def hyperparameters(federation: Federation) -> dict[str, str | float]:
    """The description of a run by name, the same names for every run, as TensorBoard's table wants them."""
    attacks = sorted({attack.label for attack in federation.byzantine.values()})
    values: dict[str, str | float] = {
        "algorithm": " + ".join(part.label for part in (federation.algorithm, federation.aggregator) if part),
        "agents": federation.agents,
        "byzantine": len(federation.byzantine),
        "attack": ", ".join(attacks) or "none",
        "training_seed": federation.seed,  # sorts behind `task`: the page ticks only the first five that differ
    }
    for name, value in {"baseline": "none", **task_to_fields(federation.task)}.items():
        key = "task" if name == "name" else f"task.{name}"  # sorts behind the rest
        values[key] = value if isinstance(value, int | float) else str(value)
    return values


def totals(rounds: Totals) -> Iterator[tuple[str, float]]:
    """By TensorBoard tag: the final return and its like, if the run ended here and where there is one."""
    results = {"summary/final_return": rounds.returns.final, "summary/best_return": rounds.returns.best}
    yield from ((name, value) for name, value in results.items() if value is not None)
    yield "summary/environment_steps", rounds.environment_steps
    for rule, count in rounds.rules.items():
        yield f"decided_by/{rule.replace(' ', '-')}", count / rounds.returns.rounds


def scalars(record: RoundRecord) -> Iterator[tuple[str, float]]:
    """The round's scalars by TensorBoard tag."""
    yield "evaluation/return", record.evaluation_return
    yield "evaluation/episode_length", record.evaluation_length
    if record.world_returns:
        worlds = over_worlds(record.world_returns)
        yield "worlds/mean_return", worlds.mean
        yield "worlds/worst_return", worlds.worst
        yield "worlds/spread", worlds.spread
    optional = {
        "training/return": record.training_return,
        "training/episode_length": record.training_length,
        "training/loss": record.loss,
    }
    yield from ((name, value) for name, value in optional.items() if value is not None)
    yield "training/gradient_norm", record.gradient_norm
    yield "training/learning_rate", record.learning_rate
    yield "training/batch_size", record.batch_size
    yield "inner/steps_drawn", record.inner_steps
    yield "inner/steps_taken", record.inner_steps_taken
    if record.importance_ratios:
        yield "inner/importance_ratio_last", record.importance_ratios[-1]
        yield "inner/importance_ratio_mean", fmean(record.importance_ratios)
    if record.inner_gradient_norms:
        yield "inner/gradient_norm", fmean(record.inner_gradient_norms)
    yield "filter/accepted", len(record.accepted)
    yield "filter/filtered", len(record.filtered)
    yield "filter/absent", len(record.absent)
    yield from ((f"filter/{name}", value) for name, value in record.figures.items())
    weights = record.weights or {}
    if any(0.0 < weight < 1.0 for weight in weights.values()):  # otherwise it is who was accepted
        yield from ((f"weights/agent-{agent}", weight) for agent, weight in weights.items())
    yield from ((f"filter/distance_{kind}", value) for kind, value in record.distances.items())
    yield from ((f"filter/{score}", value) for score, value in record.detection.items())
    yield "sampled/environment_steps", sum(record.environment_steps.values())
    yield "sampled/trajectories", sum(record.sampled_trajectories.values())
    yield "time/round_seconds", record.seconds
