"""Checks of what users write."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Mapping
from typing import TypeGuard

from fedpg_common.errors import UsageError

FLOAT_MAX = sys.float_info.max
SHOWN_MAX = 80
"""Characters of a bad value that an error repeats."""
ALIKE_MIN = 0.65
"""How similar a name must be to be the one that was meant, by difflib's ratio."""
SHORT_MAX = 4
"""Characters of a short name."""


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


def nearest(name: object, known: Iterable[str]) -> str:
    """The one of the `known` names that was probably meant; "" if none is near.

    Of a short name, most letters of a longer one are soon among its own: foo is not a misspelt flood.
    """
    text = str(name).lower()
    names = {one.lower(): one for one in known}
    alike = difflib.get_close_matches(text, list(names), n=3, cutoff=ALIKE_MIN)
    return next((names[near] for near in alike if len(text) > SHORT_MAX or abs(len(near) - len(text)) <= 1), "")


def unknown(what: str, name: object, known: Iterable[str], otherwise: str = "") -> UsageError:
    """The error for a name that is not one of the `known`: what was probably meant, and what else there is.

    `otherwise` ends the sentence, for example ", or MODULE:NAME".
    """
    names = list(known)
    near = nearest(name, names)
    hint = f"did you mean {near}? Otherwise " if near else ""
    return UsageError(f"unknown {what} {show(name)}: {hint}choose one of {', '.join(names)}{otherwise}")


def refuse_unknown(fields: Iterable[str], known: Iterable[str], where: str = "", prefix: str = "") -> None:
    """Raise UsageError for a field that is not one of the `known`.

    `where` is the table it stands in (" of [quick]"), and `prefix` begins the sentence.
    """
    names = list(known)
    for name in sorted(set(fields) - set(names)):
        error = unknown(f"field{where}", name, names)
        raise UsageError(f"{prefix}{error}")
