"""Policies on disk: safetensors files that carry their task with them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedpg_common.errors import StorageError, UsageError
from fedpg_common.files import is_file, shown
from fedpg_common.json_text import to_json
from fedpg_common.learning.parameters import ParameterSpec, TensorSpec, Vector
from fedpg_common.tasks import Task, task_from_fields, task_to_fields


@dataclass(frozen=True)
class Checkpoint:
    """A policy with what one has to know to use it."""

    theta: Vector
    spec: ParameterSpec
    task: Task
    round_number: int
    evaluation_return: float | None
    """Mean greedy return when it was saved; None before the first evaluation, and in a file if it is not finite."""


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write the policy's tensors by name, the rest as metadata. Never leaves half a file. Raises StorageError."""
    tensors = {name: np.ascontiguousarray(value) for name, value in checkpoint.spec.views(checkpoint.theta).items()}
    about = {
        "tensors": [[tensor.name, list(tensor.shape)] for tensor in checkpoint.spec.tensors],
        "task": task_to_fields(checkpoint.task),
        "round": checkpoint.round_number,
        "evaluation_return": checkpoint.evaluation_return,
    }
    unfinished = path.with_name(path.name + ".new")
    try:
        unfinished.write_bytes(save(tensors, metadata={"fedpg": to_json(about)}))
        os.replace(unfinished, path)
    except OSError as error:
        raise StorageError(f"the checkpoint {path} cannot be written: {error.strerror}") from error


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a policy. Raises StorageError for a file that is missing, damaged or not FedPG's."""
    if not is_file(path):
        raise StorageError(f"there is no checkpoint at {shown(path)}")
    try:
        with safe_open(path, framework="np") as file:
            about = json.loads((file.metadata() or {})["fedpg"])
            spec = ParameterSpec(tuple(TensorSpec(name, tuple(shape)) for name, shape in about["tensors"]))
            tensors = [file.get_tensor(tensor.name) for tensor in spec.tensors]
        if any(array.shape != tensor.shape for array, tensor in zip(tensors, spec.tensors, strict=True)):
            raise ValueError("its tensors are not shaped as it says")
        theta = np.concatenate([array.ravel() for array in tensors])
        task = task_from_fields(about["task"], f"checkpoint {path}")
        return Checkpoint(theta.astype(np.float32), spec, task, int(about["round"]), about["evaluation_return"])
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError, OSError, UsageError) as error:
        raise StorageError(f"{path} is not a FedPG checkpoint: {error}") from error
