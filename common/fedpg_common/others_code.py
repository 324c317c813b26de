"""What code that somebody else has written raises: whose it is, what it says, and where it was raised.

Environments, aggregators, algorithms, attacks and observers may raise anything, may end the process, and may never
return. Whoever calls them makes one sentence of what they raise with `reason` and `place`, and calls them with `asked`,
so that `fedpg_common.waits` can tell who does not return.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

OUR_PACKAGES = ("fedpg", "fedpg_common", "fedpg_client", "fedpg_server", "fedpg_lab")
LIBRARIES = frozenset({*OUR_PACKAGES, *sys.stdlib_module_names, "numpy", "gymnasium"})
"""Whose files are not named: what was raised there is explained by whoever called them."""
INSTALLED = ("site-packages", "dist-packages")
MESSAGE_MAX = 300
"""Characters of an exception's message that a sentence repeats."""


def raise_if_ours(error: BaseException) -> None:
    """Raise the error again if it is not of the other code's making.

    Ctrl-C comes to the main thread, and so does the SystemExit of a signal handler of ours. From any other thread both
    are the other code's own.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if isinstance(error, KeyboardInterrupt):
        raise error
    frame = innermost(error)
    if isinstance(error, SystemExit) and frame is not None and _top_module(frame) in OUR_PACKAGES:
        raise error


def reason(error: BaseException) -> str:
    """An exception's type and message, on one line."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # an exception of others' making may not even be printable
        text = ""
    kind = type(error).__name__
    if isinstance(error, SystemExit):
        return f"it ended the process ({kind}: {text or 'without a code'})"
    if len(text) > MESSAGE_MAX:
        text = f"{text[:MESSAGE_MAX]}…"
    return f"{kind}: {text}" if text else kind


def complaint(error: BaseException) -> str:
    """The message alone of a ValueError, with which code says in a sentence what is wrong; else as `reason`."""
    text = reason(error)
    return text.partition(": ")[2] or text if isinstance(error, ValueError) else text


def asked(method: str, who: str, call: Callable[[], T]) -> T:
    """What `method` of `who` answers: somebody's own code. Whoever finds this call's frame reads there whose it is."""
    return call()


def is_ours(module: str) -> bool:
    """Whether a module, by its name, comes with FedPG."""
    return module.partition(".")[0] in OUR_PACKAGES


def place(error: BaseException) -> str:
    """Where an exception was raised, in brackets: file and line; "" where that is in nobody's own code.

    It is the innermost line of a file of the user's: one that is not installed, or else one that belongs neither to
    Python, nor to FedPG, nor to the libraries that it calls others' code through.
    """
    steps = [
        (Path(frame.f_code.co_filename), line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not is_of_a_library(frame) and not frame.f_code.co_filename.startswith("<")
    ]
    own = [step for step in steps if not any(part in INSTALLED for part in step[0].parts)]
    if not (own or steps):
        return ""
    file, line = (own or steps)[-1]
    return f" ({file.name}, line {line})"


def place_of(frame: FrameType | None, outermost: FrameType | None = None) -> str:
    """Where a thread is, in brackets: as `place`, of the frames from its innermost one up to, without, `outermost`."""
    while frame is not None and frame is not outermost and is_of_a_library(frame):
        frame = frame.f_back
    if frame is None or frame is outermost:
        return ""
    return f" ({Path(frame.f_code.co_filename).name}, line {frame.f_lineno})"


def innermost(error: BaseException) -> FrameType | None:
    """The frame in which an exception was raised; None for one that was never raised."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return frames[-1] if frames else None


def is_of_a_library(frame: FrameType) -> bool:
    """Whether the frame's line is of no help to whoever has written the other code: see LIBRARIES."""
    return _top_module(frame) in LIBRARIES


def _top_module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
