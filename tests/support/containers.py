"""What the tests with a real Docker engine share: a Compose project of their own, and runs read out of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"
AGENTS = [f"agent-{index}" for index in range(1, 11)]
PATIENCE_S = 180.0
"""No step takes that long; it ends a test that would otherwise hang."""
_PASSED_ON = ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY")
_ROUND = re.compile(r" server  round (\d+)  ")


def why_no_engine() -> str | None:
    """One sentence if there is no Docker engine with Compose, else None."""
    for command in (["docker", "version"], ["docker", "compose", "version"]):
        try:
            tried = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        except OSError as error:
            return f"these tests need a Docker engine, and the command `docker` cannot be run: {error.strerror}"
        if tried.returncode != 0:
            reason = (tried.stderr.strip() or tried.stdout.strip()).splitlines()[-1]
            return f"these tests need a Docker engine with Compose, and `{' '.join(command)}` failed: {reason}"
    return None


@dataclass(frozen=True)
class Project:
    """The committed Compose file as a project of its own: own containers, own network, own volumes."""

    name: str
    settings: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    """A folder that `fedpg compose` has written, which then says all, as for a user in it."""

    def compose(
        self, *arguments: str, check: bool = True, timeout_s: float = PATIENCE_S
    ) -> subprocess.CompletedProcess[str]:
        """Run `docker compose`. The caller's environment does not reach the settings."""
        place = [] if self.folder else ["--project-name", self.name, "--file", str(COMPOSE_FILE)]
        command = ["docker", "compose", *place]
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        ended = subprocess.run(
            [*command, *arguments], env={**environment, **self.settings}, capture_output=True, text=True,
            stdin=subprocess.DEVNULL, timeout=timeout_s, check=False, cwd=self.folder,
        )  # fmt: skip
        if check and ended.returncode != 0:
            raise AssertionError(
                f"docker compose {' '.join(arguments)}: code {ended.returncode}\n{ended.stderr[-4000:]}"
            )
        return ended

    def run_in(self, service: str, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command in a running container."""
        return self.compose("exec", "-T", service, *command, check=check)

    def container(self, service: str) -> str:
        """A service's container id, running or not."""
        return self.compose("ps", "--all", "--quiet", service).stdout.strip()

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine says of a service's container."""
        (found,) = json.loads(docker("inspect", self.container(service)))
        assert isinstance(found, dict)
        return found

    def exit_codes(self) -> dict[str, int]:
        """Of the server and the agents; all must have ended."""
        states = {service: self.inspect(service)["State"] for service in ("server", *AGENTS)}
        assert {state["Status"] for state in states.values()} == {"exited"}
        return {service: int(state["ExitCode"]) for service, state in states.items()}

    def server_log(self) -> str:
        """All that the server has logged, restarts included."""
        return self.compose("logs", "--no-color", "--no-log-prefix", "server").stdout

    def closed_round(self) -> int:
        """The last closed round."""
        return max(map(int, _ROUND.findall(self.server_log())), default=0)

    def wait_for_rounds(self, count: int) -> int:
        """Wait until that many more rounds have closed; returns the last one."""
        goal = self.closed_round() + count
        deadline_s = time.monotonic() + PATIENCE_S
        while (reached := self.closed_round()) < goal:
            assert time.monotonic() < deadline_s, f"round {goal} does not close:\n{self.server_log()[-4000:]}"
            time.sleep(0.2)
        return reached

    def down(self) -> None:
        """Remove everything, the volumes too."""
        self.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "1", check=False)


@contextmanager
def project(name: str, **settings: str) -> Iterator[Project]:
    """A project that is gone afterwards, whatever happens."""
    federation = Project(f"fedpg-test-{name}-{os.getpid()}", settings)
    try:
        yield federation
    finally:
        federation.down()


def things_of(project: str) -> list[str]:
    """Every container, network and volume of a project, by id or name."""
    ours = ("--quiet", "--filter", f"label=com.docker.compose.project={project}")
    listings = (("ps", "--all"), ("network", "ls"), ("volume", "ls"))
    return [thing for listing in listings for thing in docker(*listing, *ours).split()]


def docker(*arguments: str) -> str:
    """Run `docker` and return what it prints."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout


def crash(federation: Project, service: str, program: str) -> None:
    """Kill the program in a container with SIGKILL from within, as the kernel does when memory runs out."""
    script = (
        "import os, signal\n"
        "for pid in filter(str.isdecimal, os.listdir('/proc')):\n"
        "    words = open(f'/proc/{pid}/cmdline', 'rb').read().split(b'\\0')\n"
        f"    if any(word.endswith(b'/{program}') for word in words) and b'python' in words[0]:\n"
        "        os.kill(int(pid), signal.SIGKILL)\n"
    )
    before = federation.inspect(service)["RestartCount"]
    federation.run_in(service, "python", "-c", script, check=False)  # its own process ends with the container
    deadline_s = time.monotonic() + PATIENCE_S
    while federation.inspect(service)["RestartCount"] == before:
        assert time.monotonic() < deadline_s, f"{service} has not been started again"
        time.sleep(0.1)
