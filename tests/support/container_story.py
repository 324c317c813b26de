"""What a federation in containers goes through, once, and what is seen of it; the tests look at what came of it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fedpg_lab.runs.folders import RunData
from support.containers import AGENTS, Project, crash, docker

TRAJECTORIES = "8000"
"""Several hundred rounds of some 50 ms: so many that looking at containers, which takes seconds, finds it under way."""
NO_DEADLINE_S = "100000"
"""Every round waits for everyone: whoever was killed comes back and is not left out."""
KILLS = 2
"""How often the server ends without warning: a crash and a `docker kill`."""
RUN_NAME = "CartPole-v1_fedpg-br_K10_B3_random-noise"


@dataclass
class Story:
    """What was seen of the federation from its first start to its end."""

    status: str = ""
    """`fedpg status` in the server's container, in mid-run."""
    containers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the engine says of each container."""
    keys: dict[str, str] = field(default_factory=dict)
    """The private keys that can be found in an agent's container."""
    users: dict[str, str] = field(default_factory=dict)
    writes: dict[str, str] = field(default_factory=dict)
    """Where a container could write that it should not."""
    impostor: subprocess.CompletedProcess[str] | None = None
    stranger: subprocess.CompletedProcess[str] | None = None
    tensorboard: str = ""
    """The run's scalars as TensorBoard serves them."""
    stopped: dict[str, int] = field(default_factory=dict)
    """Exit codes after `docker compose stop` in mid-run."""
    ended: dict[str, int] = field(default_factory=dict)
    """Exit codes at the end of the run."""
    up_code: int = -1
    """Of the `docker compose up` that saw the run to its end."""
    wait_code: int = -1
    """Of `docker compose wait server` after it."""
    server_log: str = ""
    run: RunData | None = None
    folders: list[str] = field(default_factory=list)


@contextmanager
def held(federation: Project) -> Iterator[None]:
    """Hold the run, however fast the machine: with one agent paused, the open round waits for it."""
    brake = federation.container("agent-10")
    docker("pause", brake)
    yield
    docker("unpause", brake)


def look_around(federation: Project, seen: Story) -> None:
    """See what a user, an operator and an intruder see."""
    seen.status = federation.run_in("server", "fedpg", "status").stdout
    for service in ("server", *AGENTS):
        seen.containers[service] = federation.inspect(service)
    for service in ("server", "agent-1", "agent-4"):
        seen.users[service] = federation.run_in(service, "id", "-u").stdout.strip()
        attempts = "for folder in / /opt/fedpg /certs /home/fedpg; do touch $folder/written && echo $folder; done"
        seen.writes[service] = federation.run_in(service, "sh", "-c", attempts, check=False).stdout
        search = (
            "find / -name '*key*' -not -path '/proc/*' -not -path '/sys/*' -type f -exec grep -l 'PRIVATE KEY' {} +"
        )
        seen.keys[service] = federation.run_in(service, "sh", "-c", search, check=False).stdout.strip()
    as_another = ("run", "--rm", "--no-deps", "-T")
    seen.impostor = federation.compose(*as_another, "-e", "FEDPG_AGENT=5", "agent-4", check=False)
    seen.stranger = federation.compose(
        *as_another, "-e", "FEDPG_TLS=", "agent-4", "--connect-timeout", "2", check=False
    )
    federation.compose("up", "--detach", "--no-deps", "tensorboard")
    fetch = "import urllib.request as u; print(u.urlopen('http://localhost:6006/data/plugin/scalars/tags').read())"
    wait = f'until python -c "{fetch}" 2>/dev/null; do sleep 0.3; done'
    seen.tensorboard = federation.run_in("tensorboard", "sh", "-c", wait).stdout
    federation.compose("rm", "--stop", "--force", "tensorboard")


def break_things(federation: Project) -> None:
    """Crashes, which the engine mends, and `docker kill`, after which it waits for the operator."""
    for service, program in (("agent-7", "fedpg-agent"), ("server", "fedpg-server")):
        federation.wait_for_rounds(2)
        with held(federation):
            crash(federation, service, program)
    federation.wait_for_rounds(2)
    docker("kill", federation.container("agent-2"), federation.container("server"))
    federation.compose("up", "--detach")
    federation.wait_for_rounds(2)
