"""Train, evaluate and record with environments that fail: one sentence, exit code 9 or 7, and no traceback."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import tomli_w
from failing_environments import failing_task
from fedpg_client.worker import Worker
from fedpg_common.choices import Choice
from fedpg_common.environments import make_environments
from fedpg_common.environments.rollouts import sample
from fedpg_common.errors import EnvironmentFailedError, ExitCode, RenderingError, UsageError
from fedpg_common.federation import Federation
from fedpg_common.learning.aggregators.base import RoundPlan
from fedpg_common.learning.checkpoints import Checkpoint, write_checkpoint
from fedpg_common.learning.policies import make_policy
from fedpg_common.tasks import Task, task_to_fields
from fedpg_lab.local import preloaded
from fedpg_lab.local.failures import ProcessFailedError
from fedpg_lab.local.in_process.child import InProcessFederation
from fedpg_lab.local.in_process.rounds import RunOptions
from fedpg_lab.playback.evaluation import evaluate, load_policy
from fedpg_lab.playback.tensorboard_videos import record_videos
from fedpg_lab.playback.video import record
from fedpg_server.learning.learner import Learner
from fedpg_server.storage.store import STORE_NAME, Store
from odd_environments import LENGTH, odd_task
from support.lab import Command, run_federation


def untrained(task: Task) -> Checkpoint:
    environments = make_environments(odd_task(""))
    policy = make_policy(task, environments.observation_size, environments.action_space)
    return Checkpoint(policy.initial_parameters(np.random.default_rng(0)), policy.spec, task, 1, None)


@pytest.fixture
def saved(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A checkpoint whose environment has the fault that is the test's parameter."""
    path = tmp_path / "policy.safetensors"
    write_checkpoint(path, untrained(odd_task(request.param)))
    return path


@pytest.mark.parametrize("fault", ["step_raises", "step_exits"])
def test_a_run_whose_agents_environments_fail_ends(fault: str, tmp_path: Path) -> None:
    """The log has the traceback that whoever wrote the environment needs."""
    with pytest.raises(ProcessFailedError) as caught:
        run_federation(Federation(odd_task(fault), agents=2), tmp_path / "run")
    assert caught.value.exit_code in (ExitCode.ENVIRONMENT, ExitCode.QUORUM_LOST)
    # Whichever fails first ends the run, and the other one with it.
    logs = [(tmp_path / "run" / "logs" / f"agent-{agent}.log").read_text() for agent in (1, 2)]
    failed = [log for log in logs if ": task odd: environment odd_environments:Odd-v0 failed in step: " in log]
    assert failed
    assert all('odd_environments.py", line' in log for log in failed)


def test_a_run_whose_servers_environment_fails_ends(tmp_path: Path) -> None:
    """The agents' are well."""
    with pytest.raises(ProcessFailedError, match=r"failed in step: RuntimeError: no licence for another sim") as caught:
        run_federation(Federation(odd_task("fails_at_the_server"), agents=2), tmp_path / "run")
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert 'odd_environments.py", line' in (tmp_path / "run" / "logs" / "server.log").read_text()


def test_a_run_whose_evaluation_fails_ends_while_the_next_round_is_open(tmp_path: Path) -> None:
    """Training episodes end before the environment fails. What was learnt is stored, and can be resumed."""
    task = odd_task("fails_late", horizon=3)
    with pytest.raises(ProcessFailedError, match=r"failed in step: RuntimeError: out of track") as caught:
        run_federation(Federation(task, agents=2), tmp_path / "run")
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert "Traceback" not in (tmp_path / "run" / "logs" / "server.log").read_text().partition("DEBUG")[0]
    with Store.read(tmp_path / "run" / STORE_NAME) as store:
        unevaluated = store.unevaluated()
        assert unevaluated is not None
        assert (unevaluated.round_number, store.latest_state()[0], store.records()) == (1, 1, [])


@pytest.mark.parametrize("fault", ["close_raises", "close_exits", "bound_to_its_thread", "prints"])
def test_a_run_ends_well_whatever_its_environments_do_at_the_end_and_in_which_thread(
    fault: str, tmp_path: Path
) -> None:
    run = run_federation(Federation(odd_task(fault), agents=2), tmp_path / "run")
    assert len(run.records) == 3


