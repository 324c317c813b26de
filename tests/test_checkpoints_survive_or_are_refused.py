"""A policy exported during a run can be read back with its task; a damaged file is refused with one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fedpg_common.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from fedpg_common.errors import StorageError
from fedpg_common.federation import describe
from fedpg_common.parameters import ParameterSpec, TensorSpec
from fedpg_common.tasks import CARTPOLE, LUNAR_LANDER, task_to_fields
from fedpg_server.checkpointing import CheckpointExporter
from fedpg_server.observers import Observed
from safetensors.numpy import save
from support import make_round_record

SPEC = ParameterSpec((TensorSpec("b", (2, 3)), TensorSpec("a", (4,)), TensorSpec("c", (1,))))


def observed(folder: Path, *returns: float) -> Observed:
    """A run with these returns so far."""
    records = [make_round_record(n, evaluation_returns=(mean,)) for n, mean in enumerate(returns, start=1)]
    return Observed(folder, describe("CartPole-v1"), SPEC, records)


THETA = np.linspace(0, 1, SPEC.size, dtype=np.float32)


def test_it_comes_back_bit_for_bit_in_its_own_order(tmp_path: Path) -> None:
    written = Checkpoint(THETA, SPEC, LUNAR_LANDER, 12, 123.25)
    write_checkpoint(tmp_path / "policy.safetensors", written)
    found = read_checkpoint(tmp_path / "policy.safetensors")
    assert found.theta.tobytes() == THETA.tobytes()
    assert (found.spec, found.task, found.round_number, found.evaluation_return) == (SPEC, LUNAR_LANDER, 12, 123.25)
    assert [path.name for path in tmp_path.iterdir()] == ["policy.safetensors"], "no half file is left"


def test_latest_best_and_every_few_rounds_are_kept(tmp_path: Path) -> None:
    exporter = CheckpointExporter(observed(tmp_path), every_rounds=2)
    for number, mean_return in enumerate((10.0, 50.0, 30.0, 50.0), start=1):
        exporter.record(make_round_record(number, evaluation_returns=(mean_return,)), THETA + np.float32(number))
    exporter.close()
    kept = {path.name: read_checkpoint(path) for path in (tmp_path / "checkpoints").iterdir()}
    assert {name: (one.round_number, one.evaluation_return) for name, one in kept.items()} == {
        "latest.safetensors": (4, 50.0), "best.safetensors": (2, 50.0),
        "round-000002.safetensors": (2, 50.0), "round-000004.safetensors": (4, 50.0),
    }  # fmt: skip
    assert kept["best.safetensors"].theta.tolist() == (THETA + np.float32(2)).tolist()


def test_a_resumed_run_keeps_its_best(tmp_path: Path) -> None:
    exporter = CheckpointExporter(observed(tmp_path, 50.0))
    exporter.record(make_round_record(9, evaluation_returns=(49.0,)), THETA)
    assert not (tmp_path / "checkpoints" / "best.safetensors").exists()


def metadata(**changes: object) -> dict[str, str]:
    about = {
        "tensors": [["w", [2]]], "task": task_to_fields(CARTPOLE), "round": 1, "evaluation_return": None, **changes,
    }  # fmt: skip
    return {"fedpg": json.dumps(about)}


def made(about: dict[str, str] | None, size: int = 2) -> bytes:
    return bytes(save({"w": np.zeros(size, np.float32)}, metadata=about))


def test_the_parts_of_a_made_file_are_right(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(made(metadata()))
    assert read_checkpoint(tmp_path / "x").theta.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\x00" * 100, made(metadata())[:-3], made(None), made({"other": "{}"}), made({"fedpg": "{"}),
        made({"fedpg": "[]"}), made(metadata(tensors=[])), made(metadata(tensors=[["v", [2]]])),
        made(metadata(tensors=[["w", [3]]])), made(metadata(tensors=[["w", ["x"]]])), made(metadata(tensors=3)),
        made(metadata(task={})), made(metadata(task=3)), made(metadata(round="x")), made(metadata(round=None)),
        made(metadata(), size=5),
    ],
)  # fmt: skip
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "policy.safetensors"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"policy\.safetensors") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def in_the_way(folder: Path) -> None:
    folder.write_text("a file")


@pytest.mark.parametrize("prepare", [in_the_way, lambda folder: None])
def test_a_folder_that_is_none_is_told(tmp_path: Path, prepare: Callable[[Path], None]) -> None:
    prepare(tmp_path / "folder")
    with pytest.raises(StorageError, match="cannot be written"):
        write_checkpoint(tmp_path / "folder" / "x.safetensors", Checkpoint(THETA, SPEC, CARTPOLE, 1, None))
    with pytest.raises(StorageError, match="there is no checkpoint"):
        read_checkpoint(tmp_path / "folder" / "x.safetensors")
