"""What every process of a federation does first."""

from __future__ import annotations

import gc
import logging
import sys
from typing import TextIO

from fedpg_common.checks import unknown

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
TURN_S = 5e-4
OBJECTS_UNTIL_A_LOOK = 10_000


def use_one_thread() -> None:
    """Restrict this process's linear algebra to one thread.

    Agents share a machine's cores by being many, and a fixed thread count keeps every sum's order, hence its bits.
    To be called once everything is imported.
    """
    # An agent does without torch, which costs seconds to import: where nobody has, there is nothing to restrict.
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    import threadpoolctl  # looks through all loaded libraries, which a --help has no use for

    threadpoolctl.threadpool_limits(limits=1)


def take_short_turns() -> None:
    """Let this process's threads change places sooner than after Python's 5 ms: for a server.

    Its learner's thread computes, often in Python, while another one answers, which waits for its turn each time it
    wakes: ten agents, answered one after the other, would hear of a round up to 50 ms late.
    """
    sys.setswitchinterval(TURN_S)


def look_for_garbage_rarely() -> None:
    """Have Python look for cycles of objects less often: for a server.

    A thousand votes are some dozen objects each, all alive until their round is stored; by its own measure Python looks
    through them again and again, for a twentieth of the server's time, and finds nothing.
    """
    gc.set_threshold(OBJECTS_UNTIL_A_LOOK)


def log_to_stderr(name: str, level: str) -> None:
    """Log one line an event to standard error: time, process name, message. Raises UsageError for an unknown level."""
    if level.upper() not in LOG_LEVELS:
        raise unknown("log level", level, (name.lower() for name in LOG_LEVELS))
    handler = _Stderr()
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)-7s {name}  %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what sys.stderr is at that moment, so that a live display can print the lines above itself."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # as logging's own handler of last resort does it
        return sys.stderr