@pytest.mark.parametrize(
    ("how", "words", "code"),
    [
        (
            "segfault",
            "was killed by SIGSEGV, most likely because an environment, or another part of yours, crashed; see ",
            ExitCode.QUORUM_LOST,
        ),
        ("Ctrl-C", "an environment, or another part of yours, raised KeyboardInterrupt (", ExitCode.ENVIRONMENT),
        ("exit-0", "ended with exit status 0 before the run had: most likely an environment, or", ExitCode.ENVIRONMENT),
        ("exit-3", "ended with exit status 3 before the run had: most likely an environment, or", ExitCode.ENVIRONMENT),
        ("hang", "was killed by SIGKILL, most likely because the system ran out of memory", ExitCode.QUORUM_LOST),
    ],
)
def test_a_run_in_one_process_says_what_ended_it(how: str, words: str, code: ExitCode, tmp_path: Path) -> None:
    claims = tmp_path / "claims"
    claims.mkdir()
    federation = Federation(failing_task(claims, how, where="federation"), agents=2)
    with (
        InProcessFederation(federation, RunOptions(tmp_path / "run", federation)) as processes,
        pytest.raises(ProcessFailedError, match="the run's process ") as caught,
    ):
        follow(processes, kill_on=claims / "failed-0" if how == "hang" else claims / "never")
    assert words in str(caught.value)
    assert caught.value.exit_code == code


def follow(processes: InProcessFederation, kill_on: Path) -> None:
    """Look on until the run has ended, and kill it once there is this file."""
    was_killed = False
    while processes.supervise():
        processes.wait_for_end(0.05)
        if kill_on.exists() and not was_killed:
            was_killed = True
            os.kill(processes.pid, signal.SIGKILL)


def test_a_servers_own_environment_fails_in_the_same_words() -> None:
    federation = Federation(odd_task("step_raises"), agents=1)
    environments = make_environments(federation.task)
    policy = make_policy(federation.task, environments.observation_size, environments.action_space)
    learner = Learner(federation, environments, policy)
    state = learner.initial_state()
    with pytest.raises(EnvironmentFailedError, match="failed in step: RuntimeError: simulator diverged at joint 3"):
        learner.improve(state, RoundPlan(1, 4, 1), {1: np.ones_like(state.theta)})


