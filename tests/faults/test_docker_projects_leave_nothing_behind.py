"""A federation in containers is a Compose project of its own, with its whole description, and is removed whole.

The `docker` command and the engine are replaced by what notes what they are asked for.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from docker.errors import APIError
from fedpg_common.descriptions import describe, read_federation
from fedpg_common.federation import Federation
from fedpg_lab.faults.docker import project as docker_project
from fedpg_lab.faults.docker.engine import EngineError, run_docker
from fedpg_lab.faults.docker.project import DockerProject

FEDERATION = describe(
    "CartPole-v1", agents=3, byzantine=1, attack="sign-flipping", seed=7, sigma=0.125, alpha=0.25, gamma=0.5
)


class FakeApi:
    """What is left of a project, and in which order it is removed."""

    def __init__(self) -> None:
        self.left = ["container 1", "container 2", "network 1", "volume 1"]
        self.removed: list[str] = []
        self.stuck: set[str] = set()

    def _of(self, kind: str) -> list[str]:
        return [thing for thing in self.left if thing.startswith(kind)]

    def containers(self, all: bool, filters: Mapping[str, str]) -> list[dict[str, Any]]:
        assert all
        assert filters["label"].startswith("com.docker.compose.project=fedpg-faults-")
        return [{"Id": thing, "Labels": {"com.docker.compose.service": thing}} for thing in self._of("container")]

    def networks(self, filters: Mapping[str, str]) -> list[dict[str, str]]:
        assert filters["label"].startswith("com.docker.compose.project=fedpg-faults-")
        return [{"Id": thing} for thing in self._of("network")]

    def volumes(self, filters: Mapping[str, str]) -> dict[str, Any]:
        assert filters["label"].startswith("com.docker.compose.project=fedpg-faults-")
        return {"Volumes": [{"Name": thing} for thing in self._of("volume")] or None}

    def remove(self, thing: str, **_options: bool) -> None:
        if thing in self.stuck:
            raise APIError(f"{thing} is in use")
        if thing in self.left:
            self.left.remove(thing)
            self.removed.append(thing)

    remove_container = remove_network = remove_volume = remove


class FakeClient:
    def __init__(self) -> None:
        self.api = FakeApi()


class Commands:
    """In place of `run_docker`."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.settings: Mapping[str, str] = {}
        self.texts: dict[str, str] = {}
        self.description: Federation | None = None
        self.modes: set[int] = set()

    def __call__(self, arguments: Sequence[str], settings: Mapping[str, str], timeout_s: float) -> str:
        assert timeout_s > 0
        files = [Path(word) for previous, word in pairwise(arguments) if previous == "--file"]
        self.made.append(" ".join(arguments[arguments.index(str(files[-1])) + 1 :]))
        self.settings = settings
        self.texts = {file.name: file.read_text() for file in files}
        mount = yaml.safe_load(self.texts["faults.yml"])["services"]["server"]["volumes"][0]
        self.description = read_federation(Path(mount["source"]))
        self.modes = {Path(mount["source"]).stat().st_mode & 0o777}
        return ""


Make = Callable[..., DockerProject]


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    commands = Commands()
    monkeypatch.setattr(docker_project, "run_docker", commands)
    monkeypatch.setattr(docker_project, "bring_up", lambda containers, agents: None)
    monkeypatch.setattr(docker_project, "REMOVAL_PAUSE_S", 0.0)
    return commands


@pytest.fixture
def make(commands: Commands) -> Iterator[Make]:
    """Makes projects, and removes them after the test."""
    made: list[DockerProject] = []

    def make(client: FakeClient | None = None, root: Path | None = None) -> DockerProject:
        made.append(DockerProject(client or FakeClient(), FEDERATION, root))
        return made[-1]

    yield make
    for project in made:
        project._client.api.stuck.clear()
        project.remove()


def test_the_server_gets_every_field_of_the_description(commands: Commands, make: Make) -> None:
    make().start()
    assert commands.description == FEDERATION
    assert commands.modes == {0o644}  # the container's user can read it
    agents = yaml.safe_load(commands.texts["compose.yml"])["services"]
    assert agents["agent-1"]["environment"]["FEDPG_ATTACK"] == "${ATTACK:-sign-flipping}"
    assert "FEDPG_ATTACK" not in agents["agent-2"]["environment"]


def test_settings_of_the_surroundings_do_not_reach_it(
    commands: Commands, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ATTACK", "SEED", "TASK", "COMPOSE_FILE", "COMPOSE_PROJECT_NAME"):
        monkeypatch.setenv(name, "nonsense")
    make().start()
    assert "nonsense" not in commands.settings.values()
    assert commands.settings["PATH"] == os.environ["PATH"]


def test_images_are_built_where_there_is_something_to_build_them_from(
    commands: Commands, make: Make, tmp_path: Path
) -> None:
    make().start()
    assert commands.made == ["create --no-build"]
    commands.made.clear()
    make(root=tmp_path).start()
    assert commands.made == ["build", "create --no-build"]


def test_two_projects_share_no_name(make: Make) -> None:
    assert len({make().name for _ in range(3)}) == 3


def test_everything_is_removed_before_what_it_uses(make: Make) -> None:
    client = FakeClient()
    project = make(client)
    project.start()
    project.remove()
    assert client.api.removed == ["container 1", "container 2", "network 1", "volume 1"]
    project.remove()
    assert client.api.left == []


def test_what_cannot_be_removed_is_an_error_and_the_rest_is_gone(make: Make) -> None:
    client = FakeClient()
    client.api.stuck = {"network 1"}
    project = make(client)
    with pytest.raises(EngineError, match="could not all be removed: network 1 is in use"):
        project.remove()
    assert client.api.left == ["network 1"]


def test_the_files_are_gone_with_the_containers(commands: Commands, make: Make) -> None:
    project = make()
    project.start()
    mount = yaml.safe_load(commands.texts["faults.yml"])["services"]["server"]["volumes"][0]
    assert Path(mount["source"]).exists()  # the server reads it again when it is started again
    project.remove()
    assert not Path(mount["source"]).parent.exists()


def test_a_command_that_is_given_up_takes_its_plugins_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Compose has under way when it is interrupted would otherwise be made after everything was removed."""
    script = tmp_path / "docker"
    plugin_and_ctrl_c = f"sleep 1000 & echo $! > {tmp_path}/plugin\nkill -INT $PPID\nwait\n"
    script.write_text(f"#!/bin/sh\ncat\n{plugin_and_ctrl_c}")  # `cat` ends once it is waited for
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_docker(["compose", "up"])
    finally:
        signal.signal(signal.SIGINT, before)
    plugin = int((tmp_path / "plugin").read_text())
    deadline_s = time.monotonic() + 60.0
    while is_running(plugin):
        assert time.monotonic() < deadline_s, "the plugin goes on"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it is more than an entry that nobody has collected."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    shown = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return not shown.stdout.strip().startswith(("Z", "X")) and bool(shown.stdout.strip())
