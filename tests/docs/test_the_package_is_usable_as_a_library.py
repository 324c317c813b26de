"""What docs/python.md says works: four functions, in a plain script without a guard, silently."""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from fedpg_common.environments import make_environments
from fedpg_common.learning.checkpoints import Checkpoint
from fedpg_common.learning.policies import make_policy
from fedpg_common.tasks import CARTPOLE, HALF_CHEETAH, Task
from fedpg_lab import api
from gymnasium.spaces import Box, Discrete
from support.documentation import ROOT
from support.lab import small_federation, write_run
from support.protocol import make_round_record

PAGE = ROOT / "docs" / "python.md"
HEAVY = ("torch", "matplotlib", "gymnasium", "grpc", "rich", "numpy", "tensorboard")
SCRIPT_MAX_S = 300


def blocks() -> list[str]:
    """The page's Python examples."""
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def run_script(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, as a user does."""
    script = folder / "script.py"
    script.write_text(text, encoding="utf-8")
    return subprocess.run(
        [sys.executable, script], cwd=folder, capture_output=True, text=True, timeout=SCRIPT_MAX_S, check=False
    )


def test_the_page_s_examples_run_as_one_script_without_a_guard(tmp_path: Path) -> None:
    assert len(blocks()) == 3
    ended = run_script(tmp_path, "print('started')\n" + "\n".join(blocks()))
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert lines.count("started") == 1
    assert lines[1].startswith("1 ")
    assert re.fullmatch(r"CartPole-v1: \d+\.\d ± \d+\.\d", lines[-3])
    assert re.fullmatch(r"one episode: \d+\.0", lines[-2])
    assert lines[-1].startswith("runs/example exists already: ")
    assert not list((tmp_path / "runs" / "example").glob("tensorboard"))


def test_progress_is_shown_on_request_alone(tmp_path: Path) -> None:
    train = "from fedpg_lab.api import train\ntrain(agents=2, trajectories=30, agents_per_process=2, progress=True)\n"
    ended = run_script(tmp_path, train)
    assert (ended.returncode, ended.stdout) == (0, "")
    assert "CartPole-v1_fedpg-br_K2  " in ended.stderr
    assert "Traceback" not in ended.stderr
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["CartPole-v1_fedpg-br_K2"]


def test_importing_is_light() -> None:
    loaded = f"import sys, fedpg_lab.api; print([name for name in {HEAVY} if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, timeout=300, check=True)
    assert ended.stdout.strip() == "[]"


def test_every_argument_of_train_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = set(re.findall(r"`(\w+)`", "".join(line for line in text.splitlines() if line.startswith("| `"))))
    assert set(inspect.signature(api.train).parameters) <= table
    for name in api.__all__:
        assert name == "SavedPolicy" or f"`{name}" in text


@pytest.mark.parametrize(
    "call",
    [
        lambda: api.train("Nope-v1"),
        lambda: api.train(agents=0),
        lambda: api.train(agents=2, byzantine=3),
        lambda: api.train(attack="nope"),
        lambda: api.train(agents_per_process=0),
        lambda: api.train(trajectories=0),
        lambda: api.load_run("nowhere"),
        lambda: api.load_policy("nowhere"),
        lambda: api.evaluate("nowhere"),
        lambda: api.evaluate("nowhere", episodes=0),
        lambda: api.evaluate("nowhere", seed=-1),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: object) -> None:
    monkeypatch.chdir(tmp_path)
    assert callable(call)
    with pytest.raises(api.FedPGError) as failed:
        call()
    assert str(failed.value)
    assert "\n" not in str(failed.value)
    assert list(tmp_path.iterdir()) == []


def saved(task: Task, seed: int = 0) -> api.SavedPolicy:
    """A fresh policy as if from a file."""
    environments = make_environments(task)
    policy = make_policy(task, environments.observation_size, environments.action_space)
    environments.close()
    theta = policy.initial_parameters(np.random.default_rng(seed))
    return api.SavedPolicy(Path("policy.safetensors"), Checkpoint(theta, policy.spec, task, 3, 12.5))


@pytest.mark.parametrize("task", [CARTPOLE, HALF_CHEETAH], ids=lambda task: task.name)
def test_a_policy_acts_as_it_is_evaluated(task: Task) -> None:
    policy = saved(dataclasses.replace(task, evaluation_horizon=40))
    (episode,) = api.evaluate(policy, episodes=1, seed=5).episodes
    world = gymnasium.make(task.environment)
    observation, _ = world.reset(seed=episode.seed)
    earned = 0.0
    for taken in episode.actions:
        action = policy.act(observation)
        np.testing.assert_allclose(action, taken, rtol=1e-5, atol=1e-6)
        observation, reward, *_ = world.step(taken)
        earned += float(reward)
    assert earned == pytest.approx(episode.total_reward)
    world.close()


def test_an_action_is_what_the_environment_s_space_takes() -> None:
    policy = saved(HALF_CHEETAH)
    own = policy.act(np.zeros(17))
    wide = policy.act(np.zeros(17), action_space=Box(-3.0, 5.0, (2, 3), np.float64))
    assert (wide.shape, wide.dtype) == ((2, 3), np.float64)
    np.testing.assert_allclose(wide.reshape(-1), 1.0 + 4.0 * own, rtol=1e-5)
    cart = saved(CARTPOLE)
    assert cart.act(np.zeros(4), action_space=Discrete(2, start=5)) == cart.act(np.zeros(4)) + 5


def test_drawn_actions_follow_from_the_generator() -> None:
    policy = saved(CARTPOLE)
    draws = [[policy.act(np.zeros(4), rng=np.random.default_rng(seed)) for seed in range(50)] for _ in range(2)]
    assert draws[0] == draws[1]
    assert set(draws[0]) == {0, 1}
    with pytest.raises(api.FedPGError, match="4 numbers, not 5"):
        policy.act(np.zeros(5))


def test_a_policy_shows_what_it_is() -> None:
    policy = saved(CARTPOLE)
    assert (policy.task, policy.round_number, policy.evaluation_return) == (CARTPOLE, 3, 12.5)
    assert policy.theta.shape == (sum(tensor.size for tensor in policy.tensors.values()),)
    assert policy.tensors["layers.0.weight"].shape == (16, 4)


def test_what_a_notebook_prints_is_one_line(tmp_path: Path) -> None:
    result = api.evaluate(saved(dataclasses.replace(CARTPOLE, evaluation_horizon=40)), episodes=2)
    assert repr(result) == f"<Evaluation: mean return {result.mean:.2f} of 2 episodes>"
    run = api.load_run(write_run(tmp_path / "run", small_federation(), [make_round_record(1)]))
    assert repr(run) == f"<RunData '{tmp_path / 'run'}': 1 round, unfinished>"
