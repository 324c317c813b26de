"""A process that gets only a part of a core: stopped and continued in turn. Needs no root and no control groups."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

PERIOD_S = 0.05


class Brake:
    """Holds a process to a fraction of the time from its creation until `release`."""

    def __init__(self, send: Callable[[signal.Signals], None], fraction: float) -> None:
        """`send` signals the process, if there is one at the moment; `fraction` is in (0, 1]."""
        self._send = send
        self._fraction = fraction
        self._is_released = threading.Event()
        self._thread = threading.Thread(target=self._run, name="slow-cpu", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Let the process run."""
        self._is_released.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._is_released.wait(self._fraction * PERIOD_S):
                self._send(signal.SIGSTOP)
                self._is_released.wait((1.0 - self._fraction) * PERIOD_S)
                self._send(signal.SIGCONT)
        finally:
            self._send(signal.SIGCONT)
