"""The containers of one Compose project, by service name, through the Docker SDK: what they are, and what is done to
them.
"""

from __future__ import annotations

import shlex
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import requests
from docker.errors import APIError
from fedpg_server.storage.store import STORE_NAME

from fedpg_lab.faults.docker.engine import EngineError, engine_errors, last_line
from fedpg_lab.faults.docker.network_rules import Command
from fedpg_lab.faults.docker.overlay import WATCHER, network_service
from fedpg_lab.local.processes import SERVER

CPU_PERIOD_US = 100_000
CPU_PERIOD_MAX_US = 1_000_000
CPU_QUOTA_MIN_US = 1_000
"""The kernel's own limits of a period, and of what a container gets of it."""
UNLIMITED = -1
RUNS = "/runs"
PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
ENDED = ("exited", "dead")
KILL_S = 30.0


@dataclass(frozen=True)
class State:
    """Of a container."""

    status: str
    """The engine's word: created, running, paused, exited, ..."""
    exit_code: int | None = None
    """None unless it has ended."""


class Containers:
    """Those of one project. Methods raise EngineError; names are "server", "agent-N", and "net-..." for networks."""

    def __init__(self, client: Any, project: str) -> None:
        """They need not be there yet: `find` them when they are."""
        self._api = client.api
        self._project = project
        self._ids: dict[str, str] = {}

    def find(self) -> None:
        """Note which container is whose. Starting one again does not change that."""
        self._ids = {entry["Labels"][SERVICE_LABEL]: entry["Id"] for entry in self._entries()}

    # What is, and what was ------------------------------------------------------------------------------------------

    def states(self) -> dict[str, State]:
        """Every container's state, by service. One that somebody has removed is an error."""
        states = {}
        for entry in self._entries():
            code = None
            if entry["State"] in ENDED:
                with engine_errors("looking at a container"):
                    code = int(self._api.inspect_container(entry["Id"])["State"]["ExitCode"])
            states[entry["Labels"][SERVICE_LABEL]] = State(entry["State"], code)
        if removed := sorted(self._ids.keys() - states.keys()):
            raise EngineError(f"the container of {removed[0]} has been removed")
        return states

    def address(self, name: str) -> str:
        """A participant's address in the federation's network, which it keeps."""
        with engine_errors(f"looking at the network of {name}"):
            settings = self._api.inspect_container(self._ids[network_service(name)])["NetworkSettings"]
        return next(str(network["IPAddress"]) for network in settings["Networks"].values())

    def log(self, name: str, lines: int | str = "all") -> bytes:
        """What a service has printed, or the last lines of it."""
        with engine_errors(f"reading the log of {name}"):
            text: bytes = self._api.logs(self._ids[name], tail=lines)
        return text

    def last_words(self, name: str) -> str:
        """The last line that a service has printed."""
        return last_line(self.log(name, lines=20).decode("utf-8", errors="replace")) or "it has said nothing"

    def watcher_line(self) -> str:
        """The last line of the service that asks for the status."""
        return self.log(WATCHER, lines=1).decode("ascii", errors="replace")

    def copy_run(self, folder: Path) -> None:
        """Copy the run folder out of its volume into `folder`, if the server has made one."""
        with engine_errors("copying the run"), tempfile.TemporaryDirectory() as place, tempfile.TemporaryFile() as tar:
            for chunk in self._api.get_archive(self._ids[SERVER], RUNS)[0]:
                tar.write(chunk)
            tar.seek(0)
            with tarfile.open(fileobj=tar) as archive:
                archive.extractall(place, filter="data")
            for store in Path(place).glob(f"*/*/{STORE_NAME}"):
                shutil.copytree(store.parent, folder, dirs_exist_ok=True)

    def _entries(self) -> list[dict[str, Any]]:
        with engine_errors("listing the containers"):
            entries: list[dict[str, Any]] = self._api.containers(
                all=True, filters={"label": f"{PROJECT_LABEL}={self._project}"}
            )
        return entries

    # What is done to one --------------------------------------------------------------------------------------------

    def send_signal(self, name: str, signal_name: str) -> None:
        """Send a signal, such as SIGTERM, unless it has ended. One that stands still goes on, to hear it."""
        with engine_errors(f"sending {signal_name} to {name}"):
            self._act(name, lambda: self._api.kill(self._ids[name], signal_name), lambda state: not state["Running"])
        self.go_on(name)

    def start(self, name: str) -> None:
        """Start one that has not run yet, or has ended."""
        with engine_errors(f"starting {name}"):
            self._api.start(self._ids[name])

    def await_end(self, names: Iterable[str], patience_s: float) -> list[str]:
        """Wait until these have ended, that long for each; gives those who have not."""
        late = []
        for name in names:
            with engine_errors(f"waiting for {name}"):
                try:
                    self._api.wait(self._ids[name], timeout=patience_s, condition="not-running")
                except requests.RequestException:  # the time is over
                    late.append(name)
        return late

    def end(self, names: Iterable[str], patience_s: float) -> None:
        """Wait until these, which were told to, have ended, and kill those who have not in time."""
        for name in self.await_end(names, patience_s):
            self.send_signal(name, "SIGKILL")
            if self.await_end([name], KILL_S):
                raise EngineError(f"{name} cannot be killed")

    def stand_still(self, name: str) -> None:
        """Stop all its processes where they are, unless it has ended."""
        with engine_errors(f"pausing {name}"):
            pause = partial(self._api.pause, self._ids[name])
            self._act(name, pause, lambda state: state["Paused"] or not state["Running"])

    def go_on(self, name: str) -> None:
        """The opposite."""
        with engine_errors(f"unpausing {name}"):
            unpause = partial(self._api.unpause, self._ids[name])
            self._act(name, unpause, lambda state: not state["Paused"] or not state["Running"])

    def limit_cpu(self, name: str, fraction: float | None) -> None:
        """Give it no more than that fraction of a core, also when it is started again; None lifts the limit."""
        period, quota = cpu_quota(fraction)
        with engine_errors(f"limiting the processor time of {name}"):
            self._api.update_container(self._ids[name], cpu_period=period, cpu_quota=quota)

    def run_in_network(self, name: str, steps: Sequence[Command]) -> str:
        """Run commands in a participant's network namespace, up to the first that fails; gives what they print."""
        script = "\n".join(["set -e", *map(shlex.join, steps)])
        with engine_errors(f"changing the network of {name}"):
            made = self._api.exec_create(self._ids[network_service(name)], ["sh", "-c", script])
            output = str(self._api.exec_start(made["Id"]), "utf-8", "replace")
            code = self._api.exec_inspect(made["Id"])["ExitCode"]
        if code != 0:
            raise EngineError(f"changing the network of {name} failed: {last_line(output)}")
        return output

    def _act(self, name: str, act: Callable[[], object], is_moot: Callable[[Mapping[str, Any]], bool]) -> None:
        """Do it. It may fail where the container's state says that there was nothing to do."""
        try:
            act()
        except APIError:
            if not is_moot(self._api.inspect_container(self._ids[name])["State"]):
                raise


def cpu_quota(fraction: float | None) -> tuple[int, int]:
    """The period and what a container gets of it, in microseconds. A small fraction needs a longer period."""
    if fraction is None:
        return CPU_PERIOD_US, UNLIMITED
    period = CPU_PERIOD_US if fraction * CPU_PERIOD_US >= CPU_QUOTA_MIN_US else CPU_PERIOD_MAX_US
    return period, max(CPU_QUOTA_MIN_US, round(fraction * period))
