"""Round records as TensorBoard scalars."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Protocol

from fedpg_common.errors import StorageError
from fedpg_common.parameters import Vector

from fedpg_server.records import RoundRecord


class Observer(Protocol):
    """Whatever wants to see every closed round."""

    def record(self, record: RoundRecord, theta: Vector) -> None:
        """Take one closed round and the parameters (d,) after it."""

    def close(self) -> None:
        """Write what is buffered."""


class TensorBoard:
    """Writes TensorBoard event files. The step is the trajectory count, as in the published figures."""

    def __init__(self, folder: Path, resumed_at: int | None = None) -> None:
        """Write below `folder`; events at or after the trajectory count `resumed_at` are superseded.

        Raises StorageError if the folder is not writable.
        """
        from torch.utils.tensorboard import SummaryWriter  # takes a second to import, so only where it is used

        try:
            self._writer = SummaryWriter(str(folder), purge_step=resumed_at)
        except OSError as error:
            raise StorageError(f"cannot write in {folder}: {error.strerror}") from error

    def record(self, record: RoundRecord, theta: Vector) -> None:
        """Write the round's scalars."""
        for name, value in scalars(record):
            self._writer.add_scalar(name, value, record.trajectories_total)
        self._writer.flush()

    def close(self) -> None:
        """Write what is buffered."""
        self._writer.close()


def scalars(record: RoundRecord) -> Iterator[tuple[str, float]]:
    """The round's scalars by TensorBoard tag."""
    yield "evaluation/return", record.evaluation_return
    yield "evaluation/episode_length", record.evaluation_length
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
    yield "filter/radius", record.radius
    yield "filter/decided_by_rule", {"R1": 1, "R2": 2}.get(record.rule, 0)
    yield from ((f"filter/distance_{kind}", value) for kind, value in record.distances.items())
    yield from ((f"filter/{score}", value) for score, value in record.detection.items())
    yield "sampled/environment_steps", sum(record.environment_steps.values())
    yield "sampled/trajectories", sum(record.sampled_trajectories.values())
    yield "time/round_seconds", record.seconds
