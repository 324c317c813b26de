"""Words for people: numbers with their nouns, and foreign text made safe to show."""

from __future__ import annotations

from collections.abc import Sequence

PATH_SHOWN_MAX = 300
"""How many characters of a path a sentence names."""


def count(number: int, noun: str, nouns: str = "") -> str:
    """A number and its noun: "1 round", "2 rounds". `nouns` is the plural where an s does not make it."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def agents(indices: Sequence[int], most: int = 8) -> str:
    """Agents by number: "agent 2", "agents 2, 3", and beyond `most` how many more there are."""
    listed = ", ".join(map(str, indices[:most]))
    more = f" and {len(indices) - most} more" if len(indices) > most else ""
    return f"agent{'s' * (len(indices) != 1)} {listed}{more}"


def on_one_line(text: str) -> str:
    """Text from elsewhere as it can be shown: line breaks are spaces, other control characters are written out.

    A terminal obeys escape sequences; what a server, an agent or a file has sent must not give it orders.
    """
    joined = " ".join(text.splitlines()) if any(end in text for end in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029") else text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in joined)


def shorten_middle(text: str, width: int) -> str:
    """At most `width` characters of a text, with … in the middle: names differ at their ends."""
    if len(text) <= width:
        return text
    if width < 2:
        return "…"[:width]
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"
