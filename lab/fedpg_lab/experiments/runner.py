"""Running an experiment's runs: several federations side by side, on as many cores as there are."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from fedpg.v1 import federation_pb2 as pb
from fedpg_common.errors import FedPGError, RefusedError, StorageError, UnreachableError, UsageError
from fedpg_common.machine import cores
from rich.console import Console

from fedpg_lab.experiments.changed_modules import begin_again, changed_module
from fedpg_lab.experiments.pace import Pace, about
from fedpg_lab.experiments.plan import PlannedRun, existing_run
from fedpg_lab.local.describe import PaceMeter, describe_count, describe_state
from fedpg_lab.local.in_process.agents import fits
from fedpg_lab.local.in_process.child import InProcessFederation
from fedpg_lab.local.in_process.rounds import RunOptions
from fedpg_lab.local.processes import LocalFederation
from fedpg_lab.local.train import AGENTS_LEAVE_S, asking, finish_what_there_is
from fedpg_lab.runs.folders import RunData, load_run

POLL_S = 0.25
LOOK_EVERY_S = 2.0
REPORT_EVERY_S = 30.0
NAMED_MAX = 10
"""Failed runs that the last sentence names."""

log = logging.getLogger(__name__)

OnRun = Callable[[PlannedRun, RunData], None]
"""Told of each run that ends well."""


def tell_nobody(planned: PlannedRun, run: RunData) -> None:
    """Nobody wants to know."""


class RunsFailedError(FedPGError):
    """Some runs of an experiment failed; the others went on."""

    def __init__(self, failures: Sequence[Failure], planned: int) -> None:
        """Take over the first failure's exit code."""
        first = failures[0]
        names = ", ".join(failure.name for failure in failures[1:NAMED_MAX])
        more = f" and {len(failures) - NAMED_MAX} more" if len(failures) > NAMED_MAX else ""
        super().__init__(
            f"{len(failures)} of {planned} runs failed, first {first.name}: {first.error}"
            + (f"; also {names}{more}" if names else "")
            + "; the same command tries them again"
        )
        self.exit_code = first.error.exit_code


@dataclass(frozen=True)
class Failure:
    """A run that did not reach its end."""

    name: str
    error: FedPGError


def run_missing(
    runs: Sequence[PlannedRun],
    folder: Path,
    jobs: int,
    console: Console,
    on_run: OnRun = tell_nobody,
    *,
    in_process: bool = False,
) -> None:
    """Start what has not been started, resume what has, leave alone what is complete; `jobs` at a time.

    With `in_process`, each run is one process, but for federations with an attack on the protocol.

    A run that fails is reported at the end, and does not keep the others from running. Raises StorageError before
    anything starts if a folder holds another run, RunsFailedError, and KeyboardInterrupt once all processes have ended.
    """
    waiting = []
    for planned in runs:
        existing = existing_run(folder, planned)
        if existing is not None and (module := changed_module(existing)):
            begin_again(existing, module)
            existing = None
        if existing is None or not existing.is_complete:
            waiting.append((planned, existing is not None))
    _require_predecessors(runs, waiting, folder)
    at_a_time = min(jobs, len(waiting))
    to_go = f"; {len(waiting)} to go, {at_a_time} at a time" if waiting else ""
    console.print(f"{len(runs) - len(waiting)} of {len(runs)} runs are complete{to_go}")
    _Batch(waiting, folder, at_a_time, len(runs), console, on_run, in_process).run()


def _require_predecessors(runs: Sequence[PlannedRun], waiting: Sequence[tuple[PlannedRun, bool]], folder: Path) -> None:
    """Raise UsageError for a run that starts with the Adam state of one that is neither complete nor to be run."""
    chosen = {planned.name for planned in runs}
    for planned, is_begun in waiting:
        if planned.after is None or planned.after in chosen or is_begun:
            continue
        before = planned.federation.predecessor
        assert before is not None  # that is what `after` is
        found = existing_run(folder, PlannedRun(planned.after, before))
        if found is None or not found.is_complete:
            raise UsageError(
                f"{planned.name} starts with the Adam state of {planned.after}, which is not complete: "
                "choose that run too"
            )


@dataclass
class _Job:
    """A run that goes on."""

    planned: PlannedRun
    folder: Path
    processes: LocalFederation | InProcessFederation
    fetch: Callable[[], pb.GetStatusReply]
    """Asks for its state."""
    resources: ExitStack
    started_s: float
    is_resumed: bool
    pace: PaceMeter = field(default_factory=PaceMeter)
    state: str = "starting"

    @property
    def name(self) -> str:
        """Where it belongs below the experiment's folder."""
        return self.planned.name

    def look(self) -> None:
        """See how it is."""
        try:
            status = self.fetch()
        except (UnreachableError, RefusedError) as error:
            log.debug("%s: %s", self.name, error)  # its server starts, ends or comes back
            self.state = self.processes.note or self.state
            return
        state = describe_state(status, self.pace.measure(status, time.monotonic()))
        self.state = "  ".join(filter(None, (describe_count(status), state, self.processes.note)))


