"""Checks of what users write."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TypeGuard

FLOAT_MAX = sys.float_info.max
SHOWN_MAX = 80
"""Characters of a bad value that an error repeats."""


def is_whole(value: object) -> TypeGuard[int]:
    """Whether this is a whole number; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether this is a finite number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= FLOAT_MAX


def is_plain(value: object, depth: int = 8) -> bool:
    """Whether JSON and TOML carry this value unchanged, to a sane depth."""
    if isinstance(value, Mapping):
        return depth > 0 and all(isinstance(key, str) and is_plain(entry, depth - 1) for key, entry in value.items())
    if isinstance(value, list):
        return depth > 0 and all(is_plain(entry, depth - 1) for entry in value)
    if isinstance(value, str):
        return value.isprintable()
    return isinstance(value, bool) or is_number(value)


def show(value: object) -> str:
    """A bad value as an error repeats it, cut to a length that fits in a sentence."""
    text = repr(value)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"
