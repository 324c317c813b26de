"""One federation as a Compose project of its own, from nothing to containers that run, and back."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from docker.errors import APIError
from fedpg_common.descriptions import federation_to_toml
from fedpg_common.errors import UsageError
from fedpg_common.federation import Federation

from fedpg_lab.deploy.compose import compose_file
from fedpg_lab.deploy.compose_settings import PLAIN_PATH
from fedpg_lab.faults.docker.containers import PROJECT_LABEL, Containers
from fedpg_lab.faults.docker.engine import EngineError, engine_errors, one_line, run_docker
from fedpg_lab.faults.docker.images import BUILD_TIMEOUT_S, HELPER
from fedpg_lab.faults.docker.overlay import overlay
from fedpg_lab.faults.docker.start import bring_up

CREATE_TIMEOUT_S = 600.0
REMOVAL_TRIES = 20
REMOVAL_PAUSE_S = 0.5
_PASSED_ON = ("PATH", "HOME", "XDG_RUNTIME_DIR", "SSH_AUTH_SOCK", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
              "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY")  # fmt: skip
"""What `docker` may need of the environment. The rest could change settings in the Compose file, such as SEED."""


class DockerProject:
    """See the module."""

    def __init__(self, client: Any, federation: Federation, root: Path | None) -> None:
        """The images are built from the repository at `root`; without one, those that exist are taken.

        Raises UsageError for a federation that a Compose file cannot hold.
        """
        if not PLAIN_PATH.fullmatch(federation.task.name):
            raise UsageError(f"a Compose file cannot hold the task name {federation.task.name!r}: use letters and -")
        self.name = f"fedpg-faults-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.containers = Containers(client, self.name)
        self._text = compose_file(federation)
        self._client = client
        self._federation = federation
        self._root = root
        self._resources = ExitStack()

    def start(self) -> None:
        """Build the images and start everything. Raises EngineError, ProcessFailedError."""
        # The server reads its description there whenever it is started, so the folder lasts as long as the containers.
        folder = Path(self._resources.enter_context(tempfile.TemporaryDirectory(prefix="fedpg-faults-")))
        compose = self._write_files(folder)
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        if self._root is not None:
            run_docker([*compose, "build"], settings=environment, timeout_s=BUILD_TIMEOUT_S)
        run_docker([*compose, "create", "--no-build"], settings=environment, timeout_s=CREATE_TIMEOUT_S)
        self.containers.find()
        bring_up(self.containers, [f"agent-{index}" for index in range(1, self._federation.agents + 1)])

    def remove(self) -> None:
        """Remove every container, network and volume of the project. May be called more than once."""
        self._resources.close()
        for _ in range(REMOVAL_TRIES):
            with engine_errors(f"removing the containers of {self.name}"):
                removals = self._removals()
                if not removals:
                    return
                failed = [error for remove in removals if (error := _failure_of(remove))]
            if failed:
                time.sleep(REMOVAL_PAUSE_S)  # what the engine is busy with, or what something else still uses
        left = f": {one_line(failed[0])}" if failed else ""
        raise EngineError(f"the containers, networks or volumes of {self.name} could not all be removed{left}")

    def _write_files(self, folder: Path) -> list[str]:
        """Write what Compose reads, and return the start of its command."""
        texts: Mapping[str, str] = {
            "federation.toml": federation_to_toml(self._federation),
            "compose.yml": self._text,
            "faults.yml": overlay(range(1, self._federation.agents + 1), folder / "federation.toml", HELPER),
        }
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
            (folder / name).chmod(0o644)  # the container's user is another one
        place = str(self._root or folder)
        return ["compose", "--project-name", self.name, "--project-directory", place, "--env-file", os.devnull,
                "--file", str(folder / "compose.yml"), "--file", str(folder / "faults.yml")]  # fmt: skip

    def _removals(self) -> list[Callable[[], object]]:
        """How to remove each thing that is there, in an order in which it works."""
        api, ours = self._client.api, {"label": f"{PROJECT_LABEL}={self.name}"}
        removals: list[Callable[[], object]] = []
        for container in api.containers(all=True, filters=ours):
            removals.append(partial(api.remove_container, container["Id"], force=True, v=True))
        for network in api.networks(filters=ours):
            removals.append(partial(api.remove_network, network["Id"]))
        for volume in api.volumes(filters=ours)["Volumes"] or []:
            removals.append(partial(api.remove_volume, volume["Name"], force=True))
        return removals


def _failure_of(remove: Callable[[], object]) -> APIError | None:
    """Try it; what is gone already fails as well, and is not listed again."""
    try:
        remove()
    except APIError as error:
        return error
    return None
