"""When an attack attacks: settings that every attack on the learning takes, and none has to know of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedpg_common.checks import is_whole, show

SETTINGS = ("starts_at", "ends_at", "on", "off")
FOLLOW = "follow"
"""A setting beside those, of attacks that try the server's rule: whether they follow what it remembers."""
ROUNDS_MAX = 2**53


@dataclass(frozen=True)
class Schedule:
    """The rounds in which an attacker attacks; in the others it is honest."""

    starts_at: int = 1
    """The first round of the attack."""
    ends_at: int | None = None
    """The last one; None for no end."""
    on: int | None = None
    """From `starts_at` on, in turn: so many rounds of attack ..."""
    off: int | None = None
    """... and so many honest ones. Both or neither."""

    def __post_init__(self) -> None:
        """Raise ValueError for a schedule that cannot be."""
        for name in SETTINGS:
            value = getattr(self, name)
            if value is not None and not (is_whole(value) and 1 <= value <= ROUNDS_MAX):
                raise ValueError(f"{name} must be a whole number of rounds from 1, not {show(value)}")
        if self.ends_at is not None and self.ends_at < self.starts_at:
            raise ValueError(f"ends_at must not be before starts_at: {self.ends_at} is before round {self.starts_at}")
        if (self.on is None) != (self.off is None):
            raise ValueError("on and off go together: rounds of attack and honest rounds, in turn")

    def is_active(self, round_number: int) -> bool:
        """Whether this is a round of attack."""
        if round_number < self.starts_at or (self.ends_at is not None and round_number > self.ends_at):
            return False
        if self.on is None or self.off is None:
            return True
        return (round_number - self.starts_at) % (self.on + self.off) < self.on


ALWAYS = Schedule()


def take_schedule(settings: Mapping[str, Any]) -> tuple[Schedule, dict[str, Any]]:
    """The schedule among an attack's settings, and the attack's own. Raises ValueError."""
    own = {name: value for name, value in settings.items() if name not in SETTINGS}
    return Schedule(**{name: value for name, value in settings.items() if name in SETTINGS}), own


def take_follow(settings: Mapping[str, Any]) -> tuple[bool, dict[str, Any]]:
    """Whether the attackers follow what the rule remembers, and the other settings. Raises ValueError."""
    follow = settings.get(FOLLOW, False)
    if not isinstance(follow, bool):
        raise ValueError(f"{FOLLOW} must be true or false, not {show(follow)}")
    return follow, {name: value for name, value in settings.items() if name != FOLLOW}
