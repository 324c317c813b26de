"""`fedpg evaluate` gives figures that follow from the seed, and shows just the episodes that it gives figures of."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import imageio_ffmpeg
import numpy as np
import pytest
from fedpg_common.environments import make_environments
from fedpg_common.environments.actions import ActionScale
from fedpg_common.errors import ExitCode, RenderingError, StorageError
from fedpg_common.learning.checkpoints import Checkpoint, write_checkpoint
from fedpg_common.learning.policies import make_policy
from fedpg_common.learning.streams import Purpose, Role, stream
from fedpg_common.tasks import TASKS, Task
from fedpg_lab.playback.evaluation import Evaluation, evaluate, load_policy
from fedpg_lab.playback.video import record, render_without_display
from fedpg_server.storage.store import STORE_NAME, Store
from support.lab import Command, small_federation, write_run
from support.protocol import make_round_record

HORIZON = 30


def short(name: str) -> Task:
    return replace(TASKS[name], evaluation_horizon=HORIZON)


def untrained(task: Task, seed: int = 1) -> Checkpoint:
    environments = make_environments(task)
    policy = make_policy(task, environments.observation_size, environments.action_space)
    environments.close()
    theta = policy.initial_parameters(stream(seed, Role.SERVER, Purpose.INITIAL_PARAMETERS))
    return Checkpoint(theta, policy.spec, task, round_number=7, evaluation_return=None)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint of CartPole."""
    path = tmp_path / "policy.safetensors"
    write_checkpoint(path, untrained(short("CartPole-v1")))
    return path


def everything(evaluation: Evaluation) -> list[tuple[int, float, bytes]]:
    return [(episode.seed, episode.total_reward, episode.actions.tobytes()) for episode in evaluation.episodes]


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("greedy", [True, False])
def test_a_seed_gives_the_same_episodes_and_another_seed_others(name: str, greedy: bool) -> None:
    policy = untrained(short(name))
    first = everything(evaluate(policy, episodes=3, seed=4, greedy=greedy))
    assert first == everything(evaluate(policy, episodes=3, seed=4, greedy=greedy))
    assert first != everything(evaluate(policy, episodes=3, seed=5, greedy=greedy))


@pytest.mark.parametrize("name", TASKS)
def test_an_episode_played_again_where_it_is_drawn_earns_the_same(name: str) -> None:
    (_, episode) = evaluate(untrained(TASKS[name]), episodes=2, seed=0, greedy=False).episodes
    environment: gymnasium.Env[Any, Any] = gymnasium.make(name, render_mode="rgb_array")
    environment.reset(seed=episode.seed)
    earned = 0.0
    for action in ActionScale(environment.action_space).to_environment(episode.actions):
        earned += float(environment.step(action)[1])
    environment.close()
    assert earned == episode.total_reward


def test_mean_and_deviation_are_those_of_the_returns() -> None:
    evaluation = evaluate(untrained(TASKS["CartPole-v1"]), episodes=5, seed=0, greedy=False)
    returns = [float(len(episode.actions)) for episode in evaluation.episodes]  # CartPole pays one a step
    assert evaluation.returns.tolist() == returns
    assert evaluation.mean == pytest.approx(sum(returns) / 5)
    assert evaluation.deviation == pytest.approx((sum((r - evaluation.mean) ** 2 for r in returns) / 4) ** 0.5)
    assert evaluate(untrained(TASKS["CartPole-v1"]), episodes=1, seed=0, greedy=True).deviation is None


def test_the_command_prints_the_figures_for_people_and_for_programs(saved: Path, fedpg: Command) -> None:
    code, text, _ = fedpg("evaluate", saved, "--episodes", "2", "--json")
    assert code == 0
    figures = json.loads(text)
    assert figures["returns"] == evaluate(load_policy(saved)[1], 2, 0, greedy=True).returns.tolist()
    code, text, _ = fedpg("evaluate", saved, "--episodes", "2")
    assert code == 0
    assert f"mean {figures['mean']:.2f}, standard deviation {figures['standard_deviation']:.2f}, 2 episodes" in text


def test_a_run_folder_stands_for_its_best_policy(saved: Path, tmp_path: Path) -> None:
    best = tmp_path / "runs" / "seed-0" / "checkpoints" / "best.safetensors"
    best.parent.mkdir(parents=True)
    best.write_bytes(saved.read_bytes())
    assert load_policy(tmp_path / "runs" / "seed-0")[0] == best
    with pytest.raises(StorageError, match=r"holds several runs: choose one, for example .*seed-0$"):
        load_policy(tmp_path / "runs")


@pytest.mark.parametrize("name", ["CartPole-v1", "LunarLander-v3"])
@pytest.mark.parametrize(("suffix", "every"), [(".mp4", 1), (".gif", 2)])
def test_a_video_has_every_step_or_what_a_gif_can_show(name: str, suffix: str, every: int, tmp_path: Path) -> None:
    task = short(name)
    (episode,) = evaluate(untrained(task), episodes=1, seed=0, greedy=True).episodes
    path = tmp_path / f"video{suffix}"
    record(task, episode, path)
    frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(path))
    steps = len(episode.actions)
    assert frames == steps // every + 1
    assert seconds == pytest.approx(frames * every / 50, abs=0.05)  # both are drawn at 50 Hz
    assert list(tmp_path.iterdir()) == [path]


