"""A run's evaluated rounds: the records so far, what they come to, and who is told of each new one."""

from __future__ import annotations

import logging
import math

from fedpg_common.learning.parameters import Vector

from fedpg_server.learning.records import RoundRecord
from fedpg_server.learning.totals import Totals
from fedpg_server.observers.base import Observers
from fedpg_server.protocol.status import describe_round

log = logging.getLogger(__name__)


class RecordedRounds:
    """The records in their order. Whoever adds one has stored it."""

    def __init__(self, records: list[RoundRecord], trajectories_target: int, observers: Observers) -> None:
        """`records` are an earlier process's, and are added to; the run ends at `trajectories_target`."""
        self.records = records
        self.totals = Totals(records)
        self._trajectories_target = trajectories_target
        self._observers = observers
        self._has_said_nan = False

    def add(self, record: RoundRecord, theta: Vector) -> None:
        """Take a round that has been evaluated, θ (d,) after it. Tell those who look on, and the log."""
        self.records.append(record)
        self.totals.add(record)
        self._observers.record(record, theta)
        log.info(describe_round(record, self._trajectories_target))
        if not (self._has_said_nan or math.isfinite(record.evaluation_return)):
            self._has_said_nan = True
            log.warning("round %d: the evaluation's return is %s: such a round is never the best (said once)",
                        record.round_number, record.evaluation_return)  # fmt: skip

    def close(self) -> None:
        """There are no more: close those who look on."""
        self._observers.close()
