"""Vectors and tasks survive the wire bit for bit; whatever else arrives is refused, never trusted and never fatal."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg_common.errors import UsageError
from fedpg_common.learning.parameters import ParameterSpec, TensorSpec, Vector, digest
from fedpg_common.learning.recursion import Kind, Recursion
from fedpg_common.tasks import CARTPOLE, TASKS, Task
from fedpg_common.transport import wire
from fedpg_server.protocol.status import FIGURE_NAME_MAX, FIGURES_MAX
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.task_strategies import tasks

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
VECTORS = hnp.arrays(np.float32, st.integers(1, 40), elements=FINITE)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=10)
SPECS = st.lists(st.tuples(NAMES, st.lists(st.integers(1, 2**16), min_size=1, max_size=4)), min_size=1, max_size=5)


@given(VECTORS)
def test_a_vector_survives_bit_for_bit(vector: Vector) -> None:
    message = pb.Tensor.FromString(wire.vector_to_tensor(vector).SerializeToString())
    found = wire.tensor_to_vector(message, vector.size)
    assert found.dtype == np.float32
    assert found.tobytes() == vector.tobytes()
    assert wire.tensor_digest(message).hex() == digest(vector)


@given(VECTORS)
def test_a_strided_or_wider_vector_is_sent_as_flat_float32(vector: Vector) -> None:
    twice = np.repeat(vector, 2).astype(np.float64)[::2]
    assert wire.vector_to_tensor(twice) == wire.vector_to_tensor(vector)  # type: ignore[arg-type]


@given(VECTORS, st.data())
def test_a_nan_or_an_infinity_anywhere_is_not_finite(vector: Vector, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, vector.size - 1))
    bad = vector.copy()
    bad[place] = data.draw(st.sampled_from([np.nan, -np.nan, np.inf, -np.inf]))
    with pytest.raises(wire.NotFiniteError):
        wire.tensor_to_vector(wire.vector_to_tensor(bad), vector.size)


@pytest.mark.parametrize(
    "make",
    [
        pb.Tensor,
        lambda: pb.Tensor(shape=[4], data=bytes(16)),
        lambda: pb.Tensor(dtype=99, shape=[4], data=bytes(16)),  # type: ignore[arg-type]
        lambda: pb.Tensor(dtype=pb.DTYPE_FLOAT32, data=bytes(16)),
        lambda: pb.Tensor(dtype=pb.DTYPE_FLOAT32, shape=[], data=b""),
        lambda: pb.Tensor(dtype=pb.DTYPE_FLOAT32, shape=[0], data=b""),
        lambda: pb.Tensor(dtype=pb.DTYPE_FLOAT32, shape=[3], data=bytes(12)),
        lambda: pb.Tensor(dtype=pb.DTYPE_FLOAT32, shape=[5], data=bytes(20)),
        lambda: pb.Tensor(dtype=pb.DTYPE_FLOAT32, shape=[2, 2], data=bytes(16)),
        lambda: pb.Tensor(dtype=pb.DTYPE_FLOAT32, shape=[4, 1], data=bytes(16)),
        lambda: pb.Tensor(dtype=pb.DTYPE_FLOAT32, shape=[2**64 - 1], data=bytes(16)),
        lambda: pb.Tensor(dtype=pb.DTYPE_FLOAT32, shape=[2**62 + 4], data=bytes(16)),
        lambda: pb.Tensor(dtype=pb.DTYPE_FLOAT32, shape=[2**63] * 1000, data=bytes(16)),
        lambda: pb.Tensor(dtype=pb.DTYPE_FLOAT32, shape=[4], data=b""),
        lambda: pb.Tensor(dtype=pb.DTYPE_FLOAT32, shape=[4], data=bytes(15)),
        lambda: pb.Tensor(dtype=pb.DTYPE_FLOAT32, shape=[4], data=bytes(17)),
        lambda: pb.Tensor(dtype=pb.DTYPE_FLOAT32, shape=[4], data=bytes(32)),
    ],
)
def test_another_type_shape_or_length_is_the_wrong_shape(make: Callable[[], pb.Tensor]) -> None:
    with pytest.raises(wire.WrongShapeError) as caught:
        wire.tensor_to_vector(make(), 4)
    assert len(str(caught.value)) < 300, "one sentence, however absurd the shape"


@given(st.binary(max_size=200), st.integers(1, 8))
def test_garbage_in_place_of_a_tensor_is_refused(garbage: bytes, size: int) -> None:
    try:
        message = pb.Tensor.FromString(garbage)
        wire.tensor_to_vector(message, size)
    except (DecodeError, wire.WireError):
        return
    assert list(message.shape) == [size]
    assert len(message.data) == 4 * size


def take_join_reply(content: bytes) -> None:
    """What an agent does with a JoinReply; the errors that it expects are fine, others are not."""
    with suppress(DecodeError, wire.WireError, UsageError):
        reply = pb.JoinReply.FromString(content)
        wire.task_from_message(reply.task)
        wire.spec_from_messages(list(reply.parameters))


@given(st.binary(max_size=300))
def test_garbage_in_place_of_a_join_reply_is_refused(garbage: bytes) -> None:
    take_join_reply(garbage)


@given(st.binary(max_size=60), st.integers(0, 150))
def test_a_damaged_join_reply_is_taken_or_refused(noise: bytes, place: int) -> None:
    sound = pb.JoinReply(task=wire.task_to_message(CARTPOLE), parameters=[pb.TensorSpec(name="w", shape=[2])])
    content = bytearray(sound.SerializeToString())
    content[place : place + len(noise)] = noise
    take_join_reply(bytes(content))


@given(SPECS)
def test_a_parameter_layout_survives(entries: list[tuple[str, list[int]]]) -> None:
    spec = ParameterSpec(tuple(TensorSpec(name, tuple(shape)) for name, shape in entries))
    assert wire.spec_from_messages(wire.spec_to_messages(spec)) == spec


@pytest.mark.parametrize(
    "messages", [[], [pb.TensorSpec(name="w", shape=[0])], [pb.TensorSpec(name="w", shape=[3, 0])]]
)
def test_an_empty_parameter_layout_is_refused(messages: list[pb.TensorSpec]) -> None:
    with pytest.raises(wire.WireError):
        wire.spec_from_messages(messages)


@pytest.mark.parametrize("name", TASKS)
def test_the_published_tasks_survive(name: str) -> None:
    message = pb.Task.FromString(wire.task_to_message(TASKS[name]).SerializeToString())
    assert wire.task_from_message(message) == TASKS[name]


@settings(max_examples=40)
@given(tasks())
def test_every_task_survives(task: Task) -> None:
    assert wire.task_from_message(pb.Task.FromString(wire.task_to_message(task).SerializeToString())) == task


@pytest.mark.parametrize(
    "options",
    ["{", "[1]", "3", '"a"', "null", "[" * 100_000, "1" * 10_000, '{"a": NaN}', '{"a": null}', '{"a": 1e999}'],
)
def test_malformed_environment_options_are_refused(options: str) -> None:
    message = wire.task_to_message(CARTPOLE)
    message.environment_options_json = options
    with pytest.raises((wire.WireError, UsageError)):
        wire.task_from_message(message)


@pytest.mark.parametrize("field", ["horizon", "batch_size", "inner_steps", "trajectories", "gamma", "sigma", "name"])
def test_a_task_with_a_bad_field_is_refused_by_its_name(field: str) -> None:
    message = wire.task_to_message(CARTPOLE)
    message.ClearField(field)  # type: ignore[arg-type]
    if field == "gamma":
        message.gamma = float("nan")
    with pytest.raises(UsageError, match=field):
        wire.task_from_message(message)


def test_options_are_plain_json() -> None:
    task = dataclasses.replace(CARTPOLE, environment_options={"b": [1, 2.5], "a": {"c": True, "d": "x"}})
    assert json.loads(wire.task_to_message(task).environment_options_json) == task.environment_options


RECURSIONS = [
    Recursion(Kind.MOMENTUM, np.arange(4, dtype=np.float32), weight=0.25),
    Recursion(Kind.DIFFERENCE, np.arange(4, dtype=np.float32), -np.arange(4, dtype=np.float32)),
]


@pytest.mark.parametrize("recursion", RECURSIONS, ids=lambda recursion: recursion.kind.value)
def test_a_recursion_arrives_as_it_was(recursion: Recursion) -> None:
    message = pb.Recursion.FromString(wire.recursion_to_message(recursion).SerializeToString())
    arrived = wire.recursion_from_message(message, 4)
    assert (arrived.kind, arrived.weight) == (recursion.kind, recursion.weight)
    assert arrived.previous.tobytes() == recursion.previous.tobytes()
    assert (arrived.estimate is None) == (recursion.estimate is None)
    if arrived.estimate is not None and recursion.estimate is not None:
        assert arrived.estimate.tobytes() == recursion.estimate.tobytes()
    assert message.digest == wire.recursion_digest(message)


def changed_recursion(number: int, **fields: Any) -> pb.Recursion:
    message = wire.recursion_to_message(RECURSIONS[number])
    for name, value in fields.items():
        if isinstance(value, pb.Tensor):
            getattr(message, name).CopyFrom(value)
        elif value is None:
            message.ClearField(name)  # type: ignore[arg-type]
        else:
            setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (changed_recursion(0, kind=0), "kind 0 is not one"),
        (changed_recursion(0, kind=99), "kind 99 is not one"),
        (changed_recursion(0, weight=0.0), "a weight above 0 and at most 1"),
        (changed_recursion(0, weight=1.5), "a weight above 0 and at most 1"),
        (changed_recursion(0, weight=float("nan")), "a weight above 0 and at most 1"),
        (changed_recursion(0, previous_estimate=wire.vector_to_tensor(np.zeros(4, np.float32))), "and no estimate"),
        (changed_recursion(1, previous_estimate=None), "needs the estimate"),
        (changed_recursion(1, weight=0.5), "and no weight"),
        (changed_recursion(1, previous_parameters=None), "must have dtype float32"),
        (
            changed_recursion(1, previous_parameters=wire.vector_to_tensor(np.zeros(5, np.float32))),
            "shape (4), not (5)",
        ),
        (changed_recursion(1, previous_estimate=wire.vector_to_tensor(np.full(4, np.nan, np.float32))), "finite"),
    ],
)
def test_a_malformed_recursion_is_refused(message: pb.Recursion, sentence: str) -> None:
    with pytest.raises(wire.WireError) as caught:
        wire.recursion_from_message(message, 4)
    assert sentence in str(caught.value)


def test_a_round_has_room_for_its_recursion() -> None:
    vector = np.zeros(10**6, np.float32)
    round_ = pb.Round(
        number=2**63, batch_size=2**31, parameters=wire.vector_to_tensor(vector), parameters_digest=bytes(32),
        recursion=wire.recursion_to_message(Recursion(Kind.DIFFERENCE, vector, vector)),
    )  # fmt: skip
    reply = pb.AwaitRoundReply(state=pb.AwaitRoundReply.STATE_OPEN, round=round_)
    assert reply.ByteSize() < wire.message_bytes_max(vector.size, wire.ROUND_VECTORS_MAX)


def test_messages_have_room_for_their_vector_and_little_else() -> None:
    assert wire.message_bytes_max(10**6) == 4 * 10**6 + wire.MESSAGE_SLACK_BYTES
    spec = ParameterSpec((TensorSpec("w", (10**6,)),))
    vector = np.zeros(spec.size, np.float32)
    parameters = wire.vector_to_tensor(vector)
    round_ = pb.Round(number=2**63, batch_size=2**31, parameters=parameters, parameters_digest=bytes(32))
    reply = pb.AwaitRoundReply(state=pb.AwaitRoundReply.STATE_OPEN, round=round_)
    assert reply.ByteSize() < wire.message_bytes_max(spec.size)


def test_a_status_of_many_busy_agents_fits() -> None:
    counts = [pb.VerdictCount(verdict=verdict, count=2**63) for verdict in pb.Verdict.values()]
    agent = pb.AgentStatus(
        agent=10_000, presence=pb.AgentStatus.PRESENCE_JOINED, last_vote_round=2**63, voted=True,
        last_verdict=pb.VERDICT_DAMAGED, verdicts=counts, rounds_accepted=2**63, rounds_filtered=2**63, last_seen_s=1e9,
    )  # fmt: skip
    for agents in (1, 10_000):
        latest = pb.RoundSummary(
            accepted=[10_000] * agents, parameters_digest=bytes(32),
            weights=dict.fromkeys(range(1, agents + 1), 0.1),
            figures={f"{number:0{FIGURE_NAME_MAX}d}": 0.1 for number in range(FIGURES_MAX)},
        )  # fmt: skip
        status = pb.GetStatusReply(agents=[agent] * agents, latest=latest)
        assert status.ByteSize() < wire.status_bytes_max(agents)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_reported_figures_that_are_no_numbers_count_as_zero(value: float) -> None:
    assert wire.finite_or_zero(value) == 0.0
    assert wire.finite_or_zero(-2.5) == -2.5
