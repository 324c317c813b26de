"""The seed of a run, as a command line has it."""

from __future__ import annotations

from fedpg_common.checks import show
from fedpg_common.derived_seeds import random_seed
from fedpg_common.errors import UsageError
from fedpg_common.federation import SEED_MAX

RANDOM = "random"
SEED_HELP = f'Every random draw follows from it; "{RANDOM}" draws one, and prints it.'


def parse_seed(text: str) -> int:
    """A whole number, or a new random one for "random". Raises UsageError."""
    if text.strip() == RANDOM:
        return random_seed()
    digits = text.strip()
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= len(str(SEED_MAX)) and int(digits) <= SEED_MAX):
        raise UsageError(f'the seed must be a whole number from 0 to 2**63 - 1, or "{RANDOM}", not {show(text)}')
    return int(digits)
