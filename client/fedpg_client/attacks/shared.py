"""One search for attackers that share a process.

Attackers that collude search for the same vector, each on its own machine. Where they happen to share a process, as in
an experiment on one machine, the first of them searches and the others take what it has found. What is shared is the
outcome of the same search from the same inputs: it has the bits that each of them would have found alone.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from concurrent.futures import Future

from fedpg_common.learning.parameters import Vector

from fedpg_client.attacks.base import Attack, Context

KEPT = 4
"""Searches that are remembered: no attacker is more than a round behind the others."""


class SharedSearches:
    """The last searches of a process, by everything that goes into one."""

    def __init__(self) -> None:
        """None has been made."""
        self._lock = threading.Lock()
        self._made: dict[bytes, Future[Vector]] = {}

    def collude(self, attack: Attack, pooled: Mapping[int, Vector], context: Context) -> Vector:
        """What `attack.collude` answers, (d,); searched for once by all threads that come with the same inputs."""
        if not (attack.searches and attack.unanimous):
            return attack.collude(pooled, context)
        key = _key(attack, pooled, context)
        with self._lock:
            known = self._made.get(key)
            if known is None:
                mine: Future[Vector] = Future()
                self._made[key] = mine
                while len(self._made) > KEPT:
                    del self._made[next(iter(self._made))]
        if known is not None:
            return known.result().copy()
        try:
            found = attack.collude(pooled, context)
        except BaseException as error:
            mine.set_exception(error)
            raise
        mine.set_result(found)
        return found.copy()


def _key(attack: Attack, pooled: Mapping[int, Vector], context: Context) -> bytes:
    """A digest of the attack with its settings, and of all that its search looks at."""
    told = (
        type(attack), sorted(vars(attack).items()), tuple(pooled), tuple(context.honest), context.agents,
        context.attackers, context.round_number, context.batch_size, context.run_seed, context.aggregator, context.task,
    )  # fmt: skip
    digest = hashlib.sha256(repr(told).encode())
    remembered = context.rule_memory
    digest.update(repr(sorted(remembered)).encode())
    for vector in (*pooled.values(), *context.honest.values(), *(remembered[name] for name in sorted(remembered))):
        digest.update(vector.tobytes())
    return digest.digest()
