"""Between messages and values, with full validation of what comes in. Nothing is ever unpickled."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from typing import Any

import numpy as np
from fedpg.v1 import federation_pb2 as pb

from fedpg_common.learning.parameters import ParameterSpec, TensorSpec, Vector
from fedpg_common.learning.recursion import Kind, Recursion
from fedpg_common.tasks import Reward, Task, task_from_fields
from fedpg_common.transport.protobuf import TooManyFieldsError, protobuf_fields

FLOAT32 = np.dtype("<f4")
MESSAGE_SLACK_BYTES = 64 * 1024
"""Room in a message for everything but its vector."""
MESSAGE_BYTES_MAX = 2**31 - 1
"""gRPC's own limit."""
OVERSIZE_FACTOR = 2
"""A server reads messages up to so many times the limit, to be able to say who sent them; larger ones it does not."""
STATUS_BYTES_PER_AGENT = 512
SHAPE_BYTES_MAX = 64
"""A gradient has one dimension."""
_GRADIENT = pb.SubmitUpdateRequest.GRADIENT_FIELD_NUMBER
_SHAPE = pb.Tensor.SHAPE_FIELD_NUMBER
ROUND_VECTORS_MAX = 3
"""Vectors in a Round at most: the parameters, and two in its recursion."""

_KINDS = {Kind.MOMENTUM: pb.Recursion.KIND_MOMENTUM, Kind.DIFFERENCE: pb.Recursion.KIND_DIFFERENCE}
RECORDS_BYTES = 1024 * 1024
"""Of rounds' records that one GetStatusReply brings, where they are asked for; one at least, whatever its size."""

_PLAIN_TASK_FIELDS = (
    "name", "environment", "activation", "horizon", "evaluation_horizon", "trajectories", "gamma", "learning_rate",
    "batch_size", "batch_size_min", "batch_size_max", "mini_batch_size", "inner_steps", "delta", "sigma", "alpha",
    "baseline",
)  # fmt: skip


class WireError(ValueError):
    """A message whose content does not fit the contract; the text is one sentence for the sender."""


class WrongShapeError(WireError):
    """A tensor of another type or shape than agreed, or whose bytes do not fit its shape."""


class NotFiniteError(WireError):
    """A tensor with a NaN or an infinity."""


def vector_to_tensor(vector: Vector) -> pb.Tensor:
    """A flat float32 vector (d,) as a Tensor."""
    return pb.Tensor(
        dtype=pb.DTYPE_FLOAT32,
        shape=[vector.size],
        data=np.ascontiguousarray(vector, dtype=FLOAT32).tobytes(),
    )


def tensor_to_vector(tensor: pb.Tensor, size: int) -> Vector:
    """The flat float32 vector (size,) in a Tensor; a read-only view of its bytes on little-endian machines.

    Raises WrongShapeError or NotFiniteError.
    """
    if tensor.dtype != pb.DTYPE_FLOAT32:
        raise WrongShapeError("the vector must have dtype float32")
    if len(tensor.shape) != 1 or tensor.shape[0] != size:  # a shape may have millions of entries
        raise WrongShapeError(f"the vector must have shape ({size}), not ({', '.join(map(str, tensor.shape[:8]))})")
    data = tensor.data  # each access copies
    if len(data) != size * FLOAT32.itemsize:
        raise WrongShapeError(f"{size} float32 are {size * FLOAT32.itemsize} bytes, not {len(data)}")
    vector = np.frombuffer(data, dtype=FLOAT32)
    if not np.isfinite(vector).all():
        raise NotFiniteError("every element of the vector must be finite")
    return vector.astype(np.float32, copy=False)


def read_submission(data: bytes) -> pb.SubmitUpdateRequest:
    """The submission in `data`. Raises DecodeError.

    A shape of millions of entries, which no tensor has, would take many times its bytes in memory. It is left out
    before anything is parsed, so that the submission's gradient has no shape. Small messages are parsed as they are.
    """
    if len(data) <= MESSAGE_SLACK_BYTES:
        return pb.SubmitUpdateRequest.FromString(data)
    parts: list[bytes | memoryview] = []
    message = memoryview(data)
    done = 0
    for field in protobuf_fields(message):
        if field.number == _GRADIENT and field.is_nested:
            gradient = message[field.content : field.end]
            if (lean := _without_bulk(gradient)) is not None:
                parts += [message[done : field.start], pb.SubmitUpdateRequest(gradient=lean).SerializeToString()]
                done = field.end
    return pb.SubmitUpdateRequest.FromString(b"".join([*parts, message[done:]]) if parts else data)


