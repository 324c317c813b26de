"""Driving a scenario: look at the run, begin and heal what is due, write down what happened."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fedpg.v1 import federation_pb2 as pb
from fedpg_common.errors import FedPGError

from fedpg_lab.faults.backend import Backend
from fedpg_lab.faults.history import Ending, FaultSpan, History, note_wait
from fedpg_lab.faults.scenario import Scenario
from fedpg_lab.faults.timeline import INSTANT, Begin, Change, Heal, HealReason, Timeline
from fedpg_lab.local.progress import Display

POLL_S = 0.2
LEAVE_S = 60.0
"""How long the server may take to end after the run has."""


class ServerStaysError(FedPGError):
    """The run is over, and its server is not."""


def run_scenario(
    scenario: Scenario,
    backend: Backend,
    folder: Path,
    display: Display,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> History:
    """Run a federation through its faults to the end, and leave its store and logs in `folder`.

    `say` gets a line for each fault that begins or is healed. However the run goes on, everything is healed and every
    process ended; how it went is in the history. Raises FedPGError if the run cannot start.
    """
    driver = _Driver(scenario, backend, display, say, clock, sleep)
    backend.check(scenario.kinds)
    try:
        with display:
            display.say("starting the server and the agents")
            backend.start()
            driver.drive()
            display.say("collecting what the run left behind")
            driver.collect(folder)
    finally:
        backend.close()
    return driver.history


class _Driver:
    """One scenario on its way."""

    def __init__(
        self,
        scenario: Scenario,
        backend: Backend,
        display: Display,
        say: Callable[[str], None],
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self.history = History()
        self._at_most_s = scenario.at_most_s
        self._backend = backend
        self._display = display
        self._say = say
        self._clock = clock
        self._sleep = sleep
        self._planned = scenario.planned
        self._timeline = Timeline(scenario.planned)
        self._origin_s: float | None = None
        self._round = 0
        self._last: pb.GetStatusReply | None = None
        self._is_below_quorum = self._is_silent = False

    def drive(self) -> None:
        """Go on until the run has ended or cannot go on; then heal everything."""
        self._attempt(self._go_on)
        self.history.end_s = self._now_s
        # A server that was already gone when it was last asked has ended, and did not fail to answer.
        self.history.silent = [wait for wait in self.history.silent if wait.end_s > wait.begin_s]
        begun = {span.planned.number for span in self.history.faults}
        self.history.never_begun = [planned for planned in self._planned if planned.number not in begun]
        # The history knows what to heal, and not the timeline: where a change could not be made, those due with it were
        # not begun. The second time is for what was interrupted in the first.
        for span in self.history.faults * 2:
            if span.heal_s is None:
                self._attempt(partial(self._carry_out, Heal(span.planned, HealReason.END)))

    def collect(self, folder: Path) -> None:
        """See the run out, and its store and logs into its folder."""
        self._attempt(self._see_it_out)
        self._attempt(partial(self._backend.finish, folder))

    def _attempt(self, step: Callable[[], None]) -> None:
        """Do it; what ends it early is in the history."""
        try:
            step()
        except (KeyboardInterrupt, SystemExit):
            self.history.ending = Ending.INTERRUPTED
        except FedPGError as error:
            self.history.ending = Ending.FAILED
            if str(error) not in self.history.failures:
                self.history.failures.append(str(error))

    def _go_on(self) -> None:
        started_s = self._clock()
        while self._backend.supervise() and not self._look():
            if self._clock() - started_s >= self._at_most_s:
                self.history.ending = Ending.OUT_OF_TIME
                return
            for change in self._timeline.step(self._round, self._now_s):
                self._carry_out(change)
            self._sleep(POLL_S)

    def _see_it_out(self) -> None:
        deadline_s = self._clock() + LEAVE_S
        while self.history.ending is Ending.ENDED and self._backend.supervise():
            if self._clock() >= deadline_s:
                raise ServerStaysError(f"the server has not ended {LEAVE_S:g} s after the run")
            self._sleep(POLL_S)  # the server waits a moment for its agents to hear of the end

    @property
    def _now_s(self) -> float:
        """Time since the first round was seen open."""
        return 0.0 if self._origin_s is None else self._clock() - self._origin_s

    def _look(self) -> bool:
        """Ask how the run is. True once it has ended."""
        status, history = self._backend.status(), self.history
        if status is not None and status.round and self._origin_s is None:
            self._origin_s = self._clock()
        now_s = self._now_s
        if status is not None:
            self._last = status
            self._round = max(self._round, status.round)
            history.opened_s.setdefault(status.round, now_s)
            if status.HasField("latest"):
                history.told.add((status.latest.round, status.latest.parameters_digest.hex()))
        if self._origin_s is not None:
            is_silent, is_below = status is None, status is not None and status.phase == pb.PHASE_BELOW_QUORUM
            note_wait(history.silent, is_silent, self._is_silent, now_s, self._round)
            note_wait(history.below_quorum, is_below, self._is_below_quorum, now_s, self._round)
            self._is_silent, self._is_below_quorum = is_silent, is_below
        if self._last is not None:
            self._display.show(self._last, self._note())
        return status is not None and status.phase == pb.PHASE_ENDED

    def _note(self) -> str:
        """What is going on, for the display."""
        parts = [planned.label for planned in self._timeline.active]
        if self._is_silent:
            parts.append("no answer from the server")
        return f"[{'; '.join(parts)}]" if parts else ""

    def _carry_out(self, change: Change) -> None:
        planned, when = change.planned, f"{self._now_s:6.1f} s  round {self._round}"
        match change:
            case Begin():
                self._say(f"{when}  {planned.label}")
                self.history.faults.append(FaultSpan(planned, self._now_s, self._round))
                self._backend.apply(planned.fault)
            case Heal(_, reason):
                if planned.fault.kind not in INSTANT:
                    self._backend.heal(planned.fault)
                    self._say(f"{when}  healed: {planned.label}")
                (span,) = [span for span in self.history.faults if span.planned.number == planned.number]
                span.heal_s, span.heal_round, span.reason = self._now_s, self._round, reason
