"""Scenarios on a clock of their own: a federation that is only played, and the plans and histories of faults."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedpg.v1 import federation_pb2 as pb
from fedpg_common.descriptions import describe
from fedpg_lab.faults.backend import Fault, FaultKind
from fedpg_lab.faults.history import FaultSpan, History
from fedpg_lab.faults.runner import POLL_S, run_scenario
from fedpg_lab.faults.scenario import Scenario
from fedpg_lab.faults.timeline import INSTANT, HealReason, PlannedFault, label_of
from hypothesis import strategies as st

TICK_S = 1e-6
"""What sums of floats may be off by."""


def plan(
    number: int,
    kind: FaultKind = FaultKind.PAUSE,
    *targets: int,
    at_round: int = 1,
    after_s: float = 0.0,
    for_rounds: int | None = None,
    at_most_s: float = 0.0,
) -> PlannedFault:
    """A fault with its place in time, on agent `number` unless told otherwise."""
    fault = Fault(kind, targets or (number,))
    return PlannedFault(number, fault, label_of(fault), at_round, after_s, for_rounds, at_most_s)


def span(
    planned: PlannedFault, begin_s: float, begin_round: int, heal_s: float | None, heal_round: int | None
) -> FaultSpan:
    """A fault that began, and was healed in its time unless `heal_s` is None."""
    return FaultSpan(planned, begin_s, begin_round, heal_s, heal_round, None if heal_s is None else HealReason.OVER)


def scenario_of(planned: Sequence[PlannedFault], at_most_s: float = 1e6, agents: int = 5) -> Scenario:
    """A scenario with these faults."""
    federation = describe("CartPole-v1", agents=agents)
    return Scenario("played", "Played", "", 0, federation, tuple(planned), at_most_s, 'title = "Played"')


def do_nothing(_call: str) -> None:
    """Every call succeeds."""


@dataclass
class PlayedFederation:
    """A backend without processes, whose rounds open as they are told to, on a clock that only `sleep` moves."""

    opens_s: Sequence[float] = (0.0,)
    """When rounds 1, 2 and so on open."""
    ends_s: float = math.inf
    """When the run has ended."""
    leaves_s: float = math.inf
    """When its server has."""
    phases: Callable[[float], pb.Phase.ValueType | None] = lambda _now_s: pb.PHASE_COLLECTING
    """What its status says until the end; None where it gives none."""
    on_call: Callable[[str], None] = do_nothing
    """Hears of every call by its name, and may raise."""
    now_s: float = 0.0
    calls: list[str] = field(default_factory=list)
    """All calls but `supervise` and `status`, in order."""
    applied: list[tuple[float, Fault]] = field(default_factory=list)
    healed: list[tuple[float, Fault]] = field(default_factory=list)

    def clock(self) -> float:
        """The time."""
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.on_call("sleep")
        self.now_s += seconds

    def check(self, _kinds: frozenset[FaultKind]) -> None:
        """See `Backend`, as all that follow."""
        self._note("check")

    def start(self) -> None:
        self._note("start")

    def supervise(self) -> bool:
        self.on_call("supervise")
        return self.now_s < self.leaves_s

    def status(self) -> pb.GetStatusReply | None:
        self.on_call("status")
        phase = pb.PHASE_ENDED if self.now_s >= self.ends_s else self.phases(self.now_s)
        if phase is None:
            return None
        number = bisect_right(self.opens_s, self.now_s)
        latest = pb.RoundSummary(round=number - 1, parameters_digest=bytes([number - 1])) if number > 1 else None
        return pb.GetStatusReply(round=number, phase=phase, latest=latest)

    def apply(self, fault: Fault) -> None:
        self.applied.append((self.now_s, fault))
        self._note(f"apply {fault.targets[0]}")

    def heal(self, fault: Fault) -> None:
        self._note(f"heal {fault.targets[0]}")
        self.healed.append((self.now_s, fault))

    def finish(self, _folder: Path) -> None:
        self._note("finish")

    def close(self) -> None:
        self._note("close")

    def _note(self, call: str) -> None:
        self.calls.append(call)
        self.on_call(call)


class Unseen:
    """A display that keeps the notes that it is given."""

    def __init__(self) -> None:
        """Nothing is shown yet."""
        self.notes: list[str] = []

    def __enter__(self) -> Unseen:
        """See `Display`, as all that follow."""
        return self

    def __exit__(self, *exception: object) -> None:
        return

    def say(self, text: str) -> None:
        return

    def show(self, status: pb.GetStatusReply, note: str = "") -> None:
        self.notes.append(note)


def play(
    federation: PlayedFederation, planned: Sequence[PlannedFault], at_most_s: float = 1e6, display: Unseen | None = None
) -> tuple[History, list[str]]:
    """Run a scenario on it: the history, and what was said."""
    said: list[str] = []
    history = run_scenario(
        scenario_of(planned, at_most_s),
        federation,
        Path("nowhere"),
        display or Unseen(),
        said.append,
        federation.clock,
        federation.sleep,
    )
    return history, said


def is_soon_after(time_s: float | None, due_s: float) -> bool:
    """Whether it is that time, as exactly as a look every POLL_S can tell."""
    return time_s is not None and due_s - TICK_S <= time_s <= due_s + POLL_S + TICK_S


def planned_faults() -> st.SearchStrategy[list[PlannedFault]]:
    """Faults of some rounds or some time, and restarts; half seconds, which floats can hold."""

    def fault(number: int) -> st.SearchStrategy[PlannedFault]:
        start = {"at_round": st.integers(1, 8), "after_s": st.integers(0, 12).map(lambda n: n / 2)}
        lasting = st.builds(plan, st.just(number), **start, for_rounds=st.none() | st.integers(1, 4),
                            at_most_s=st.integers(1, 12).map(lambda n: n / 2))  # fmt: skip
        return lasting | st.builds(plan, st.just(number), st.just(FaultKind.RESTART), **start)

    return st.integers(0, 8).flatmap(lambda count: st.tuples(*map(fault, range(1, count + 1))).map(list))


def assert_all_is_healed(history: History, federation: PlayedFederation) -> None:
    """Everything that has begun is healed, exactly once and not before, and the backend is closed last of all."""
    assert all(span.heal_s is not None and span.heal_s >= span.begin_s for span in history.faults)
    lasting = [span.planned.fault for span in history.faults if span.planned.fault.kind not in INSTANT]
    assert Counter(fault for _, fault in federation.healed) == Counter(lasting)
    assert [fault for _, fault in federation.applied] == [span.planned.fault for span in history.faults]
    assert federation.calls[-1] == "close"
    assert federation.calls.count("close") == 1
