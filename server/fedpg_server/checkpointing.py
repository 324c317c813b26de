"""Policies exported as safetensors while the run goes on."""

from __future__ import annotations

import math
from pathlib import Path

from fedpg_common.checkpoints import Checkpoint, write_checkpoint
from fedpg_common.errors import StorageError
from fedpg_common.parameters import ParameterSpec, Vector
from fedpg_common.tasks import Task

from fedpg_server.records import RoundRecord


class CheckpointExporter:
    """Keeps latest.safetensors, best.safetensors (highest evaluation return) and one every few rounds.

    A return that is not a finite number is never the best, and does not keep others from it.
    """

    def __init__(
        self, folder: Path, task: Task, spec: ParameterSpec, every_rounds: int, best_return: float | None
    ) -> None:
        """Write below `folder`; `best_return` is the best so far when a run is resumed. Raises StorageError."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make the folder {folder}: {error.strerror}") from error
        self._folder = folder
        self._task = task
        self._spec = spec
        self._every_rounds = every_rounds
        self._best_return = best_return

    def record(self, record: RoundRecord, theta: Vector) -> None:
        """Export the parameters (d,) after a round."""
        checkpoint = Checkpoint(theta, self._spec, self._task, record.round_number, record.evaluation_return)
        write_checkpoint(self._folder / "latest.safetensors", checkpoint)
        if self._is_best(record.evaluation_return):
            self._best_return = record.evaluation_return
            write_checkpoint(self._folder / "best.safetensors", checkpoint)
        if record.round_number % self._every_rounds == 0:
            write_checkpoint(self._folder / f"round-{record.round_number:06d}.safetensors", checkpoint)

    def _is_best(self, evaluation_return: float) -> bool:
        if not math.isfinite(evaluation_return):
            return False
        return self._best_return is None or evaluation_return > self._best_return

    def close(self) -> None:
        """Nothing is buffered."""
