"""`my_envs:Maze-v0` is found beside its task file by every command, and imported only where its user wants that."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gymnasium
import imageio_ffmpeg
import pytest
from fedpg_client import cli as client_cli
from fedpg_client.trust import check_trusted, names_of, trusting
from fedpg_common.descriptions import federation_from_toml, federation_to_toml
from fedpg_common.environments import make_environments
from fedpg_common.errors import ExitCode, RefusedError, UsageError
from fedpg_common.federation import Federation
from fedpg_common.tasks import CARTPOLE, HALF_CHEETAH, TASKS, Task, find_task
from fedpg_common.transport import wire
from support.protocol import serving_in_a_thread

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_environment"
MODULE = """
import gymnasium
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
import neighbour_of_{name}
gymnasium.register("{name}-v0", entry_point=CartPoleEnv)
"""


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Leave Python's path and modules, and Gymnasium's environments, as they were."""
    path, modules, environments = list(sys.path), set(sys.modules), set(gymnasium.registry)
    yield
    sys.path[:] = path
    for name in set(gymnasium.registry) - environments:
        del gymnasium.registry[name]
    for name in set(sys.modules) - modules:
        if name.startswith(("found_", "neighbour_of_", "my_envs")):
            del sys.modules[name]


def write_module(folder: Path, name: str, text: str = MODULE) -> Task:
    """A module that registers NAME-v0, its neighbour, and a task file."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(text.format(name=name))
    (folder / f"neighbour_of_{name}.py").write_text("")
    source = (EXAMPLE / "puck.toml").read_text().partition("[environment_options]")[0]
    (folder / "task.toml").write_text(source.replace("my_envs:Puck-v0", f"{name}:{name}-v0"))
    return find_task(str(folder / "task.toml"))


def test_a_module_beside_the_task_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the working folder is, and though the file was named relative to another one."""
    write_module(tmp_path / "tasks", "found_beside")
    monkeypatch.chdir(tmp_path)
    task = find_task("tasks/task.toml")
    monkeypatch.chdir("/")
    assert make_environments(task).observation_size == 4
    assert "found_beside" in sys.modules


def test_a_module_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_module(tmp_path / "tasks", "found_here")
    monkeypatch.chdir(tmp_path / "tasks")
    assert make_environments(replace(CARTPOLE, environment="found_here:found_here-v0")).observation_size == 4


def test_a_folder_that_the_task_file_names(tmp_path: Path) -> None:
    write_module(tmp_path / "modules", "found_elsewhere")
    text = (tmp_path / "modules" / "task.toml").read_text()
    (tmp_path / "task.toml").write_text(f'module_folder = "modules"\n{text}')
    task = find_task(str(tmp_path / "task.toml"))
    assert task.module_folder == str(tmp_path / "modules")
    assert make_environments(task).observation_size == 4


@pytest.mark.filterwarnings("ignore:.*Overriding environment")
def test_a_module_of_the_same_name_beside_another_task(tmp_path: Path) -> None:
    other = MODULE.replace("CartPoleEnv", "Continuous_MountainCarEnv").replace("cartpole", "continuous_mountain_car")
    first, second = write_module(tmp_path / "a", "found_twice"), write_module(tmp_path / "b", "found_twice", other)
    sizes = [make_environments(task).observation_size for task in (first, second, first)]
    assert sizes == [4, 2, 4]


