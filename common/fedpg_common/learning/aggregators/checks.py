"""What the constructors of aggregators check, and how a rule counts the faulty."""

from __future__ import annotations

from fedpg_common.checks import is_number, is_whole, show
from fedpg_common.learning.aggregators.base import Votes

FAULTY_MAX = 10_000


def check_faulty(faulty: object) -> None:
    """Raise ValueError unless this is a number of faulty agents, or None for the federation's ⌊αK⌋."""
    if faulty is not None and not (is_whole(faulty) and 0 <= faulty <= FAULTY_MAX):
        raise ValueError(f"faulty must be a whole number from 0 to {FAULTY_MAX}, not {show(faulty)}")


def check_positive(name: str, value: object) -> None:
    """Raise ValueError unless this is a positive number, or None for the default."""
    if value is not None and not (is_number(value) and value > 0):
        raise ValueError(f"{name} must be a positive number, not {show(value)}")


def check_count(name: str, value: object, most: int) -> None:
    """Raise ValueError unless this is a whole number from 1 to `most`."""
    if not (is_whole(value) and 1 <= value <= most):
        raise ValueError(f"{name} must be a whole number from 1 to {most}, not {show(value)}")


def check_share(name: str, value: object) -> None:
    """Raise ValueError unless this is a number above 0 and at most 1."""
    if not (is_number(value) and 0 < value <= 1):
        raise ValueError(f"{name} must be above 0 and at most 1, not {show(value)}")


def tolerated(votes: Votes, faulty: int | None) -> int:
    """f: the setting `faulty`, or the federation's ⌊αK⌋. It does not fall when agents are absent."""
    return votes.faulty if faulty is None else faulty


def kept(votes: Votes, faulty: int | None) -> int:
    """How many of the k votes are surely honest: k − f, and one at least."""
    return max(1, len(votes.agents) - tolerated(votes, faulty))
