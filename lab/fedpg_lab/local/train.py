"""`fedpg train`: a federation on this machine, from start to summary."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fedpg.v1 import federation_pb2 as pb
from fedpg_common.choices import Choice
from fedpg_common.errors import FedPGError, RefusedError, StorageError, UnreachableError
from fedpg_common.federation import Federation
from fedpg_common.files import Kind, exists, look, require_name, require_place, shown
from fedpg_common.machine import cores
from fedpg_server.server import SHIPPED_OBSERVERS
from fedpg_server.storage.mark import mark_path
from fedpg_server.storage.store import STORE_NAME, Store
from rich.console import Console

from fedpg_lab.local.describe import status_after
from fedpg_lab.local.in_process.agents import require_fit
from fedpg_lab.local.in_process.child import NAME as IN_PROCESS
from fedpg_lab.local.in_process.child import InProcessFederation
from fedpg_lab.local.in_process.rounds import RunOptions
from fedpg_lab.local.processes import LOG_FOLDER, SERVER, LocalFederation
from fedpg_lab.local.progress import Display, make_display
from fedpg_lab.local.status import StatusClient
from fedpg_lab.runs.folders import PLOT_NAME, RunData, load_run, seed_folders, write_summary

STATUS_TIMEOUT_S = 2.0
STATUS_EVERY_S = 0.25
AGENTS_LEAVE_S = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainOptions:
    """How to run, beside what the federation says."""

    agents_per_process: int = 1
    observers: tuple[Choice, ...] = SHIPPED_OBSERVERS
    threads: int | None = None
    """Of the server; None for the cores of this machine."""
    in_process: bool = False
    """Whether server and agents work in one process, one after the other."""


def train(
    federation: Federation,
    folder: Path,
    options: TrainOptions,
    console: Console,
    resume: bool = False,
    trajectories: int | None = None,
    title: str = "",
) -> RunData:
    """Run a federation to its end with a live display, then write its summary and picture.

    A resumed run ends at `trajectories`, if they are given. `title` names the run on the display; the folder's name
    does where there is none. On Ctrl-C the processes end cleanly, summary and picture are written all the same, and
    KeyboardInterrupt is raised again. A start that fails before there is anything to resume leaves nothing behind.
    Raises FedPGError.
    """
    made = NewFolders(folder)
    processes = _make(federation, folder, options, resume, trajectories)
    try:
        with make_display(title or folder.name, console) as display:
            display.say("starting" if options.in_process else "starting the server")
            with processes:
                _watch(processes, display)
                run = _show_end(folder, display, processes.note)
                if not options.in_process:
                    display.say("the agents leave")
                processes.wait_for_agents(AGENTS_LEAVE_S)
    except BaseException as error:
        if made.remove_unless_resumable() or Store.is_live(folder / STORE_NAME):  # then it is another server's run
            raise
        failure = str(error) if isinstance(error, FedPGError) else None
        finish_what_there_is(folder, failure, processes.failed_agents)
        raise
    if run is None:
        run = load_run(folder)
    _write_up(run, folder)
    if processes.failed_agents:
        write_summary(run, failed_agents=processes.failed_agents)
    return run


class NewFolders:
    """The folders that a run is about to make. A failed start must not leave them: they would block the run's name."""

    def __init__(self, folder: Path) -> None:
        """To be called before anything is made. Raises StorageError for a path that cannot be used."""
        self._folder = folder
        self._missing = [place for place in (folder, *folder.parents) if look(place) is Kind.MISSING]

    def remove_unless_resumable(self) -> bool:
        """Remove what is new, unless the run has, or had, a store. Whether there is no run."""
        store = self._folder / STORE_NAME
        with suppress(StorageError):  # of a path that cannot even be looked at: there is no store
            if exists(store) or _has_content(mark_path(store)):  # one that has been removed leaves policies behind
                return False
        if Store.is_live(store):  # another command was quicker, and has not made its store yet
            return True
        if self._folder in self._missing:
            shutil.rmtree(self._folder, ignore_errors=True)
        with suppress(OSError):  # somebody else has put something there, which stays
            for place in self._missing[1:]:
                place.rmdir()
        return True


def _has_content(path: Path) -> bool:
    """Whether a file holds anything: on a full disk, a store that could not be made has left an empty mark."""
    return exists(path) and path.stat().st_size > 0


def _make(
    federation: Federation, folder: Path, options: TrainOptions, resume: bool, trajectories: int | None
) -> LocalFederation | InProcessFederation:
    """What runs the federation. Raises UsageError for one that needs a network and is to have none."""
    if options.in_process:
        require_fit(federation)
        described = None if resume else federation
        run = RunOptions(
            folder, described, trajectories, observers=options.observers, threads=options.threads or cores()
        )
        return InProcessFederation(federation, run)
    return LocalFederation(
        federation,
        folder,
        resume=resume,
        agents_per_process=options.agents_per_process,
        observers=options.observers,
        threads=options.threads,
        trajectories=trajectories,
    )