def test_a_module_beside_the_task_hides_no_other(tmp_path: Path) -> None:
    """A file that is called like a module of Python's is not in anybody's way afterwards."""
    task = write_module(tmp_path, "found_beside")
    make_environments(task)
    assert sys.path[-1] == str(tmp_path)
    assert sys.path.count(str(tmp_path)) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import no_such_neighbour", "its module found_broken cannot be imported: ModuleNotFoundError: .*no_such_neig"),
        ("def broken(:", r"cannot be imported: SyntaxError: invalid syntax \(found_broken.py, line 1\)"),
        ("raise SystemExit(3)", r"cannot be imported: it ended the process \(SystemExit: 3\)"),
        ("1 / 0", r"cannot be imported: ZeroDivisionError: division by zero \(found_broken.py, line 1\)"),
        ("", "cannot be made: NameNotFound: .*found_broken"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    task = write_module(tmp_path, "found_broken", text)
    with pytest.raises(UsageError, match=words) as caught:
        make_environments(task)
    assert str(caught.value).startswith("task task: found_broken:found_broken-v0 cannot be ")
    assert "\n" not in str(caught.value)


def test_a_module_that_is_not_there_says_where_it_was_looked_for(tmp_path: Path) -> None:
    task = write_module(tmp_path, "found_gone")
    (tmp_path / "found_gone.py").unlink()
    with pytest.raises(UsageError) as caught:
        make_environments(task)
    for words in (f"neither in {tmp_path}, where the task file was", "the folder with found_gone.py", "PYTHONPATH"):
        assert words in str(caught.value)


@pytest.mark.parametrize("environment", ["a:b:c", "../x:Thing-v0", "a b:Thing-v0", "a..b:Thing-v0", "a.:Thing-v0"])
def test_odd_names_are_refused(environment: str) -> None:
    with pytest.raises(UsageError, match="named MODULE:ID, with one colon"):
        make_environments(replace(CARTPOLE, environment=environment))


def test_the_folder_stays_on_this_machine(tmp_path: Path) -> None:
    task = write_module(tmp_path, "found_beside")
    assert str(tmp_path).encode() not in wire.task_to_message(task).SerializeToString()
    assert not any(task.module_folder for task in TASKS.values())


def test_a_run_remembers_the_folder_and_is_the_same_run_elsewhere(tmp_path: Path) -> None:
    here, there = write_module(tmp_path / "here", "found_beside"), write_module(tmp_path / "there", "found_beside")
    stored = federation_from_toml(federation_to_toml(Federation(here)), "the store")
    assert stored.task.module_folder == str(tmp_path / "here")
    assert stored == Federation(there)


def run(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from fedpg_lab.cli import main; main()", *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_example_is_trained_evaluated_and_recorded(tmp_path: Path) -> None:
    """From another folder each time; a run that has been moved away from its module says what is missing."""
    shutil.copytree(EXAMPLE, tmp_path / "example")
    (tmp_path / "elsewhere").mkdir()
    options = ("--agents", "2", "--trajectories", "40", "--no-tensorboard", "--out", tmp_path, "--name", "run")
    trained = run(tmp_path, "train", "--task", "example/puck.toml", *options)
    assert trained.returncode == 0, trained.stderr
    evaluated = run(tmp_path / "elsewhere", "evaluate", tmp_path / "run", "--json", "--video", "puck.mp4")
    assert evaluated.returncode == 0, evaluated.stderr
    steps = json.loads(evaluated.stdout)["lengths"][0]
    assert imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "elsewhere" / "puck.mp4"))[0] == steps + 1
    shutil.move(tmp_path / "example", tmp_path / "moved")
    lost = run(tmp_path / "elsewhere", "evaluate", tmp_path / "run")
    assert lost.returncode == ExitCode.USAGE
    assert "its module my_envs is not there" in lost.stderr
    assert len(lost.stderr.strip().splitlines()) == 1
    assert run(tmp_path / "moved", "evaluate", tmp_path / "run", "--episodes", "1").returncode == 0


def test_the_page_on_tasks_has_every_field() -> None:
    page = (EXAMPLE.parent.parent / "docs" / "tasks.md").read_text()
    assert [field.name for field in dataclasses.fields(Task) if f"`{field.name}`" not in page] == []


def test_the_example_is_a_task_with_every_field_that_is_needed() -> None:
    fields = tomllib.loads((EXAMPLE / "puck.toml").read_text())
    assert find_task(str(EXAMPLE / "puck.toml")).environment == fields["environment"]


# Trust ----------------------------------------------------------------------------------------------------------------


def wants(environment: str, **options: object) -> Task:
    return replace(CARTPOLE, name="theirs", environment=environment, environment_options=options)


