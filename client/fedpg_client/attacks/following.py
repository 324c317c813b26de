"""What the server's rule remembers, as attackers know it who have seen every round of the run.

The rule is public, and an omniscient attacker knows every vote: running the rule after each round gives it the rule's
memory for the next. What the server's own samples tell the rule (its scale, its gradient, an algorithm's alarms) it
does not know, and a rule's own estimate stands in for it. An agent that was started again has not seen the rounds
before, and says so.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from fedpg_common.learning.aggregators import Memory
from fedpg_common.learning.parameters import Vector

from fedpg_client.attacks.base import Context
from fedpg_client.attacks.scene import scene_of

log = logging.getLogger(__name__)


class Following:
    """The rule's memory, kept from round to round. Attackers that share a process may share it."""

    def __init__(self) -> None:
        """Before the first round, the rule remembers nothing."""
        self._round = 1
        self._before: Memory = {}
        """What the rule remembers before `_round`."""
        self._after: Memory | None = None
        """What it remembers behind it; None as long as the round is not over."""

    def memory_before(self, round_number: int) -> Memory:
        """What the rule remembers before a round; nothing where the round before was not seen."""
        if round_number == self._round:
            return self._before
        if round_number == self._round + 1 and self._after is not None:
            self._before = self._after
        else:
            log.warning(
                "round %d: this attacker has not seen the rounds before it, and tries the server's rule on an empty "
                "memory", round_number,
            )  # fmt: skip
            self._before = {}
        self._round, self._after = round_number, None
        return self._before

    def see(self, pooled: Mapping[int, Vector], context: Context, submitted: Vector | None) -> None:
        """Note a round, after `memory_before`: all attackers submit the vector (d,), or with None are honest.

        Raises UsageError if the rule cannot be run.
        """
        if self._after is None:
            self._after = scene_of(pooled, context).memory_after(submitted)
