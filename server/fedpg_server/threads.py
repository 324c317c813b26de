"""Work for a thread of its own, awaited from the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def run_in(thread: ThreadPoolExecutor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What the function gives, called in `thread` once it has done what it was given before. Raises what it raises."""
    return await asyncio.get_running_loop().run_in_executor(thread, partial(function, *args, **kwargs))