class _Batch:
    """The runs that are waiting, going on, done and failed."""

    def __init__(
        self,
        waiting: Sequence[tuple[PlannedRun, bool]],
        folder: Path,
        jobs: int,
        planned: int,
        console: Console,
        on_run: OnRun,
        in_process: bool,
    ) -> None:
        self._in_process = in_process
        self._waiting = list(waiting)
        self._folder = folder
        self._jobs = jobs
        self._planned = planned
        self._console = console
        self._on_run = on_run
        self._pace = Pace()
        self._active: list[_Job] = []
        self._failures: list[Failure] = []
        self._done = planned - len(waiting)
        self._looked_s = self._reported_s = time.monotonic()

    def run(self) -> None:
        """Run them all."""
        try:
            while self._waiting or self._active:
                while len(self._active) < self._jobs and (ready := self._next_ready()) is not None:
                    self._start(*ready)
                for job in list(self._active):
                    self._supervise(job)
                self._report()
                time.sleep(POLL_S)
        finally:
            for job in self._active:
                job.resources.close()
        if self._failures:
            raise RunsFailedError(self._failures, self._planned)

    def _next_ready(self) -> tuple[PlannedRun, bool] | None:
        """Take the first run that waits for no other out of those that are waiting; None if there is none yet."""
        unfinished = {planned.name for planned, _ in self._waiting} | {job.name for job in self._active}
        failed = {failure.name for failure in self._failures}
        for entry in list(self._waiting):
            planned, _ = entry
            if planned.after in failed:
                self._waiting.remove(entry)
                failed.add(planned.name)
                self._fail(planned.name, StorageError(f"{planned.after}, whose Adam state it starts with, failed"))
            elif planned.after not in unfinished:
                self._waiting.remove(entry)
                return entry
        return None

    def _start(self, planned: PlannedRun, resume: bool) -> None:
        place = self._folder / planned.name
        with ExitStack() as resources:
            processes = self._make(planned, place, resume)
            try:
                resources.enter_context(processes)
            except FedPGError as error:
                self._fail(planned.name, error)
                return
            fetch = resources.enter_context(asking(processes))
            self._active.append(_Job(planned, place, processes, fetch, resources.pop_all(), time.monotonic(), resume))
        self._say(f"{'resumed' if resume else 'started'} {planned.name}")

    def _make(self, planned: PlannedRun, place: Path, resume: bool) -> LocalFederation | InProcessFederation:
        federation, threads = planned.federation, max(1, cores() // self._jobs)
        adam_from = None if planned.after is None else self._folder / planned.after
        if self._in_process and fits(federation):
            options = RunOptions(place, None if resume else federation, adam_from=adam_from, threads=threads)
            return InProcessFederation(federation, options)
        return LocalFederation(
            federation,
            place,
            resume,
            self._agents_per_process(planned),
            threads=threads,
            needs_everybody=True,
            adam_from=adam_from,
        )

    def _agents_per_process(self, planned: PlannedRun) -> int:
        """As many agents to a process as give each core one process: more would only take turns."""
        return math.ceil(planned.federation.agents * self._jobs / max(cores(), self._jobs))

    def _supervise(self, job: _Job) -> None:
        """Look after a run, and clear away one that has ended."""
        failure = None
        try:
            if job.processes.supervise():
                return
            job.processes.wait_for_agents(AGENTS_LEAVE_S)
        except FedPGError as error:
            failure = str(error)
            self._fail(job.name, error)
        self._active.remove(job)
        job.resources.close()
        finish_what_there_is(job.folder, failure, job.processes.failed_agents)
        if failure is None:
            self._close(job)

    def _close(self, job: _Job) -> None:
        """A run has ended well: say so, and how long the others will take."""
        seconds = time.monotonic() - job.started_s
        self._done += 1
        if not job.is_resumed:  # of those only the rest is known
            self._pace.note(job.planned.federation, seconds)
        going_on = [active.planned.federation for active in self._active]
        left_s = self._pace.left_s([*(planned.federation for planned, _ in self._waiting), *going_on], self._jobs)
        to_go = f"; about {about(left_s)} to go" if left_s else ""
        self._say(f"done {job.name} in {about(seconds)}{to_go}")
        try:
            self._on_run(job.planned, load_run(job.folder))
        except FedPGError as error:
            log.warning("%s", error)  # the report at the end looks again

    def _fail(self, name: str, error: FedPGError) -> None:
        self._failures.append(Failure(name, error))
        self._say(f"failed {name}: {error}")

    def _report(self) -> None:
        now_s = time.monotonic()
        if now_s - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = now_s
            for job in self._active:
                job.look()
        if now_s - self._reported_s >= REPORT_EVERY_S:
            self._reported_s = now_s
            for job in self._active:
                self._console.print(f"    {job.name}  {job.state}", soft_wrap=True)

    def _say(self, text: str) -> None:
        self._console.print(f"{self._done}/{self._planned}  {text}", soft_wrap=True)
