"""How a federation on this machine fails, and the sentences that say so."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedpg_common.errors import ExitCode, FedPGError, QuorumLostError


class ProcessFailedError(FedPGError):
    """A process of the federation ended with an error that starting it again does not mend."""

    def __init__(self, message: str, exit_code: int) -> None:
        """Take over the failed process's exit code."""
        super().__init__(message)
        self.exit_code = ExitCode(exit_code) if exit_code in list(ExitCode) else ExitCode.BUG


class AgentsLostError(ProcessFailedError, QuorumLostError):
    """So many agents have failed, or cannot vote, that a round cannot close as it should."""


@contextmanager
def agent_named(agent: int) -> Iterator[None]:
    """Say of a failure whose it is. Raises ProcessFailedError."""
    try:
        yield
    except FedPGError as error:
        raise ProcessFailedError(f"agent {agent}: {error}", error.exit_code) from error


def name_of_signal(number: int) -> str:
    """A signal as people know it, for example SIGSEGV."""
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


OUR_STATUSES = frozenset({ExitCode.BUG, ExitCode.STORAGE, ExitCode.INTERRUPTED, ExitCode.TERMINATED})
"""With which a process of ours may end without a sentence in its log: nobody expected it, or the log is full."""


def was_ended_by_others(path: Path, exit_code: int) -> bool:
    """Whether a process ended too soon with a status that its log does not explain, as ours do."""
    if exit_code == ExitCode.OK:
        return True
    return exit_code > 0 and exit_code not in OUR_STATUSES and not _sentences(_lines(path))


def last_words(path: Path, exit_code: int) -> str:
    """The sentence with which a process failed, or what its exit code or its log tells of it, and where to look."""
    lines = _lines(path)
    if exit_code < 0:
        return f"it was killed by {name_of_signal(-exit_code)} again and again; see {path}"
    sentences = _sentences(lines)
    if sentences and exit_code != ExitCode.BUG:
        return sentences[-1]
    if exit_code == ExitCode.STORAGE:
        return f"it could write neither its store nor its log {path}: is the disk full?"
    if exit_code == ExitCode.BUG:
        return lines[-1] if any(line.startswith("Traceback") for line in lines) else f"see {path}"
    return f"it ended with exit status {exit_code}: see {path}"


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if line.strip()]
    except OSError:
        return []


def _sentences(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("fedpg-")]
