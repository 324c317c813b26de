"""What a bad link does is bounded: bytes arrive in order, all of them, as late as said, and wrong only where said."""

from __future__ import annotations

import numpy as np
from fedpg_lab.faults.backend import SERVER, Fault, FaultKind
from fedpg_lab.faults.shaping import SEGMENT_BYTES, Conditions, Shaper, conditions_of
from hypothesis import given
from hypothesis import strategies as st

CONDITIONS = st.builds(
    Conditions,
    delay_s=st.floats(0.0, 2.0),
    jitter_s=st.floats(0.0, 2.0),
    bytes_per_s=st.sampled_from([float("inf"), 1e3, 1e6]),
    loss=st.sampled_from([0.0, 0.1, 0.9]),
)
CHUNKS = st.lists(st.tuples(st.floats(0.0, 1.0), st.binary(min_size=1, max_size=4000)), min_size=1, max_size=8)


def send(chunks: list[tuple[float, bytes]], conditions: Conditions, seed: int) -> list[tuple[float, bytes]]:
    """The chunks, each some time after the one before."""
    shaper, now_s, segments = Shaper(np.random.default_rng(seed)), 0.0, []
    for pause_s, data in chunks:
        now_s += pause_s
        segments += shaper.admit(data, now_s, conditions)
    return segments


@given(CHUNKS, CONDITIONS, st.integers(0, 2**32))
def test_every_byte_arrives_once_and_in_order(
    chunks: list[tuple[float, bytes]], conditions: Conditions, seed: int
) -> None:
    segments = send(chunks, conditions, seed)
    assert b"".join(data for _, data in segments) == b"".join(data for _, data in chunks)
    times_s = [at_s for at_s, _ in segments]
    assert times_s == sorted(times_s)
    assert all(len(data) <= SEGMENT_BYTES for _, data in segments)


@given(CHUNKS, CONDITIONS, st.integers(0, 2**32))
def test_the_same_seed_decides_the_same(chunks: list[tuple[float, bytes]], conditions: Conditions, seed: int) -> None:
    assert send(chunks, conditions, seed) == send(chunks, conditions, seed)


@given(CHUNKS, st.floats(0.1, 2.0), st.integers(0, 2**32))
def test_latency_delays_by_what_it_says(chunks: list[tuple[float, bytes]], delay_s: float, seed: int) -> None:
    """Half as much jitter as delay: nothing is faster than half of it, and without a queue nothing slower than 1.5."""
    now_s = 0.0
    shaper = Shaper(np.random.default_rng(seed))
    for pause_s, data in chunks:
        now_s += pause_s + 2 * delay_s
        for at_s, _ in shaper.admit(data, now_s, Conditions(delay_s=delay_s, jitter_s=delay_s / 2)):
            assert 0.5 * delay_s <= at_s - now_s + 1e-9
            assert at_s - now_s <= 1.5 * delay_s + 1e-9


def test_bandwidth_spreads_what_is_sent_at_once() -> None:
    segments = send([(0.0, bytes(100 * SEGMENT_BYTES))], Conditions(bytes_per_s=10 * SEGMENT_BYTES), seed=0)
    assert np.allclose([at_s for at_s, _ in segments], np.arange(1, 101) / 10)


def test_a_lost_segment_holds_up_those_behind_it() -> None:
    """At half, one segment in two is sent again, after 0.2 s or more."""
    segments = send([(0.0, bytes(200 * SEGMENT_BYTES))], Conditions(loss=0.5), seed=0)
    times_s = [at_s for at_s, _ in segments]
    assert times_s[0] in (0.0, 0.2, 0.2 + 0.4) or times_s[0] > 0.6
    assert times_s[-1] >= 0.2 + 0.4
    assert len(set(times_s)) < 10, "those behind come together with the one that was late"


def test_corruption_changes_one_byte_of_that_part_of_the_segments() -> None:
    original = bytes(1000 * SEGMENT_BYTES)
    segments = send([(0.0, original)], Conditions(corruption=0.2), seed=0)
    wrong = [sum(byte != 0 for byte in data) for _, data in segments]
    assert set(wrong) == {0, 1}
    assert 150 < sum(wrong) < 250


def test_faults_add_up_and_the_later_of_a_kind_holds() -> None:
    slow = Fault(FaultKind.LATENCY, (1,), delay_s=1.0)
    slower = Fault(FaultKind.LATENCY, (SERVER,), delay_s=2.0, jitter_s=0.5)
    lossy = Fault(FaultKind.LOSS, (1,), fraction=0.1)
    assert conditions_of([slow, lossy, slower]) == Conditions(delay_s=2.0, jitter_s=0.5, loss=0.1)
    assert conditions_of([Fault(FaultKind.KILL, (1,)), Fault(FaultKind.SLOW_CPU, (1,), fraction=0.5)]) == Conditions()
    assert conditions_of([Fault(FaultKind.PARTITION, (1,))]) == Conditions(is_deaf=True, is_mute=True)
    assert conditions_of([Fault(FaultKind.BLACK_HOLE, (1,))]) == Conditions(is_mute=True)