def test_a_reward_that_is_not_a_number_costs_the_server_a_step_and_agents_their_life(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The server must outlast what an agent need not: it leaves the inner step out."""
    federation = Federation(odd_task("reward_nan"), agents=1, algorithm=Choice("svrpg"))
    environments = make_environments(federation.task)
    policy = make_policy(federation.task, environments.observation_size, environments.action_space)
    learner = Learner(federation, environments, policy)
    state = learner.initial_state()
    with caplog.at_level(logging.WARNING, "fedpg_common.environments"):
        result = learner.improve(state, learner.plan(1), {1: np.ones_like(state.theta)})
        evaluation = learner.evaluate(result.state.theta, 1)
    assert np.isnan(evaluation.returns).all()
    assert (result.inner.steps_taken, result.inner.skipped_steps) == (0, 1)
    assert np.array_equal(result.state.theta, state.theta)
    assert caplog.text.count("the reward must be one finite number") == 1
    with pytest.raises(EnvironmentFailedError), environments.drawing(1):
        sample(environments, lambda s: np.zeros(len(s), np.int64), 8, np.arange(1))


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_observations_that_overflow_the_gradient_are_named() -> None:
    """Each is finite in float32, but not what the network makes of it."""
    task = odd_task("large", activation="relu")
    environments = make_environments(task)
    policy = make_policy(task, environments.observation_size, environments.action_space)
    worker = Worker(1, 1, 0, task, policy, environments)
    theta = np.ones(policy.spec.size, np.float32)
    with pytest.raises(EnvironmentFailedError, match=r"gives observations as large as 3e\+38, .*: scale them"):
        worker.work(1, 4, theta)


@pytest.mark.parametrize("saved", ["step_raises", "reward_nan", "step_exits", "reset_bare"], indirect=True)
def test_evaluating_ends_with_code_9(saved: Path, fedpg: Command) -> None:
    code, out, error = fedpg("evaluate", saved)
    assert (code, out) == (ExitCode.ENVIRONMENT, "")
    assert error.startswith("fedpg: task odd: environment odd_environments:Odd-v0 failed in ")
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("saved", ["prints"], indirect=True)
def test_what_an_environment_prints_is_not_in_the_result(saved: Path, fedpg: Command) -> None:
    code, out, error = fedpg("evaluate", saved, "--episodes", "2", "--json")
    assert code == 0
    assert json.loads(out)["lengths"] == [LENGTH, LENGTH]
    assert "step 1" in error


@pytest.mark.parametrize("saved", [""], indirect=True)
def test_a_recorded_episode_has_every_frame_and_tells_how_far_it_is(saved: Path, tmp_path: Path) -> None:
    policy = load_policy(saved)[1]
    (episode,) = evaluate(policy, 1, 0, greedy=True).episodes
    told: list[tuple[int, int]] = []
    record(policy.task, episode, tmp_path / "v.mp4", lambda done, total: told.append((done, total)))
    assert told == [(n, LENGTH + 1) for n in range(1, LENGTH + 2)]
    assert imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "v.mp4"))[0] == LENGTH + 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("render_none", "render must return an image, .* for the mode rgb_array, not None"),
        ("render_list", "not a list of 2"),
        ("render_grey", r"not an array of shape \(16, 16\) and type uint8"),
        ("render_text", r"not 'image' \(str\)"),
        ("render_fractions", r"not an array of shape \(16, 16, 3\) and type float64"),
        ("render_beyond", "but some are beyond that"),
        ("render_empty", r"of shape \(0, 16, 3\)"),
        ("render_grows", r"change their size, from \(16, 16, 3\) to \(17, 16, 3\)"),
        ("render_raises", "cannot be drawn on this machine: RuntimeError: no screen"),
        ("fails_when_drawn", "failed in step: RuntimeError: no screen"),
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_what_is_no_image_is_one_sentence_and_leaves_no_file(
    fault: str, words: str, suffix: str, tmp_path: Path
) -> None:
    policy = untrained(odd_task(fault))
    (episode,) = evaluate(policy, 1, 0, greedy=True).episodes
    with pytest.raises(RenderingError, match=words) as caught:
        record(policy.task, episode, tmp_path / f"v{suffix}")
    assert str(caught.value).startswith("odd_environments:Odd-v0 cannot be drawn")
    assert not list(tmp_path.iterdir())


def test_an_environment_that_is_not_made_to_be_drawn_is_one_sentence(tmp_path: Path) -> None:
    task = replace(odd_task(""), environment="odd_environments:Undrawn-v0", environment_options={})
    policy = untrained(task)
    (episode,) = evaluate(policy, 1, 0, greedy=True).episodes
    with pytest.raises(RenderingError, match="unexpected keyword argument 'render_mode'"):
        record(task, episode, tmp_path / "v.mp4")


def test_a_run_without_its_module_leaves_the_other_runs_their_videos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, task in (
        ("gone", replace(odd_task(""), environment="no_such_module:Odd-v0")),
        ("here", odd_task("")),
    ):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        (tmp_path / name / STORE_NAME).touch()
        write_checkpoint(tmp_path / name / "checkpoints" / "best.safetensors", untrained(task))
    record_videos(tmp_path)
    error = capsys.readouterr().err
    assert f"no video of {tmp_path / 'gone'}: task odd: no_such_module:Odd-v0 cannot be used" in error
    assert list((tmp_path / "here").glob("events.out.tfevents.*"))
    assert not list((tmp_path / "gone").glob("events.out.tfevents.*"))


def test_a_policy_too_large_for_a_message_is_refused_before_it_is_built(tmp_path: Path, fedpg: Command) -> None:
    fields = task_to_fields(replace(odd_task(""), environment="Acrobot-v1", environment_options={}))
    for hidden in ([30000, 30000], [2**31 - 1] * 3):
        (tmp_path / "large.toml").write_text(tomli_w.dumps({**fields, "hidden": hidden}))
        code, _, error = fedpg("train", "--task", tmp_path / "large.toml", "--agents", "1", "--out", tmp_path)
        assert code == ExitCode.USAGE
        assert "parameters, a message holds at most 134217728: choose smaller layers than hidden = [" in error


# What is imported beforehand ------------------------------------------------------------------------------------------


def test_a_library_that_cannot_be_imported_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "breaks_on_import.py").write_text("None.glGetError")
    (tmp_path / "imports_well.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    preloaded.preload(["breaks_on_import", "no_such_library", "imports_well"])
    assert "imports_well" in sys.modules


def test_mujoco_that_cannot_draw_as_it_is_told_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "from fedpg_common.environments import make_environments\n"
        "from fedpg_common.tasks import CARTPOLE, HALF_CHEETAH\n"
        "make_environments(CARTPOLE)\n"
        "make_environments(HALF_CHEETAH)"
    )
    monkeypatch.setenv("MUJOCO_GL", "bogus")
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    sentence = ended.stderr.strip().splitlines()[-1]
    assert "HalfCheetah-v5 cannot be made" in sentence
    assert "MUJOCO_GL='bogus' cannot be used on this machine: unset it, or set MUJOCO_GL=disabled" in sentence


def test_a_task_whose_module_is_missing_stays_a_usage_error() -> None:
    with pytest.raises(UsageError):
        make_environments(replace(odd_task(""), environment="no_such_module:Odd-v0"))
