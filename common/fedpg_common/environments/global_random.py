"""The random generators that all code of a process shares: numpy's, Python's, and torch's where it is imported.

Environments should draw from their own `np_random`, and those that come with FedPG do. Others draw from `np.random` or
`random`. So that a run is repeatable all the same, and does not depend on which agents share a process or on restarts,
these generators are seeded from a named stream before an agent's (or the server's) batch of episodes. While it lasts
nobody else in the process may sample: agents that share a process take turns, if their environment is not one of ours.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedpg_common.learning.streams import Purpose, Role, stream

_one_user = threading.RLock()


@dataclass(frozen=True)
class GlobalRandom:
    """Whose environments draw."""

    seed: int = 0
    """Of this participant's streams."""
    role: Role = Role.SERVER
    agent: int = 0
    """1-based index of the agent; 0 for the server."""

    @contextmanager
    def during_episodes(self, round_number: int, step: int) -> Iterator[None]:
        """Seed the generators for a batch of episodes, and leave them as they were found."""
        with self._seeded(Purpose.GLOBAL_RANDOM, round_number, step):
            yield

    @contextmanager
    def during_making(self, instance: int) -> Iterator[None]:
        """The same for the making of an environment, which gets the same draws whenever it is made."""
        with self._seeded(Purpose.MAKING, 0, instance):
            yield

    @contextmanager
    def _seeded(self, purpose: Purpose, round_number: int, step: int) -> Iterator[None]:
        generator = stream(self.seed, self.role, purpose, agent=self.agent, round_number=round_number, step=step)
        words = generator.integers(0, 2**32, 4, np.uint32)
        with _one_user:
            torch = _torch()
            before = np.random.get_state(), random.getstate()
            torch_before = torch.get_rng_state() if torch is not None else None
            np.random.seed(words)
            random.seed(words.tobytes())
            if torch is not None:
                torch.default_generator.manual_seed(int(words[0]))
            try:
                yield
            finally:
                np.random.set_state(before[0])
                random.setstate(before[1])
                if torch is not None and torch_before is not None:
                    torch.set_rng_state(torch_before)


def _torch() -> Any:
    """The library, if somebody has imported it already; it is large, and no generator is used before."""
    torch = sys.modules.get("torch")
    return torch if hasattr(torch, "default_generator") and hasattr(torch, "set_rng_state") else None
