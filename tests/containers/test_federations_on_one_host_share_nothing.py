"""Two federations from `fedpg compose --out`, side by side: each has containers, a network, volumes and settings of its
own; what happens to one container changes nothing else; the end says the result, and nothing is left behind.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fedpg_common.choices import Choice
from fedpg_lab import cli
from fedpg_lab.runs.folders import load_run
from support.containers import PATIENCE_S, Project, things_of
from typer.testing import CliRunner

MODULE = '''
import gymnasium
from gymnasium.envs.classic_control.cartpole import CartPoleEnv


class Windless(CartPoleEnv):
    """A world of the user's own."""


gymnasium.register("Windless-v0", Windless, max_episode_steps=100)
'''
TASK = """
environment = "worlds:Windless-v0"
hidden = [16, 16]
activation = "relu"
horizon = 100
evaluation_horizon = 100
trajectories = 60
gamma = 0.99
learning_rate = 1e-3
batch_size = 16
batch_size_min = 12
batch_size_max = 20
mini_batch_size = 4
inner_steps = 3
"""
ROUNDS_WAIT_S = "100000"
RUN_NAME = "CartPole-v1_fedpg-br_K3_B1_sign-flipping"


@dataclass
class Story:
    """What was seen of both."""

    before: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Of the first federation: each container's id and when it was started, before one of them was killed."""
    after: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The same when it had been brought back, and the second federation was there."""
    first: list[str] = field(default_factory=list)
    second: list[str] = field(default_factory=list)
    """Containers, networks and volumes of each."""
    end: str = ""
    """What the `up` that saw the first one to its end printed."""
    copied: Path = Path()
    """What the copy command at the end brought."""
    runs: str = ""
    left: list[str] = field(default_factory=list)
    """What there was of the first one when it had been removed, and the second one still ran."""
    second_end: str = ""


@contextmanager
def written(folder: Path, name: str, *options: object) -> Iterator[Project]:
    """A federation in a folder of its own, gone in the end."""
    command = ["compose", "--out", str(folder), "--name", name, *map(str, options)]
    CliRunner().invoke(cli.app, command, catch_exceptions=False)
    federation = Project(name, {}, folder)
    try:
        yield federation
    finally:
        federation.down()


def shown(ended: subprocess.CompletedProcess[str]) -> str:
    """What a terminal shows: containers' logs are on standard error, as the programs' are."""
    return ended.stdout + ended.stderr


def containers_of(federation: Project, services: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    found = {service: federation.inspect(service) for service in services}
    return {service: (entry["Id"], entry["State"]["StartedAt"]) for service, entry in found.items()}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    place, seen = tmp_path_factory.mktemp("federations"), Story()
    place.chmod(0o755)
    (place / "modules").mkdir()
    (place / "modules" / "worlds.py").write_text(MODULE)
    (place / "windless.toml").write_text(TASK)
    first = ["--agents", 3, "--byzantine", 1, "--attack", "sign-flipping", "--trajectories", 3000]
    second = ["--agents", 2, "--task", place / "windless.toml", "--modules", place / "modules"]
    with ExitStack() as stack:
        one = stack.enter_context(
            written(place / "one", f"fedpg-test-one-{os.getpid()}", *first, "--round-timeout", ROUNDS_WAIT_S)
        )
        two = stack.enter_context(written(place / "two", f"fedpg-test-two-{os.getpid()}", *second))
        one.compose("up", "--build", "--detach", timeout_s=3000.0)
        one.wait_for_rounds(1)
        services = ("server", "agent-1", "agent-2", "agent-3")
        seen.before = containers_of(one, services)
        one.compose("kill", "agent-3")  # from here on the open round waits for it, however fast the machine
        two.compose("up", "--detach", "--build", timeout_s=3000.0)
        seen.first, seen.second = things_of(one.name), things_of(two.name)
        one.compose("up", "--detach", "agent-3")
        one.wait_for_rounds(1)
        seen.after = containers_of(one, services)
        one.compose("stop")
        seen.end = shown(one.compose("up", timeout_s=600.0))
        command = re.search(r"copy it with: (docker compose cp .*)", seen.end)
        assert command, seen.end
        subprocess.run(shlex.split(command[1]), cwd=one.folder, check=True, timeout=PATIENCE_S, capture_output=True)
        seen.copied = place / "one"
        listing = (
            "run",
            "--rm",
            "-T",
            "fedpg",
            "evaluate",
            "CartPole-v1_fedpg-br_K3_B1_sign-flipping",
            "--episodes",
            "1",
        )
        seen.runs = one.compose(*listing).stdout
        one.compose("down", "--volumes")
        seen.left = things_of(one.name)
        seen.second_end = shown(two.compose("up", timeout_s=600.0))
        yield seen


def test_a_killed_container_comes_back_and_nothing_else_changes(story: Story) -> None:
    assert story.after.keys() == story.before.keys()
    changed = {service for service in story.before if story.after[service] != story.before[service]}
    assert changed == {"agent-3"}
    assert story.after["agent-3"][0] == story.before["agent-3"][0]  # the same container, started again


def test_the_run_is_one_run_that_is_what_its_description_says(story: Story) -> None:
    (folder,) = (path for path in story.copied.iterdir() if path.is_dir())
    run = load_run(folder)
    assert run.is_complete
    assert run.federation.byzantine == {1: Choice("sign-flipping")}
    assert run.federation.task.trajectories == 3000


def test_the_federations_have_nothing_in_common(story: Story) -> None:
    assert len(story.first) > 2 * 4
    assert len(story.second) > 2 * 3
    assert not set(story.first) & set(story.second)


def test_the_end_says_the_result_and_how_to_copy_it(story: Story) -> None:
    said = [line for line in story.end.splitlines() if " server  " in line][-3:]
    assert re.search(r"the run has ended: final return [\d.]+ after \d+ rounds, \d+/3000 trajectories$", said[0])
    assert re.search(r"accepted \d+ of \d+ gradients of Byzantine agents and \d+ of \d+ of the others$", said[1])
    folder = f"/runs/{RUN_NAME}"
    assert said[2].endswith(f"the run is in {folder}; copy it with: docker compose cp server:{folder} .")


def test_commands_look_at_the_runs_after_the_end(story: Story) -> None:
    assert "episode" in story.runs


def test_removing_one_federation_leaves_nothing_of_it_and_the_other_one_running(story: Story) -> None:
    assert story.left == []
    assert "the run has ended: final return" in story.second_end


def test_a_world_of_the_users_own_is_found_in_every_container(story: Story) -> None:
    assert re.search(r"after \d+ rounds, \d+/60 trajectories$", story.second_end, re.MULTILINE)
