"""TensorBoard files or checkpoints that disappear during a run are one warning; a store that does ends it."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fedpg_common.descriptions import describe
from fedpg_common.errors import StorageError
from fedpg_common.learning.parameters import ParameterSpec, TensorSpec
from fedpg_server.observers.base import Observed, Observers
from fedpg_server.observers.checkpointing import CheckpointExporter
from fedpg_server.observers.telemetry import TensorBoard
from fedpg_server.storage.store import STORE_NAME
from support.protocol import idle_federation, make_round_record, serving

SPEC = ParameterSpec((TensorSpec("w", (3,)),))
THETA = np.zeros(3, np.float32)


@pytest.mark.parametrize("make", [TensorBoard, CheckpointExporter])
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("damage", [shutil.rmtree, lambda folder: folder.rename(folder.with_name("elsewhere"))])
def test_a_folder_that_disappears(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    make: type[TensorBoard] | type[CheckpointExporter],
    damage: Callable[[Path], object],
) -> None:
    folder = tmp_path / "run"
    observers = Observers([make(Observed(folder, describe("CartPole-v1"), SPEC, []))])
    observers.record(make_round_record(1), THETA)
    damage(folder)
    with caplog.at_level(logging.WARNING):
        for number in range(2, 6):
            observers.record(make_round_record(number), THETA)
        observers.close()
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert not any(record.exc_info for record in warnings)


@pytest.mark.parametrize("name", [STORE_NAME, f"{STORE_NAME}-wal", "run.mark"])
def test_a_store_that_disappears_ends_the_run_at_its_next_round(tmp_path: Path, name: str) -> None:
    async def play() -> None:
        async with serving(tmp_path, idle_federation(agents=2, rounds=50)) as door:
            round_ = await door.open_round(1, 0)
            await door.vote(1, round_)
            await door.vote(2, round_)
            round_ = await door.open_round(1, 1)
            (tmp_path / name).unlink()
            await asyncio.gather(door.vote(1, round_), return_exceptions=True)
            assert door.rounds is not None
            with pytest.raises(StorageError, match=f"{name} has been removed while the server used it"):
                await door.rounds

    asyncio.run(asyncio.wait_for(play(), 300))
