"""`fedpg train`: a federation on this machine, from start to summary."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from fedpg.v1 import federation_pb2 as pb
from fedpg.v1 import federation_pb2_grpc
from fedpg_common.channels import client_options
from fedpg_common.errors import FedPGError, StorageError
from fedpg_common.federation import Federation
from fedpg_server.store import STORE_NAME
from rich.console import Console

from fedpg_lab.local import LocalFederation
from fedpg_lab.plots import plot_run, plot_runs
from fedpg_lab.progress import make_display
from fedpg_lab.runs import PLOT_NAME, RunData, load_run, write_summary

STATUS_BYTES_MAX = 64 * 1024 * 1024
STATUS_TIMEOUT_S = 2.0
STATUS_EVERY_S = 0.25
AGENTS_LEAVE_S = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainOptions:
    """How to run, beside what the federation says."""

    agents_per_process: int = 1
    tensorboard: bool = True


def train(
    federation: Federation, folder: Path, options: TrainOptions, console: Console, resume: bool = False
) -> RunData:
    """Run a federation to its end with a live display, then write its summary and picture.

    On Ctrl-C the processes end cleanly, summary and picture are written all the same, and KeyboardInterrupt goes on.
    Raises FedPGError.
    """
    processes = LocalFederation(
        federation,
        folder,
        resume=resume,
        agents_per_process=options.agents_per_process,
        tensorboard=options.tensorboard,
    )
    try:
        with processes:
            _watch(processes, f"{folder.name}", console)
            processes.wait_for_agents(AGENTS_LEAVE_S)
    except BaseException:
        finish_what_there_is(folder, processes.failed_agents)
        raise
    run = finish(folder)
    assert run is not None  # the server ended well, so its store can be read
    if processes.failed_agents:
        write_summary(run, processes.failed_agents)
    return run


def _watch(processes: LocalFederation, title: str, console: Console) -> None:
    """Show the run's state until the server has ended."""
    with (
        grpc.insecure_channel(processes.address, options=client_options(STATUS_BYTES_MAX)) as channel,
        make_display(title, console) as display,
    ):
        stub = federation_pb2_grpc.FederationStub(channel)
        while processes.supervise():
            try:
                display.show(stub.GetStatus(pb.GetStatusRequest(), timeout=STATUS_TIMEOUT_S), processes.note)
            except grpc.RpcError as error:
                log.debug("no status: %s", error)  # the server starts, ends or comes back
            time.sleep(STATUS_EVERY_S)


def finish_what_there_is(folder: Path, failed_agents: Mapping[int, str]) -> None:
    """After Ctrl-C or a failure, which are still to be told: what was learned so far is worth a look."""
    try:
        run = finish(folder)
        if run is not None and failed_agents:
            write_summary(run, failed_agents)
    except FedPGError as error:
        log.warning("%s", error)


def finish(folder: Path) -> RunData | None:
    """Summary and picture of what there is; None if there is nothing."""
    if not (folder / STORE_NAME).is_file():
        return None
    run = load_run(folder)
    write_summary(run)
    if run.records:
        plot_run(run, folder / PLOT_NAME)
    return run


def plot_seeds(runs: Sequence[RunData], folder: Path) -> None:
    """The picture of several seeds of one federation."""
    if len(runs) > 1:
        plot_runs(runs, folder / PLOT_NAME)


def new_folder(out: Path, name: str | None, default_name: str) -> Path:
    """The folder for a new run: `out/name`, or a name of our own that is not taken yet.

    Raises StorageError if the name given is taken.
    """
    if name is not None:
        folder = out / name
        if folder.exists():
            raise StorageError(f"{folder} exists already: choose another --name, or go on with --resume {folder}")
        return folder
    candidates = (out / (default_name if n == 1 else f"{default_name}-{n}") for n in range(1, 1_000_000))
    return next(folder for folder in candidates if not folder.exists())
