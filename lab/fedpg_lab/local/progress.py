"""A run's live display: on a terminal a bar with a few lines below it, elsewhere a line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from fedpg.v1 import federation_pb2 as pb
from fedpg_common.words import on_one_line, shorten_middle
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from fedpg_lab.local.describe import (
    Pace,
    PaceMeter,
    describe_count,
    describe_figures,
    describe_state,
    describe_wait,
    describe_warnings,
    duration,
)

LINE_EVERY_S = 10.0
LINE_EVERY_MIN_S = 1.0
"""Not even news is told more often."""
TROUBLE_EVERY_S = 60.0
"""What is wrong is told when it is news, and again after so long; other lines leave it out."""
BAR_COLUMNS_MIN = 20
REFRESHES_PER_S = 4.0
SLOW_S = 3.0
"""A step that takes longer has its time beside it, which shows that something moves."""

Clock = Callable[[], float]


class Display(Protocol):
    """Shows the states of one run as they come."""

    def __enter__(self) -> Display:
        """Start showing."""

    def __exit__(self, *exception: object) -> None:
        """Leave the last state on the screen."""

    def say(self, text: str) -> None:
        """Say what is going on where no state can: before the server answers, and after."""

    def show(self, status: pb.GetStatusReply, note: str = "") -> None:
        """Show a state, and what else there is to say."""


class LiveDisplay:
    """A bar on a terminal; below it the latest round's figures, what is being waited for, and what is wrong."""

    def __init__(self, title: str, console: Console, clock: Clock = time.monotonic) -> None:
        """`title` stands before the bar, shortened in the middle where the terminal is narrow."""
        self._title = on_one_line(title)
        self._clock = clock
        self._pace = PaceMeter()
        self._status: pb.GetStatusReply | None = None
        self._measured = Pace(0.0, None)
        self._note = ""
        self._doing = "starting"
        self._since_s = clock()
        self._live = Live(self, console=console, refresh_per_second=REFRESHES_PER_S, vertical_overflow="crop")

    def __enter__(self) -> LiveDisplay:
        """Start showing."""
        self._live.start(refresh=True)
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the figures on the screen; what was being done or waited for is over."""
        self._do("")
        self._live.stop()

    def say(self, text: str) -> None:
        """Show what is going on: at once, for it may be over before the next refresh."""
        self._do(on_one_line(text))
        if self._live.is_started:
            self._live.refresh()

    def show(self, status: pb.GetStatusReply, note: str = "") -> None:
        """Show a state."""
        self._status, self._note = status, on_one_line(note)
        self._measured = self._pace.measure(status, self._clock())
        self._do(describe_wait(status))

    def _do(self, text: str) -> None:
        if text != self._doing:
            self._doing, self._since_s = text, self._clock()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The bar and its lines, each cut where the terminal ends."""
        lines: list[tuple[str, str]] = []
        if self._status is not None:
            lines.append((describe_figures(self._status, self._measured), ""))
        lines += [(self._doing_line(), "dim"), (self._note, "yellow")]
        if self._status is not None:
            lines += [(warning, "yellow") for warning in describe_warnings(self._status)]
        texts = [Text(text, style, no_wrap=True, overflow="ellipsis") for text, style in lines if text]
        yield Group(self._bar(options.max_width), *texts)

    def _doing_line(self) -> str:
        took_s = self._clock() - self._since_s
        return f"{self._doing} ({duration(took_s)})" if self._doing and took_s >= SLOW_S else self._doing

    def _bar(self, width: int) -> Text:
        """The title, a bar and the count in one line of that width; where it is too narrow, just what fits."""
        status = self._status or pb.GetStatusReply()
        target = status.trajectories_target
        counted = describe_count(status) if self._status is not None else ""
        share = min(1.0, status.trajectories / target) if target else 0.0
        title = shorten_middle(self._title, max(0, width - BAR_COLUMNS_MIN - len(counted) - 2))
        columns = max(0, width - len(title) - len(counted) - 2)
        bar = ProgressBar(total=1.0, completed=share, width=columns)
        line = Text(f"{title} ", no_wrap=True, overflow="crop")
        for segment in self._live.console.render(bar, self._live.console.options.update(width=columns)):
            line.append(segment.text.rstrip("\n"), segment.style)
        line.pad_right(max(0, width - line.cell_len - len(counted)))
        return line.append(counted)


class LineDisplay:
    """Where there is no terminal: a line at once, every few seconds, and when something new is the case."""

    def __init__(self, title: str, console: Console, clock: Clock = time.monotonic) -> None:
        """`title` starts each line."""
        self._title = on_one_line(title)
        self._console = console
        self._clock = clock
        self._pace = PaceMeter()
        self._shown_s = self._trouble_s = float("-inf")
        self._trouble: object = None
        self._kind: object = None
        self._told_round = -1
        self._last: tuple[pb.GetStatusReply, str] | None = None
        self._is_told = True

    def __enter__(self) -> LineDisplay:
        """Start showing."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Print the last state, unless that has been done; before an error's sentence, only if it is news."""
        has_failed = any(part is not None for part in exception)
        if not has_failed or (self._last is not None and kind_of(*self._last) != self._kind):
            self._tell_last()

    def say(self, text: str) -> None:
        """Print what is going on, after what came before it."""
        self._tell_last()
        self._print(on_one_line(text))

    def show(self, status: pb.GetStatusReply, note: str = "") -> None:
        """Print a state if it is of another kind than the last one printed, or that is old enough."""
        self._last, self._is_told = (status, note), False
        pause_s = self._clock() - self._shown_s
        if pause_s >= LINE_EVERY_S or (pause_s >= LINE_EVERY_MIN_S and kind_of(status, note) != self._kind):
            self._print_state(status, note)

    def _tell_last(self) -> None:
        if self._last is not None and not self._is_told:
            self._print_state(*self._last)

    def _print_state(self, status: pb.GetStatusReply, note: str) -> None:
        self._shown_s, self._kind, self._is_told = self._clock(), kind_of(status, note), True
        trouble = (describe_warnings(status), note)
        is_due = trouble != self._trouble or self._shown_s - self._trouble_s >= TROUBLE_EVERY_S
        if is_due:
            self._trouble, self._trouble_s = trouble, self._shown_s
        figures = status.latest.round if status.HasField("latest") else 0
        state = describe_state(
            status,
            self._pace.measure(status, self._shown_s),
            with_warnings=is_due,
            with_wait=figures == self._told_round and not is_due and status.phase != pb.PHASE_ENDED,
        )
        self._told_round = figures
        self._print("  ".join(filter(None, (describe_count(status), state, on_one_line(note) if is_due else ""))))

    def _print(self, text: str) -> None:
        self._console.print(Text(f"{self._title}  {text}"), soft_wrap=True)


def kind_of(status: pb.GetStatusReply, note: str) -> object:
    """What makes a state news: the first round is over, the quorum is lost or back, something else is wrong."""
    is_below = status.phase == pb.PHASE_BELOW_QUORUM
    return status.HasField("latest"), is_below, tuple(describe_warnings(status)), note


def make_display(title: str, console: Console) -> Display:
    """The display that suits the console: live only where something can move on a screen."""
    if console.is_terminal and not console.is_dumb_terminal and console.file.isatty():
        return LiveDisplay(title, console)
    return LineDisplay(title, console)