@contextmanager
def asking(processes: LocalFederation | InProcessFederation) -> Iterator[Callable[[], pb.GetStatusReply]]:
    """What fetches the state of a run that has been started; it raises UnreachableError and RefusedError."""
    if isinstance(processes, InProcessFederation):
        yield processes.fetch
        return
    with StatusClient(processes.address, None, STATUS_TIMEOUT_S) as client:
        yield client.fetch


def _watch(processes: LocalFederation | InProcessFederation, display: Display) -> None:
    """Show the run's state until it has ended."""
    if isinstance(processes, LocalFederation):
        display.say("starting the agents")
    try:
        with asking(processes) as fetch:
            drawing: threading.Thread | None = None
            said = ""
            while processes.supervise():
                try:
                    status = fetch()
                    display.show(status, processes.note)
                    if drawing is None and status.HasField("latest"):  # the start is over
                        drawing = threading.Thread(target=_prepare_to_draw, name="drawing", daemon=True)
                        drawing.start()
                except (UnreachableError, RefusedError) as error:
                    log.debug("%s", error)  # the server starts, ends or comes back
                    if processes.note not in ("", said):
                        said = processes.note  # there is no state yet that it could stand beside
                        display.say(said)
                processes.wait_for_end(STATUS_EVERY_S)
    except (KeyboardInterrupt, SystemExit):
        display.say("ending server and agents; Ctrl-C again ends them at once")
        raise


def _prepare_to_draw() -> None:
    """Import what the picture in the end needs, while this process has nothing to do but look on."""
    import fedpg_lab.figures.one_run  # noqa: F401


def _show_end(folder: Path, display: Display, note: str) -> RunData | None:
    """Show what the run came to: since the last look the server may have done many rounds, and it answers no more.

    Returns the run; None if it cannot be read.
    """
    try:
        run = load_run(folder)
    except StorageError as error:
        log.debug("no last state: %s", error)  # what is made of the run next says so aloud
        return None
    if run.records:
        steps = sum(sum(record.environment_steps.values()) for record in run.records)
        target = run.federation.task.trajectories
        status = status_after(run.records[-1], target, steps, pb.PHASE_ENDED, "the run has ended")
        display.show(status, note)
    return run


def finish_what_there_is(folder: Path, failure: str | None, failed_agents: Mapping[int, str]) -> None:
    """After Ctrl-C or a failure, which are still to be told: what was learned so far is worth a look."""
    try:
        run = finish(folder, failure)
        if run is not None and failed_agents:
            write_summary(run, failure=failure, failed_agents=failed_agents)
    except FedPGError as error:
        log.warning("%s", error)


def finish(folder: Path, failure: str | None = None) -> RunData | None:
    """Summary and picture of what there is; None if there is nothing. `failure` is why the run did not end well."""
    if not exists(folder / STORE_NAME):
        return None
    run = load_run(folder)
    _write_up(run, folder, failure)
    return run


def _write_up(run: RunData, folder: Path, failure: str | None = None) -> None:
    """Write summary and picture."""
    write_summary(run, failure=failure)
    if run.records:
        from fedpg_lab.figures.one_run import plot_run  # Matplotlib takes its time

        plot_run(run, folder / PLOT_NAME)


def new_folder(out: Path, name: str | None, default_name: str) -> Path:
    """The folder for a new run: `out/name`, or a name of our own that is not taken yet.

    Raises UsageError for a name that is a path, StorageError if it is taken or `out` cannot be used.
    """
    require_place(out, "choose another --out")
    if name is None:
        candidates = (out / (default_name if n == 1 else f"{default_name}-{n}") for n in range(1, 1_000_000))
        return next(folder for folder in candidates if not exists(folder))
    require_name(name, "--name")
    folder = out / name
    kind = look(folder)
    if kind is Kind.MISSING:
        return folder
    if kind is Kind.FOLDER:
        _refuse_if_in_use(folder)
    if kind is Kind.FOLDER and (exists(folder / STORE_NAME) or seed_folders(folder)):
        raise StorageError(
            f"{shown(folder)} exists already: choose another --name, or resume the run with --resume {shown(folder)}"
        )
    what = "is a file" if kind is Kind.FILE else "holds no run to resume"
    raise StorageError(f"{shown(folder)} exists already: choose another --name (it {what})")


def _refuse_if_in_use(folder: Path) -> None:
    """Raise StorageError if another command trains in the folder, or seems to be starting."""
    places = [folder, *folder.glob("seed-*"), *folder.glob("group-*")]
    if any(Store.is_live(place / STORE_NAME) for place in places):
        raise StorageError(f"another command is using {shown(folder)}: choose another --name, or wait until it is done")
    for place in filter(_is_starting, places):
        raise StorageError(
            f"another command is starting a run in {shown(place)}, or was killed while it did: choose another --name, "
            "or remove that folder if nothing runs there"
        )


def _is_starting(folder: Path) -> bool:
    """Whether a process of ours has begun its log there, and there is no store yet, nor was one."""
    store = folder / STORE_NAME
    logs = (folder / LOG_FOLDER / f"{name}.log" for name in (SERVER, IN_PROCESS))
    return not exists(store) and not _has_content(mark_path(store)) and any(map(exists, logs))
