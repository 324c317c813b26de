"""A run's live display: trajectories, return, what the filter did, speed, time left."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from fedpg.v1 import federation_pb2 as pb
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

LINE_EVERY_S = 10.0


class Display(Protocol):
    """Shows the states of one run as they come."""

    def __enter__(self) -> Display:
        """Start showing."""

    def __exit__(self, *exception: object) -> None:
        """Leave the last state on the screen."""

    def show(self, status: pb.GetStatusReply, note: str = "") -> None:
        """Show a state, and what else there is to say."""


@dataclass(frozen=True)
class Pace:
    """How fast a run goes, measured between two states."""

    steps_per_s: float
    left_s: float | None
    """Time to the end at this pace; None while there is nothing to go by."""


class PaceMeter:
    """Measures pace from the first state seen."""

    def __init__(self) -> None:
        """Nothing is seen yet."""
        self._first: tuple[float, pb.GetStatusReply] | None = None

    def measure(self, status: pb.GetStatusReply, now_s: float) -> Pace:
        """The mean pace since the first state; `now_s` is monotonic."""
        if self._first is None:
            self._first = now_s, status
        first_s, first = self._first
        elapsed_s = now_s - first_s
        done = status.trajectories - first.trajectories
        if elapsed_s <= 0 or done <= 0:
            return Pace(0.0, None)
        left = max(0, status.trajectories_target - status.trajectories)
        return Pace((status.environment_steps - first.environment_steps) / elapsed_s, elapsed_s * left / done)


class LiveDisplay:
    """A progress bar on a terminal."""

    def __init__(self, title: str, console: Console) -> None:
        """`title` stands before the bar."""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[text]}"),
            console=console,
        )
        self._pace = PaceMeter()
        self._task: TaskID = self._progress.add_task(title, total=None, text="starting", completed=0)

    def __enter__(self) -> LiveDisplay:
        """Start showing."""
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the last state on the screen."""
        self._progress.stop()

    def show(self, status: pb.GetStatusReply, note: str = "") -> None:
        """Show a state."""
        self._progress.update(
            self._task,
            total=status.trajectories_target,
            completed=min(status.trajectories, status.trajectories_target),
            text=_joined(describe_state(status, self._pace.measure(status, time.monotonic())), note),
        )


class LineDisplay:
    """A line every few seconds where there is no terminal."""

    def __init__(self, title: str, console: Console) -> None:
        """`title` starts each line."""
        self._title = title
        self._console = console
        self._pace = PaceMeter()
        self._shown_s = float("-inf")
        self._last: tuple[pb.GetStatusReply, str] | None = None

    def __enter__(self) -> LineDisplay:
        """Start showing."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Print the last state."""
        if self._last is not None:
            self._print(*self._last)

    def show(self, status: pb.GetStatusReply, note: str = "") -> None:
        """Print a state if the last line is old enough."""
        self._last = status, note
        if time.monotonic() - self._shown_s >= LINE_EVERY_S:
            self._print(status, note)

    def _print(self, status: pb.GetStatusReply, note: str) -> None:
        self._shown_s = time.monotonic()
        count = f"{status.trajectories}/{status.trajectories_target}"
        text = _joined(describe_state(status, self._pace.measure(status, time.monotonic())), note)
        self._console.print(f"{self._title}  {count}  {text}", highlight=False, soft_wrap=True)


def make_display(title: str, console: Console) -> Display:
    """The display that suits the console."""
    return LiveDisplay(title, console) if console.is_terminal else LineDisplay(title, console)


def describe_state(status: pb.GetStatusReply, pace: Pace) -> str:
    """One line: round, return, filter, speed, time left, and what is being waited for if that takes long."""
    if not status.HasField("latest"):
        joined = sum(agent.presence == pb.AgentStatus.PRESENCE_JOINED for agent in status.agents)
        return f"{joined} of {len(status.agents)} agents have joined"
    latest = status.latest
    parts = [
        f"round {latest.round}",
        f"return {latest.evaluation_return:.1f}",
        f"accepted {len(latest.accepted)}",
        f"filtered {len(latest.filtered)}",
    ]
    if latest.absent:
        parts.append(f"absent {len(latest.absent)}")
    parts.append(f"{pace.steps_per_s:,.0f} steps/s")
    if pace.left_s is not None:
        minutes, seconds = divmod(round(pace.left_s), 60)
        parts.append(f"{minutes}:{seconds:02d} left")
    if status.phase == pb.PHASE_BELOW_QUORUM:
        parts.append(status.message)
    return "  ".join(parts)


def _joined(text: str, note: str) -> str:
    return f"{text}  {note}" if note else text
