"""What a bad link does to a stream of bytes: a pure function of the bytes, the time and the link's own draws."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from fedpg_lab.faults.backend import Fault, FaultKind

SEGMENT_BYTES = 1460
"""What a packet carries on most networks; losses and corruption are drawn for each."""
RETRANSMIT_FIRST_S = 0.2
"""How long TCP waits until it sends a lost segment again, at first; twice as long each time after."""
RETRANSMIT_MAX_S = 6.4


@dataclass(frozen=True)
class Conditions:
    """How a link is at the moment, both ways unless said otherwise."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float = float("inf")
    loss: float = 0.0
    """Probability that a segment is lost and has to be sent again."""
    corruption: float = 0.0
    """Probability that a segment arrives with a wrong byte."""
    is_deaf: bool = False
    """Nothing reaches the agent."""
    is_mute: bool = False
    """Nothing that the agent sends arrives."""
    is_reset: bool = False
    """Connections are reset, as is every new one."""


def conditions_of(faults: Iterable[Fault]) -> Conditions:
    """The conditions on a link that suffers all of these; of two of a kind, the later one holds."""
    conditions = Conditions()
    for fault in faults:
        match fault.kind:
            case FaultKind.LATENCY:
                conditions = replace(conditions, delay_s=fault.delay_s, jitter_s=fault.jitter_s)
            case FaultKind.BANDWIDTH:
                conditions = replace(conditions, bytes_per_s=fault.bytes_per_s)
            case FaultKind.LOSS:
                conditions = replace(conditions, loss=fault.fraction)
            case FaultKind.CORRUPTION:
                conditions = replace(conditions, corruption=fault.fraction)
            case FaultKind.PARTITION:
                conditions = replace(conditions, is_deaf=True, is_mute=True)
            case FaultKind.BLACK_HOLE:
                conditions = replace(conditions, is_mute=True)
            case FaultKind.RESET:
                conditions = replace(conditions, is_reset=True)
            case _:
                pass  # not a fault of the network
    return conditions


class Shaper:
    """One direction of one connection: when what was sent arrives, and what becomes of it on the way.

    The order of bytes is kept, as TCP keeps it: what comes behind a delayed segment waits for it.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        """`rng` decides on jitter, losses and wrong bytes."""
        self._rng = rng
        self._line_free_s = 0.0
        self._latest_s = 0.0

    def admit(self, data: bytes, now_s: float, conditions: Conditions) -> list[tuple[float, bytes]]:
        """The segments of `data`, sent at `now_s`, each with the time at which it arrives; times never decrease."""
        return [
            self._segment(data[start : start + SEGMENT_BYTES], now_s, conditions)
            for start in range(0, len(data), SEGMENT_BYTES)
        ]

    def _segment(self, segment: bytes, now_s: float, conditions: Conditions) -> tuple[float, bytes]:
        self._line_free_s = max(now_s, self._line_free_s) + len(segment) / conditions.bytes_per_s
        delay_s = conditions.delay_s + conditions.jitter_s * self._rng.uniform(-1.0, 1.0)
        wait_s = RETRANSMIT_FIRST_S
        while conditions.loss and self._rng.random() < conditions.loss:
            delay_s += wait_s
            wait_s = min(2 * wait_s, RETRANSMIT_MAX_S)
        if conditions.corruption and self._rng.random() < conditions.corruption:
            segment = self._corrupt(segment)
        self._latest_s = max(self._latest_s, self._line_free_s + max(0.0, delay_s))
        return self._latest_s, segment

    def _corrupt(self, segment: bytes) -> bytes:
        wrong = bytearray(segment)
        wrong[self._rng.integers(len(wrong))] ^= int(self._rng.integers(1, 256))
        return bytes(wrong)
