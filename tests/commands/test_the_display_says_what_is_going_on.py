"""A run's display says at every moment what is going on, whatever a state has, lacks or is called."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg_common.words import agents, count, on_one_line, shorten_middle
from fedpg_lab.local.describe import (
    Pace,
    describe_count,
    describe_figures,
    describe_state,
    describe_wait,
    describe_warnings,
    duration,
)
from fedpg_lab.local.progress import LINE_EVERY_S, LineDisplay, LiveDisplay, make_display
from fedpg_lab.terminal.console import make_console
from rich.console import Console

Presence = pb.AgentStatus
NAME = "CartPole-v1_fedpg-br_K10_B3_random-noise"


def state(joined: int = 3, votes: int = 0, **values: object) -> pb.GetStatusReply:
    """A federation of three."""
    members = [
        pb.AgentStatus(
            agent=index, voted=index <= votes,
            presence=Presence.PRESENCE_JOINED if index <= joined else Presence.PRESENCE_NEVER_SEEN,
        )
        for index in (1, 2, 3)
    ]  # fmt: skip
    fields = {"trajectories_target": 5000, "phase": pb.PHASE_COLLECTING, "round": 1, "agents": members, **values}
    return pb.GetStatusReply(**fields)  # type: ignore[arg-type]


def latest(**values: object) -> pb.RoundSummary:
    fields = {"round": 7, "evaluation_return": 123.44, "accepted": [1, 2], "filtered": [3], "rule": "R1", **values}
    return pb.RoundSummary(**fields)  # type: ignore[arg-type]


@dataclass
class Clock:
    """A clock that a test sets."""

    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Screen:
    """A display on a terminal of a width, and what is to be seen on it."""

    columns: int = 80
    title: str = NAME
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        """Nothing is shown yet."""
        self.console = make_console(file=io.StringIO(), width=self.columns, force_terminal=True, color_system=None)
        self.display = LiveDisplay(self.title, self.console, self.clock)

    def lines(self) -> list[str]:
        """What is seen now."""
        with self.console.capture() as capture:
            self.console.print(self.display)
        lines = capture.get().splitlines()
        assert all(len(line) <= self.columns for line in lines)
        return [line.rstrip() for line in lines]


def test_it_begins_before_there_is_a_state() -> None:
    screen = Screen()
    screen.display.say("starting the server")
    assert screen.lines()[1:] == ["starting the server"]
    screen.clock.now_s = 7.0
    assert screen.lines()[1:] == ["starting the server (0:07)"], "something moves"


def test_the_figures_come_first_and_are_never_cut() -> None:
    screen = Screen()
    busy = state(votes=1, trajectories=4980, latest=latest(absent=[3]), message=f"waiting for {'x' * 200}", round=8)
    screen.display.show(busy)
    bar, figures, waiting = screen.lines()
    assert bar.startswith("CartPole-v1_fedpg-br_K10_B3_random-noise ━")
    assert bar.endswith("━╸ 4980/5000")
    assert figures.startswith("return 123.4  accepted 2  filtered 1  round 7  absent 1")
    assert waiting.startswith("round 8: 1 of 3 votes, waiting for xxx")
    assert waiting.endswith("…")


@pytest.mark.parametrize("columns", [1, 5, 20, 39, 80, 200])
@pytest.mark.parametrize("title", ["", "a", NAME, NAME * 10, "日本" * 30, "[/b] [red]", "a\nb\x1b[2J"])
def test_no_width_and_no_name_breaks_it(columns: int, title: str) -> None:
    screen = Screen(columns, title)
    for shown in (pb.GetStatusReply(), state(), state(trajectories=77, latest=latest(), trajectories_target=0)):
        screen.display.show(shown, "a note\nof two lines")
        text = "\n".join(screen.lines())
        assert "\x1b" not in text


def test_a_narrow_terminal_shortens_the_name_in_its_middle() -> None:
    screen = Screen(60)
    screen.display.show(state(trajectories=120))
    (bar, *_) = screen.lines()
    assert bar.startswith("CartPole-v1_fed…3_random-noise ")
    assert bar.endswith(" 120/5000")


@pytest.mark.parametrize("target", [0, 1, 5000])
def test_any_target(target: int) -> None:
    screen = Screen()
    screen.display.show(state(trajectories=1, trajectories_target=target, latest=latest()))
    assert screen.lines()[0].endswith(f"1/{target}" if target else " 1 trajectory")
    assert describe_count(pb.GetStatusReply()) == "0 trajectories"


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (pb.GetStatusReply(), ""),
        (state(joined=1), "1 of 3 agents joined"),
        (state(joined=2, phase=pb.PHASE_JOINING, message="waiting for agent 3"),
         "2 of 3 agents joined: waiting for agent 3"),
        (state(votes=2, message="waiting for agent 3"), "round 1: 2 of 3 votes, waiting for agent 3"),
        (state(votes=1, phase=pb.PHASE_BELOW_QUORUM, message="1 more must vote"),
         "round 1: 1 of 3 votes, 1 more must vote"),
        (state(joined=2, phase=pb.PHASE_JOINING, message="starting: 2 of 3 agents have joined, waiting for agent 3"),
         "starting: 2 of 3 agents have joined, waiting for agent 3"),
        (state(votes=2, message="round 1: 2 of 3 votes, waiting for agent 3"),
         "round 1: 2 of 3 votes, waiting for agent 3"),
        (state(votes=1, phase=pb.PHASE_BELOW_QUORUM, message="round 1 is below the quorum of 2: agent 2 must submit"),
         "round 1: 1 of 3 votes, below the quorum of 2: agent 2 must submit"),
        (state(votes=3, phase=pb.PHASE_IMPROVING, message="the server improves"), "the server improves"),
        (state(phase=77, message="something new"), "something new"),
    ],
)  # fmt: skip
def test_what_is_waited_for(shown: pb.GetStatusReply, text: str) -> None:
    assert describe_wait(shown) == text


def test_where_nothing_filters_nothing_is_filtered_out() -> None:
    averaged = state(latest=latest(rule="mean", accepted=[1, 2, 3], filtered=[]), trajectories=20)
    assert "  3 votes  " in describe_figures(averaged, Pace(0.0, None))
    assert "accepted" not in describe_figures(averaged, Pace(0.0, None))
    chosen = latest(filtered=[], weights={1: 1.0, 2: 1.0})
    assert "accepted 2  filtered 0" in describe_figures(state(latest=chosen), Pace(0.0, None))


def test_agents_in_trouble_are_named_with_their_reason() -> None:
    troubled = state()
    for index, note in ((0, "its gradient has a NaN"), (2, "its gradient has a NaN")):
        troubled.agents[index].note = note
    troubled.agents[1].presence = Presence.PRESENCE_FAILED
    assert describe_warnings(troubled) == ["agents 1, 3: its gradient has a NaN", "agent 2: failed: no reason given"]
    screen = Screen()
    screen.display.show(troubled)
    assert screen.lines()[-1] == "agent 2: failed: no reason given"
    many = pb.GetStatusReply(agents=[pb.AgentStatus(agent=index, note=f"trouble {index}") for index in range(1, 10)])
    assert len(describe_warnings(many)) == 4
    assert describe_warnings(many)[-1].startswith("and 6 more")


@dataclass
class Lines:
    """A display without a terminal, and what it has printed."""

    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        """Nothing is printed yet."""
        self.file = io.StringIO()
        self.display = LineDisplay("run", make_console(file=self.file, width=80), self.clock)

    def printed(self) -> list[str]:
        """The lines so far."""
        return self.file.getvalue().splitlines()


def test_lines_come_at_once_and_then_every_few_seconds() -> None:
    lines = Lines()
    lines.display.say("starting the server")
    assert lines.printed() == ["run  starting the server"]
    for second in range(21):
        lines.clock.now_s = float(second)
        lines.display.show(state(trajectories=second, latest=latest(round=second + 1)))
    assert len(lines.printed()) == 1 + 3  # at 0, 10 and 20 s
    assert LINE_EVERY_S == 10.0


def test_news_is_told_before_its_time_and_once() -> None:
    lines = Lines()
    below = state(votes=1, phase=pb.PHASE_BELOW_QUORUM, message="1 more must vote")
    for second, shown in enumerate([state(joined=1), state(latest=latest()), state(latest=latest()), below, below]):
        lines.clock.now_s = 2.0 * second
        lines.display.show(shown)
    assert [line.split("  ")[2] for line in lines.printed()] == [
        "1 of 3 agents joined",
        "return 123.4",
        "round 1: 1 of 3 votes, 1 more must vote",
    ]


def test_what_is_wrong_is_told_once_and_then_every_minute() -> None:
    lines = Lines()
    failed = state(trajectories=20, latest=latest())
    failed.agents[2].presence, failed.agents[2].note = Presence.PRESENCE_FAILED, "cold"
    for second in range(0, 75, 5):
        lines.clock.now_s = float(second)
        lines.display.show(failed, "agent 3 is gone")
    printed = lines.printed()
    assert len(printed) == 8  # every ten seconds
    told = [line.endswith("agent 3: failed: cold  agent 3 is gone") for line in printed]
    assert told == [True, *[False] * 5, True, False]


def test_a_refusal_is_told_once_in_a_line() -> None:
    refused = state(votes=2, message="waiting for agent 3; agent 3: gradient refused, not finite")
    refused.agents[2].note = "its latest submission was refused: not finite"
    assert describe_state(refused, Pace(0.0, None)).count("not finite") == 1


def test_a_reason_is_told_once_in_a_line() -> None:
    failed = state(
        joined=2, phase=pb.PHASE_JOINING, message="starting: 2 of 3 agents have joined; agent 3 has failed: cold"
    )
    failed.agents[2].presence, failed.agents[2].note = Presence.PRESENCE_FAILED, "cold"
    assert describe_state(failed, Pace(0.0, None)) == failed.message
    failed.agents[1].note = "its gradient has a NaN"
    assert describe_state(failed, Pace(0.0, None)) == f"{failed.message}  agent 2: its gradient has a NaN"


def test_lines_stand_in_the_order_of_what_happened() -> None:
    lines = Lines()
    for round_number in (1, 2):
        lines.display.show(state(trajectories=round_number, latest=latest(round=round_number)))
    lines.display.say("the agents leave")
    lines.display.__exit__()
    assert [line.split()[1] for line in lines.printed()] == ["1/5000", "2/5000", "the"]


def test_a_line_that_has_no_news_says_what_is_waited_for() -> None:
    lines = Lines()
    waiting = state(votes=2, message="round 8: 2 of 3 votes, waiting for agent 3", latest=latest(), round=8)
    for _ in range(2):
        lines.display.show(waiting)
        lines.clock.now_s += LINE_EVERY_S
    first, second = lines.printed()
    assert "waiting" not in first
    assert second.endswith("round 8: 2 of 3 votes, waiting for agent 3")
    lines.display.show(state(phase=pb.PHASE_ENDED, message="the run has ended", latest=latest()))
    assert "has ended" not in lines.printed()[-1]


def test_a_failure_is_not_told_again_before_its_sentence() -> None:
    lines = Lines()
    failed = state(message="waiting for agent 3; agent 3 has failed: cold", latest=latest())
    lines.display.show(failed, "agent 3 is gone")
    lines.display.show(failed, "agent 3 is gone")
    error = RuntimeError("cold")
    lines.display.__exit__(RuntimeError, error, None)
    assert len(lines.printed()) == 1
    lines.display.show(failed, "agents 2, 3 are gone")
    lines.display.__exit__(RuntimeError, error, None)
    assert lines.printed()[-1].endswith("agents 2, 3 are gone"), "that is news"


class NotATerminal(io.StringIO):
    """A file whose reader is told that it is a terminal by an environment variable alone."""


def test_only_a_terminal_has_a_bar() -> None:
    def display(file: io.StringIO, **options: bool) -> object:
        return make_display("run", Console(file=file, **options))  # type: ignore[arg-type]

    assert isinstance(display(NotATerminal(), force_terminal=True), LineDisplay)
    assert isinstance(display(NotATerminal()), LineDisplay)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0:00"), (59.6, "1:00"), (754, "12:34"), (3600, "1:00:00"), (86399, "23:59:59"),
        (90000, "1 day 1 h"), (8.7e5, "10 days 1 h"),
    ],
)  # fmt: skip
def test_times(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (lambda: count(1, "round"), "1 round"),
        (lambda: count(0, "trajectory", "trajectories"), "0 trajectories"),
        (lambda: agents([2]), "agent 2"),
        (lambda: agents([2, 5]), "agents 2, 5"),
        (lambda: agents(range(1, 12)), "agents 1, 2, 3, 4, 5, 6, 7, 8 and 3 more"),
        (lambda: on_one_line("a\r\nb\tc\x00"), "a b\\tc\\x00"),
        (lambda: on_one_line("ünï ☃"), "ünï ☃"),
        (lambda: shorten_middle("abcdefghij", 5), "ab…ij"),
        (lambda: shorten_middle("abcdefghij", 1), "…"),
        (lambda: shorten_middle("abcdefghij", 0), ""),
        (lambda: shorten_middle("abc", 3), "abc"),
    ],
)
def test_words(words: Callable[[], str], text: str) -> None:
    assert words() == text
