"""One federation in containers for all tests of this folder, and the same one run locally."""

from __future__ import annotations

import pytest
from fedpg_lab.runs.folders import RunData, load_run
from support.container_story import NO_DEADLINE_S, RUN_NAME, TRAJECTORIES, Story, break_things, held, look_around
from support.containers import docker, project, why_no_engine


@pytest.fixture(scope="session", autouse=True)
def engine() -> None:
    """End with one sentence where no engine answers."""
    reason = why_no_engine()
    if reason:
        pytest.exit(reason, returncode=1)


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Bring the committed federation up, look at it, break it, stop it, and let it come to its end."""
    seen = Story()
    with project("story", TRAJECTORIES=TRAJECTORIES, ROUND_TIMEOUT=NO_DEADLINE_S, TENSORBOARD_PORT="0") as federation:
        federation.compose("up", "--build", "--detach", timeout_s=3000.0)  # the first build installs everything
        federation.wait_for_rounds(2)
        with held(federation):
            look_around(federation, seen)
        break_things(federation)
        federation.compose("stop", "--timeout", "20")
        seen.stopped = federation.exit_codes()
        seen.up_code = federation.compose("up", check=False, timeout_s=600.0).returncode
        seen.wait_code = federation.compose("wait", "server", check=False).returncode
        seen.ended = federation.exit_codes()
        seen.server_log = federation.server_log()
        folder = tmp_path_factory.mktemp("runs")
        docker("cp", f"{federation.container('server')}:/runs/.", str(folder))
        seen.folders = sorted(path.name for path in folder.iterdir())
        seen.run = load_run(folder / RUN_NAME)
    return seen


@pytest.fixture(scope="session")
def local_run(story: Story, tmp_path_factory: pytest.TempPathFactory) -> RunData:
    """The same description, run by `fedpg train` as processes of one container, with the same libraries."""
    options = ["--task", "CartPole-v1", "--agents", "10", "--byzantine", "3", "--attack", "random-noise"]
    options += ["--trajectories", TRAJECTORIES, "--round-timeout", NO_DEADLINE_S, "--seed", "0"]
    folder = tmp_path_factory.mktemp("local")
    with project("local") as place:
        name = f"{place.name}-train"
        train = ["run", "--no-deps", "-T", "--name", name, "--entrypoint", "fedpg", "server", "train", *options]
        place.compose(*train, "--out", "/runs", "--name", "run", timeout_s=600.0)
        docker("cp", f"{name}:/runs/.", str(folder))
    return load_run(folder / "run")
