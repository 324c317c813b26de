"""Policies exported as safetensors while the run goes on."""

from __future__ import annotations

import math

from fedpg_common.checkpoints import Checkpoint, write_checkpoint
from fedpg_common.errors import StorageError
from fedpg_common.parameters import Vector
from fedpg_common.tasks import is_whole, show

from fedpg_server.observers import Observed
from fedpg_server.records import RoundRecord, best_return


class CheckpointExporter:
    """Keeps latest.safetensors, best.safetensors (highest evaluation return) and one every few rounds.

    A return that is not a finite number is never the best, and does not keep others from it.
    """

    def __init__(self, observed: Observed, every_rounds: int = 50) -> None:
        """Write below the run folder, one to keep every `every_rounds`. Raises StorageError."""
        if not (is_whole(every_rounds) and every_rounds >= 1):
            raise ValueError(f"every_rounds must be a whole number of at least 1, not {show(every_rounds)}")
        folder = observed.folder / "checkpoints"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make the folder {folder}: {error.strerror}") from error
        self._folder = folder
        self._task = observed.federation.task
        self._spec = observed.spec
        self._every_rounds = every_rounds
        self._best_return = best_return(observed.records)

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
