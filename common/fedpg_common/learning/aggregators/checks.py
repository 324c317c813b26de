"""What the constructors of aggregators check."""

from __future__ import annotations

from fedpg_common.tasks import is_number, is_whole, show

FAULTY_MAX = 10_000


def check_faulty(faulty: object) -> None:
    """Raise ValueError unless this is a number of faulty agents, or None for the federation's ⌊αK⌋."""
    if faulty is not None and not (is_whole(faulty) and 0 <= faulty <= FAULTY_MAX):
        raise ValueError(f"faulty must be a whole number from 0 to {FAULTY_MAX}, not {show(faulty)}")


def check_positive(name: str, value: object) -> None:
    """Raise ValueError unless this is a positive number, or None for the default."""
    if value is not None and not (is_number(value) and value > 0):
        raise ValueError(f"{name} must be a positive number, not {show(value)}")
