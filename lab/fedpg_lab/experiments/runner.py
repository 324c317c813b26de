"""Running an experiment's runs: several federations side by side, on as many cores as there are."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from fedpg_common.errors import FedPGError, RefusedError, UnreachableError
from rich.console import Console

from fedpg_lab.experiments.plan import PlannedRun, existing_run
from fedpg_lab.local.describe import PaceMeter, describe_count, describe_state
from fedpg_lab.local.processes import LocalFederation
from fedpg_lab.local.status import StatusClient
from fedpg_lab.local.train import AGENTS_LEAVE_S, STATUS_TIMEOUT_S, finish_what_there_is
from fedpg_lab.machine import cores

POLL_S = 0.25
LOOK_EVERY_S = 2.0
REPORT_EVERY_S = 30.0
NAMED_MAX = 10
"""Failed runs that the last sentence names."""

log = logging.getLogger(__name__)


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


def run_missing(runs: Sequence[PlannedRun], folder: Path, jobs: int, console: Console) -> None:
    """Start what has not been started, go on with what has, leave alone what is complete; `jobs` at a time.

    A run that fails is reported at the end, and does not keep the others from running. Raises StorageError before
    anything starts if a folder holds another run, RunsFailedError, and KeyboardInterrupt once all processes have ended.
    """
    waiting = []
    for planned in runs:
        existing = existing_run(folder, planned)
        if existing is None or not existing.is_complete:
            waiting.append((planned, existing is not None))
    at_a_time = min(jobs, len(waiting))
    to_go = f"; {len(waiting)} to go, {at_a_time} at a time" if waiting else ""
    console.print(f"{len(runs) - len(waiting)} of {len(runs)} runs are complete{to_go}")
    _Batch(waiting, folder, at_a_time, len(runs), console).run()


@dataclass
class _Job:
    """A run that goes on."""

    name: str
    folder: Path
    processes: LocalFederation
    client: StatusClient
    resources: ExitStack
    pace: PaceMeter = field(default_factory=PaceMeter)
    state: str = "starting"

    def look(self) -> None:
        """See how it is."""
        try:
            status = self.client.fetch()
        except (UnreachableError, RefusedError) as error:
            log.debug("%s: %s", self.name, error)  # its server starts, ends or comes back
            return
        state = describe_state(status, self.pace.measure(status, time.monotonic()))
        self.state = f"{describe_count(status)}  {state}"


class _Batch:
    """The runs that are waiting, going on, done and failed."""

    def __init__(
        self, waiting: Sequence[tuple[PlannedRun, bool]], folder: Path, jobs: int, planned: int, console: Console
    ) -> None:
        self._waiting = list(waiting)
        self._folder = folder
        self._jobs = jobs
        self._planned = planned
        self._console = console
        self._active: list[_Job] = []
        self._failures: list[Failure] = []
        self._done = planned - len(waiting)
        self._looked_s = self._reported_s = time.monotonic()

    def run(self) -> None:
        """Run them all."""
        try:
            while self._waiting or self._active:
                while self._waiting and len(self._active) < self._jobs:
                    self._start(*self._waiting.pop(0))
                for job in list(self._active):
                    self._supervise(job)
                self._report()
                time.sleep(POLL_S)
        finally:
            for job in self._active:
                job.resources.close()
        if self._failures:
            raise RunsFailedError(self._failures, self._planned)

    def _start(self, planned: PlannedRun, resume: bool) -> None:
        with ExitStack() as resources:
            place = self._folder / planned.name
            processes = LocalFederation(
                planned.federation, place, resume, self._agents_per_process(planned), needs_everybody=True
            )
            try:
                resources.enter_context(processes)
            except FedPGError as error:
                self._fail(planned.name, error)
                return
            client = resources.enter_context(StatusClient(processes.address, None, STATUS_TIMEOUT_S))
            self._active.append(_Job(planned.name, place, processes, client, resources.pop_all()))
        self._say(f"{'resumed' if resume else 'started'} {planned.name}")

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
            self._done += 1
            self._say(f"done {job.name}")
        except FedPGError as error:
            failure = str(error)
            self._fail(job.name, error)
        self._active.remove(job)
        job.resources.close()
        finish_what_there_is(job.folder, failure, job.processes.failed_agents)

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
