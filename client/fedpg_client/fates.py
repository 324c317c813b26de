"""What becomes of an agent, as its process tells whoever started it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fedpg_common.errors import ExitCode
from fedpg_common.transport.verdicts import Verdict


@dataclass(frozen=True)
class Refused:
    """An agent's gradient was refused, so that it has no vote in a round: its draws are fixed, it has no other."""

    agent: int
    round_number: int
    verdict: Verdict
    reason: str = ""
    """Why, as far as the agent knows."""


@dataclass(frozen=True)
class Ended:
    """An agent has ended; its process may live on for others."""

    agent: int
    code: ExitCode
    """OK if it was there until the run had ended."""
    reason: str = ""
    """One sentence; empty if `code` is OK."""


@dataclass(frozen=True)
class Waits:
    """An agent has been waiting for its environment, or its attack, for long, or does so no more."""

    agent: int
    what: str
    """For which method, and since when; empty when it is over."""


Fate = Refused | Ended | Waits
OnFate = Callable[[Fate], None]


def tell_nobody(_fate: Fate) -> None:
    """For an agent that nobody watches but its log."""