@pytest.mark.parametrize(
    ("task", "allowed"),
    [
        (wants("my_envs:Maze-v0"), "my_envs"),
        (wants("my_envs:Maze-v0"), "other, my_envs"),
        (wants("my_envs.mazes:Maze-v0"), "my_envs"),
        (wants("my_envs.mazes:Maze-v0"), "my_envs.mazes"),
        (wants("my_envs:Maze-v0"), "my_envs:Maze-v0"),
        (wants("my_envs:Maze-v0", level="levels/1.txt"), "my_envs"),
        (CARTPOLE, ""),
        (wants("CartPole-v1", sutton_barto_reward=True), ""),
        (wants("Ant-v5", ctrl_cost_weight=0.5, xml_file="ant.xml"), ""),
        (wants("ALE/Pong-v5", obs_type="rgb"), ""),
        (wants("HalfCheetah-v5", xml_file="/home/me/cheetah.xml"), "HalfCheetah-v5"),
    ],
)
def test_what_is_allowed_is_done(task: Task, allowed: str) -> None:
    check_trusted(task, names_of([allowed]))


@pytest.mark.parametrize(
    ("task", "allowed", "words"),
    [
        (wants("this:CartPole-v1"), "", "import the module 'this', .* --allow this or FEDPG_ALLOW=this$"),
        (wants("my_envs:Maze-v0"), "my_envs.mazes", "'my_envs'"),
        (wants("my_envs2:Maze-v0"), "my_envs", "'my_envs2'"),
        (wants("my_envs:Other-v0"), "my_envs:Maze-v0", "'my_envs'"),
        (wants("HalfCheetah-v5", xml_file="/etc/passwd"), "", "'/etc/passwd', .* --allow HalfCheetah-v5 or FEDPG_"),
        (wants("HalfCheetah-v5", xml_file="../secret"), "", "'../secret'"),
        (wants("HalfCheetah-v5", xml_file="..\\secret"), "", "secret"),
        (wants("HalfCheetah-v5", xml_file="~me"), "", "'~me'"),
        (wants("GymV26Environment-v0", env_id="this:CartPole-v1"), "", "'this:CartPole-v1'"),
        (wants("Ant-v5", deep={"list": [1, ["ok", "/x"]]}), "", "'/x'"),
        (wants("HalfCheetah-v5", xml_file="/etc/passwd"), "my_envs", "'/etc/passwd'"),
    ],
)  # fmt: skip
def test_what_is_not_allowed_is_refused_in_one_sentence(task: Task, allowed: str, words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        check_trusted(task, names_of([allowed]))


def test_a_local_launcher_trusts_the_task_that_its_user_named() -> None:
    for task in (wants("my_envs.mazes:Maze-v0", level="a/b"), replace(HALF_CHEETAH, environment_options={"x": "/x"})):
        check_trusted(task, trusting(task))


@pytest.mark.parametrize("way", ["", "option", "variable"])
def test_an_agent_imports_the_servers_module_only_if_its_operator_allowed_it(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Refused before the import; where it is allowed, the agent gets as far as comparing the policies."""
    write_module(tmp_path, "found_by_agent")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDPG_ALLOW", raising=False)
    if way == "variable":
        monkeypatch.setenv("FEDPG_ALLOW", "another,found_by_agent")
    federation = Federation(wants("found_by_agent:found_by_agent-v0"), agents=2)
    options = ["--allow", "found_by_agent"] if way == "option" else []
    with serving_in_a_thread(tmp_path, federation) as address:
        monkeypatch.setattr(sys, "argv", ["fedpg-agent", "--server", address, "--agent", "1", *options])
        with pytest.raises(SystemExit) as ended:
            client_cli.main()
    error = capfd.readouterr().err
    assert ended.value.code == ExitCode.REFUSED
    assert ("found_by_agent" in sys.modules) == bool(way)
    assert ("is not laid out like the server's" if way else "--allow found_by_agent") in error
    assert "Traceback" not in error
