"""A policy exported during a run can be read back with its task; a damaged file is refused with one sentence."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fedpg_common.descriptions import describe
from fedpg_common.errors import StorageError
from fedpg_common.learning.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from fedpg_common.learning.parameters import ParameterSpec, TensorSpec, Vector
from fedpg_common.tasks import CARTPOLE, LUNAR_LANDER, task_to_fields
from fedpg_server.observers.base import Observed
from fedpg_server.observers.checkpointing import CheckpointExporter
from safetensors.numpy import save
from support.protocol import make_round_record

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


# Made good at the start -----------------------------------------------------------------------------------------------

RETURNS = (10.0, 50.0, float("nan"), 50.0, 30.0)


def resumed(folder: Path, *, kept: tuple[int, ...] = (1, 2, 3, 4, 5)) -> dict[str, tuple[int, list[float]]]:
    """What is exported once a run with these returns is taken up, by name: the round, and the first parameters."""

    def parameters(round_number: int) -> Vector | None:
        return THETA + np.float32(round_number) if round_number in kept else None

    CheckpointExporter(replace(observed(folder, *RETURNS), parameters=parameters), every_rounds=2).close()
    found = {path.name: read_checkpoint(path) for path in sorted((folder / "checkpoints").glob("*.safetensors"))}
    return {name: (one.round_number, (one.theta - THETA)[:1].round().tolist()) for name, one in found.items()}


COMPLETE = {
    "best.safetensors": (2, [2.0]), "latest.safetensors": (5, [5.0]),
    "round-000002.safetensors": (2, [2.0]), "round-000004.safetensors": (4, [4.0]),
}  # fmt: skip


def test_what_was_not_exported_is_exported_at_the_start(tmp_path: Path) -> None:
    assert resumed(tmp_path) == COMPLETE


@pytest.mark.parametrize("name", sorted(COMPLETE))
@pytest.mark.parametrize("content", [None, b"", b"rubbish", "older", "newer"])
def test_what_was_lost_damaged_or_left_behind_is_exported_again(
    tmp_path: Path, name: str, content: bytes | str | None
) -> None:
    resumed(tmp_path)
    path = tmp_path / "checkpoints" / name
    if content is None:
        path.unlink()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        write_checkpoint(path, Checkpoint(THETA, SPEC, CARTPOLE, 1 if content == "older" else 9, 99.0))
    assert resumed(tmp_path) == COMPLETE


def test_what_is_right_is_left_as_it_is(tmp_path: Path) -> None:
    resumed(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "checkpoints").iterdir()}
    resumed(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "checkpoints").iterdir()} == before


def test_parameters_that_are_not_kept_are_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert set(resumed(tmp_path, kept=(5,))) == {"latest.safetensors"}
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}/checkpoints/best.safetensors is not that of round 2, whose parameters are not kept any more"
    ]


def test_a_checkpoint_that_could_not_be_written_is_there_after_a_resume(tmp_path: Path) -> None:
    exporter = CheckpointExporter(observed(tmp_path), every_rounds=2)
    (tmp_path / "checkpoints").rename(tmp_path / "elsewhere")
    with pytest.raises(StorageError):
        exporter.record(make_round_record(1, evaluation_returns=(10.0,)), THETA)
    assert resumed(tmp_path) == COMPLETE


def test_a_return_that_is_not_a_number_is_never_the_best(tmp_path: Path) -> None:
    exporter = CheckpointExporter(observed(tmp_path), every_rounds=50)
    for number, value in enumerate((float("nan"), 5.0, float("inf"), 7.0), start=1):
        exporter.record(make_round_record(number, evaluation_returns=(value,)), THETA)
    assert read_checkpoint(tmp_path / "checkpoints" / "best.safetensors").round_number == 4