def _without_bulk(gradient: memoryview) -> pb.Tensor | None:
    """What stands in for a gradient of too many fields or with too large a shape; None for any other."""
    try:
        fields = list(protobuf_fields(gradient))
    except TooManyFieldsError:
        return pb.Tensor()
    if sum(field.end - field.start for field in fields if field.number == _SHAPE) <= SHAPE_BYTES_MAX:
        return None
    return pb.Tensor.FromString(
        b"".join(gradient[field.start : field.end] for field in fields if field.number != _SHAPE)
    )


def tensor_digest(tensor: pb.Tensor) -> bytes:
    """SHA-256 of the tensor's bytes: 32 bytes. The shape is fixed by the run, so it is not part of the digest."""
    return hashlib.sha256(tensor.data).digest()


def recursion_to_message(recursion: Recursion) -> pb.Recursion:
    """What an agent needs beside θ_0, as a message."""
    message = pb.Recursion(
        kind=_KINDS[recursion.kind],
        previous_parameters=vector_to_tensor(recursion.previous),
        previous_estimate=None if recursion.estimate is None else vector_to_tensor(recursion.estimate),
        weight=recursion.weight,
    )
    message.digest = recursion_digest(message)
    return message


def recursion_from_message(message: pb.Recursion, size: int) -> Recursion:
    """The inverse, for parameters (size,). Raises WireError."""
    kinds = {value: kind for kind, value in _KINDS.items()}
    if message.kind not in kinds:
        raise WireError(f"a recursion of kind {message.kind} is not one that this version knows")
    estimate = message.previous_estimate if message.HasField("previous_estimate") else None
    try:
        return Recursion(
            kinds[message.kind],
            tensor_to_vector(message.previous_parameters, size),
            None if estimate is None else tensor_to_vector(estimate, size),
            message.weight,
        )
    except WireError:
        raise
    except ValueError as error:
        raise WireError(f"a recursion does not fit its kind: {error}") from error


def recursion_digest(message: pb.Recursion) -> bytes:
    """SHA-256 of the recursion's vectors, one after the other: 32 bytes."""
    return hashlib.sha256(message.previous_parameters.data + message.previous_estimate.data).digest()


def message_bytes_max(size: int, vectors: int = 1) -> int:
    """The largest message of a run with parameters (size,), in bytes."""
    return min(vectors * size * FLOAT32.itemsize + MESSAGE_SLACK_BYTES, MESSAGE_BYTES_MAX)


def status_bytes_max(agents: int) -> int:
    """The largest GetStatusReply of a run with that many agents, in bytes: the records' last may go beyond theirs."""
    return agents * STATUS_BYTES_PER_AGENT + 2 * RECORDS_BYTES + MESSAGE_SLACK_BYTES


def spec_to_messages(spec: ParameterSpec) -> list[pb.TensorSpec]:
    """The parameter layout as messages."""
    return [pb.TensorSpec(name=tensor.name, shape=tensor.shape) for tensor in spec.tensors]


def spec_from_messages(messages: list[pb.TensorSpec]) -> ParameterSpec:
    """The parameter layout in messages. Raises WireError for an empty or negative-sized one."""
    spec = ParameterSpec(tuple(TensorSpec(message.name, tuple(message.shape)) for message in messages))
    if not spec.tensors or any(tensor.size < 1 for tensor in spec.tensors):
        raise WireError("the parameter layout is empty or has an empty tensor")
    return spec


def task_to_message(task: Task) -> pb.Task:
    """A task as a message."""
    options = dict(task.environment_options)
    return pb.Task(
        hidden=task.hidden,
        environment_options_json=json.dumps(options, sort_keys=True) if options else "",
        wrappers_json=json.dumps(task.wrappers) if task.wrappers else "",
        reward=None if task.reward == Reward() else pb.Reward(**dataclasses.asdict(task.reward)),
        **{name: getattr(task, name) for name in _PLAIN_TASK_FIELDS},
    )


def task_from_message(message: pb.Task) -> Task:
    """The task in a message. Raises UsageError for a bad field, WireError for malformed options."""
    options = _from_json(message.environment_options_json or "{}", "environment_options_json")
    if not isinstance(options, dict):
        raise WireError("environment_options_json must be a JSON object")
    wrappers = _from_json(message.wrappers_json or "[]", "wrappers_json")
    perceived = message.reward
    reward = Reward(perceived.scale, perceived.shift, perceived.noise) if message.HasField("reward") else Reward()
    fields = {name: getattr(message, name) for name in _PLAIN_TASK_FIELDS}
    return task_from_fields(
        {
            **fields, "hidden": list(message.hidden), "environment_options": options, "wrappers": wrappers,
            "reward": reward,
        },
        source="the server's task",
    )  # fmt: skip


def _from_json(text: str, field: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WireError(f"{field} is not JSON: {error}") from error


def finite_or_zero(value: float) -> float:
    """Zero in place of a NaN or an infinity: for figures that another process reports and nothing depends on."""
    return value if math.isfinite(value) else 0.0
