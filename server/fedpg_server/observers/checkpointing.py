"""Policies exported as safetensors while the run goes on."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from fedpg_common.checks import is_whole, show
from fedpg_common.errors import StorageError
from fedpg_common.learning.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from fedpg_common.learning.parameters import Vector

from fedpg_server.learning.records import RoundRecord
from fedpg_server.observers.base import Observed
from fedpg_server.storage.damage import CHECKPOINT_FOLDER

LATEST, BEST = "latest.safetensors", "best.safetensors"

log = logging.getLogger(__name__)


class CheckpointExporter:
    """Keeps latest.safetensors, best.safetensors (highest evaluation return) and one every few rounds.

    A return that is not a finite number is never the best, and does not keep others from it. What an earlier process
    could not export any more, or what has been deleted or damaged since, is exported from the store at the start.
    """

    def __init__(self, observed: Observed, every_rounds: int = 50) -> None:
        """Write below the run folder, one to keep every `every_rounds`. Raises StorageError."""
        if not (is_whole(every_rounds) and every_rounds >= 1):
            raise ValueError(f"every_rounds must be a whole number of at least 1, not {show(every_rounds)}")
        folder = observed.folder / CHECKPOINT_FOLDER
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make the folder {folder}: {error.strerror}") from error
        self._folder = folder
        self._task = observed.federation.task
        self._spec = observed.spec
        self._every_rounds = every_rounds
        best = _best(observed.records)
        self._best_return = None if best is None else best.evaluation_return
        self._make_good(observed, best)

    def record(self, record: RoundRecord, theta: Vector) -> None:
        """Export the parameters (d,) after a round."""
        self._write(LATEST, record, theta)
        if self._is_best(record.evaluation_return):
            self._write(BEST, record, theta)
            self._best_return = record.evaluation_return
        if record.round_number % self._every_rounds == 0:
            self._write(_name(record), record, theta)

    def _is_best(self, evaluation_return: float) -> bool:
        if not math.isfinite(evaluation_return):
            return False
        return self._best_return is None or evaluation_return > self._best_return

    def close(self) -> None:
        """Nothing is buffered."""

    def _make_good(self, observed: Observed, best: RoundRecord | None) -> None:
        """Export what the store has and the files have not. A file of the right round that can be read stays."""
        if observed.parameters is None or not observed.records:
            return
        wanted = {_name(record): record for record in observed.records if record.round_number % self._every_rounds == 0}
        wanted[LATEST] = observed.records[-1]
        if best is not None:
            wanted[BEST] = best
        for name, record in wanted.items():
            if self._has(name, record):
                continue
            theta = observed.parameters(record.round_number)
            if theta is not None:
                self._write(name, record, theta)
                log.info("%s is exported again, of round %d", self._folder / name, record.round_number)
            elif name in (LATEST, BEST):
                log.warning("%s is not that of round %d, whose parameters are not kept any more",
                            self._folder / name, record.round_number)  # fmt: skip

    def _has(self, name: str, record: RoundRecord) -> bool:
        try:
            found = read_checkpoint(self._folder / name)
        except StorageError:  # missing or damaged
            return False
        return found.round_number == record.round_number and found.spec == self._spec

    def _write(self, name: str, record: RoundRecord, theta: Vector) -> None:
        checkpoint = Checkpoint(theta, self._spec, self._task, record.round_number, record.evaluation_return)
        write_checkpoint(self._folder / name, checkpoint)


def _name(record: RoundRecord) -> str:
    return f"round-{record.round_number:06d}.safetensors"


def _best(records: Sequence[RoundRecord]) -> RoundRecord | None:
    """The first of those with the highest return that is a number."""
    finite = [record for record in records if math.isfinite(record.evaluation_return)]
    return max(finite, key=lambda record: record.evaluation_return, default=None)