def test_half_cheetah_is_recorded_without_a_display_or_the_missing_package_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "cheetah.safetensors", untrained(short("HalfCheetah-v5")))
    command = [sys.executable, "-c", "from fedpg_lab.cli import main; main()", "evaluate", "cheetah.safetensors"]
    arguments = [*command, "--episodes", "1", "--video", "cheetah.mp4"]
    ended = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    if ended.returncode == ExitCode.RENDERING:
        assert "apt-get install libegl1 libgl1-mesa-dri" in ended.stderr
        assert not (tmp_path / "cheetah.mp4").exists()
    else:
        assert ended.returncode == 0, ended.stderr
        assert imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "cheetah.mp4"))[0] == HORIZON + 1
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "MUJOCO_LOG.TXT").exists()


def test_a_machine_that_cannot_draw_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedpg_lab.playback.video.OFFSCREEN_LIBRARIES", {"egl": "libNoSuchEGL.so.1"})
    monkeypatch.setenv("MUJOCO_GL", "egl")
    with pytest.raises(RenderingError, match=r"^HalfCheetah-v5 cannot .*: install libNoSuchEGL.so.1 \(on Debian"):
        render_without_display(TASKS["HalfCheetah-v5"])
    render_without_display(TASKS["CartPole-v1"])  # which is not MuJoCo's


def test_what_an_environment_cannot_draw_is_one_sentence(tmp_path: Path) -> None:
    task = replace(
        short("CartPole-v1"), environment_options={"sutton_barto_reward": "not a truth value", "nonsense": 1}
    )
    (episode,) = evaluate(untrained(short("CartPole-v1")), episodes=1, seed=0, greedy=True).episodes
    with pytest.raises(RenderingError, match=r"^CartPole-v1 cannot be drawn on this machine: .*nonsense"):
        record(task, episode, tmp_path / "video.mp4")
    assert not list(tmp_path.iterdir())


def test_a_run_without_checkpoints_says_whether_it_ever_had_some(tmp_path: Path, fedpg: Command) -> None:
    write_run(tmp_path / "new", small_federation(), [])
    write_run(tmp_path / "cleared", small_federation(), [make_round_record(1)])
    code, _, error = fedpg("evaluate", tmp_path / "new")
    assert (code, len(error.splitlines())) == (ExitCode.STORAGE, 1)
    assert "has no checkpoint yet: its first round has not ended" in error
    code, _, error = fedpg("evaluate", tmp_path / "cleared")
    assert (code, len(error.splitlines())) == (ExitCode.STORAGE, 1)
    assert "the checkpoints of the run in" in error
    assert "are missing: put its folder checkpoints back" in error
    store = Store.open(tmp_path / "cleared" / STORE_NAME)  # a server writes them after its next round
    code, _, error = fedpg("evaluate", tmp_path / "cleared")
    store.close()
    assert "has no checkpoint yet: its next round writes them" in error


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["nowhere.safetensors"], ExitCode.STORAGE, "there is no checkpoint at nowhere.safetensors"),
        (["."], ExitCode.STORAGE, "there is no run in .: give a checkpoint file or a run folder (fedpg train --out ."),
        (["runs"], ExitCode.STORAGE, "there is no folder runs: fedpg train makes one there, or give one that has runs"),
        (["text.safetensors"], ExitCode.STORAGE, "text.safetensors is not a FedPG checkpoint"),
        (["other.safetensors"], ExitCode.STORAGE, "386 parameters, where 4996 belong"),
        (["nan.safetensors"], ExitCode.STORAGE, "not finite"),
        (["policy.safetensors", "--episodes", "0"], ExitCode.USAGE, "--episodes must be 1 to 10000, not 0"),
        (["policy.safetensors", "--seed", "-1"], ExitCode.USAGE, "--seed must be"),
        (["policy.safetensors", "--video-episode", "11"], ExitCode.USAGE, "one of the episodes 1 to 10, not 11"),
        (["policy.safetensors", "--video", "a.avi"], ExitCode.USAGE, "a video is a .mp4 or .gif file, not 'a.avi'"),
        (
            ["policy.safetensors", "--video", "no/a.mp4"],
            ExitCode.STORAGE,
            "no/a.mp4 cannot be written: there is no folder no",
        ),
        (["policy.safetensors", "--render", "human"], ExitCode.RENDERING, "there is no display"),
    ],
)
def test_bad_input_is_one_sentence_and_an_exit_code(
    arguments: list[str], code: ExitCode, sentence: str, saved: Path, fedpg: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(saved.parent)
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    policy = load_policy(saved)[1]
    Path("text.safetensors").write_text("not a policy")
    write_checkpoint(Path("other.safetensors"), replace(policy, task=TASKS["LunarLander-v3"]))
    write_checkpoint(Path("nan.safetensors"), replace(policy, theta=policy.theta * np.float32("nan")))
    ended, _, text = fedpg("evaluate", *arguments)
    assert (ended, len(text.splitlines())) == (code, 1), text
    assert text.startswith("fedpg: ")
    assert sentence in text
