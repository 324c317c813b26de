"""Box2D's episodes may be shared by processes: nothing but time depends on it, and none of them outlives its parent."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fedpg_common.environments import helper, make_environments
from fedpg_common.environments.flights import Flights, Simulation
from fedpg_common.environments.helpers import HelperPool, Helpers, Worth
from fedpg_common.environments.lunar_lander import LunarLanderBatch
from fedpg_common.environments.rollouts import rollout, sample
from fedpg_common.errors import EnvironmentFailedError, ExitCode
from fedpg_common.learning.policies import CategoricalActor, CategoricalPolicy, make_policy
from fedpg_common.learning.trajectories import Trajectories
from fedpg_common.tasks import LUNAR_LANDER, Reward
from gymnasium.spaces import Discrete
from numpy.typing import NDArray

PATIENCE_S = 120.0
SEEDS = np.arange(11) + 40
HORIZON = 90
WINDY = {"gravity": -6.0, "enable_wind": True, "wind_power": 10.0, "turbulence_power": 1.0}
posix_only = pytest.mark.skipif(not helper.can_help(), reason="there are no helpers on this system")


class AlwaysWorth(Worth):
    """Help is never given up, however busy the machine."""

    def is_expected(self) -> bool:
        return True


def until(condition: Callable[[], object]) -> None:
    """Wait for it."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether a process is there, and not only its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def actor() -> CategoricalActor:
    policy = CategoricalPolicy(LUNAR_LANDER, 8, Discrete(4))
    return policy.actor(policy.initial_parameters(np.random.default_rng(0)))


class Shared:
    """A batch of landers, and those who help with it."""

    def __init__(self, most: int, **options: object) -> None:
        self.helpers = Helpers(most, AlwaysWorth())
        self.make = partial(LunarLanderBatch, **options)  # type: ignore[arg-type]
        self.batch = self.make()

    def play(
        self,
        actor: CategoricalActor,
        rng: np.random.Generator | None,
        horizon: int = HORIZON,
        seeds: NDArray[np.int64] = SEEDS,
    ) -> Trajectories | None:
        return self.helpers.rollout("LunarLander-v3", self.batch, pickle.dumps(self.make), actor, horizon, seeds, rng)

    def be_ready(self, actor: CategoricalActor, count: int) -> None:
        self.play(actor, None, 2)
        until(lambda: len(self.helpers.ready()) == count)


class Disturbed:
    """The landers of this process, in whose tenth step something happens."""

    def __init__(self, batch: LunarLanderBatch, happens: Callable[[], None]) -> None:
        self._batch = batch
        self._happens = happens

    def start(self, seeds: NDArray[np.int64], first: int, after: int) -> Flights:
        flights, step, steps = self._batch.start(seeds, first, after), Flights.step, 0

        def disturbed(actions: NDArray[np.int64]) -> None:
            nonlocal steps
            steps += 1
            if steps == 10:
                self._happens()
            step(flights, actions)

        flights.step = disturbed  # type: ignore[method-assign]
        return flights

    def start_one(self, seed: int) -> tuple[Simulation, Sequence[float]]:
        return self._batch.start_one(seed)


@pytest.fixture
def two(actor: CategoricalActor) -> Iterator[Shared]:
    """One process and one that helps, ready."""
    shared = Shared(1)
    shared.be_ready(actor, 1)
    yield shared
    shared.helpers.close()


def bits(played: Trajectories | None) -> tuple[object, ...]:
    assert played is not None
    arrays = (played.observations, played.actions, played.rewards, played.episodes)
    return (*((array.dtype, array.shape, array.tobytes()) for array in arrays), played.count)


def alone(batch: LunarLanderBatch, actor: CategoricalActor, rng: np.random.Generator | None, horizon: int) -> object:
    """As every environment is sampled."""
    choose = actor.greedy if rng is None else lambda rows: actor.sample(rows, rng)
    return bits(sample(batch, choose, horizon, SEEDS))


@posix_only
@pytest.mark.parametrize(("processes", "options"), [(2, {}), (3, WINDY), (5, {})], ids=["2", "3-windy", "5"])
def test_trajectories_do_not_depend_on_the_processes(
    processes: int, options: dict[str, object], actor: CategoricalActor
) -> None:
    """Episodes that end at different steps, and are cut at the horizon; drawn actions and greedy ones."""
    shared = Shared(processes - 1, **options)
    try:
        shared.be_ready(actor, processes - 1)
        for horizon in (HORIZON, 1, 400):
            mine, theirs = np.random.default_rng(5), np.random.default_rng(5)
            assert bits(shared.play(actor, mine, horizon)) == alone(shared.make(), actor, theirs, horizon)
            assert mine.bit_generator.state == theirs.bit_generator.state
            assert bits(shared.play(actor, None, horizon)) == alone(shared.make(), actor, None, horizon)
        lengths = sample(shared.batch, actor.greedy, 400, SEEDS).lengths()
        assert len(set(lengths.tolist())) > 3
    finally:
        shared.helpers.close()


@pytest.mark.parametrize("horizon", [1, HORIZON, 400])
def test_one_process_plays_what_every_environment_is_sampled_by(horizon: int, actor: CategoricalActor) -> None:
    batch = LunarLanderBatch()
    mine, theirs = np.random.default_rng(6), np.random.default_rng(6)
    assert bits(batch.rollout(actor, horizon, SEEDS, mine)) == alone(batch, actor, theirs, horizon)
    assert mine.bit_generator.state == theirs.bit_generator.state
    assert bits(batch.rollout(actor, horizon, SEEDS, None)) == alone(batch, actor, None, horizon)
    batch.close()


@posix_only
def test_a_share_may_end_long_before_the_others(two: Shared, actor: CategoricalActor) -> None:
    """In whichever process: every order of a short and of long episodes."""
    lengths = sample(two.batch, actor.greedy, 400, SEEDS).lengths()
    order = np.argsort(lengths)
    for seeds in (SEEDS[order], SEEDS[order[::-1]]):
        for rng in (None, np.random.default_rng(8)):
            shared = two.play(actor, rng, 400, seeds)
            choose = actor.greedy if rng is None else partial(actor.sample, rng=np.random.default_rng(8))
            assert bits(shared) == bits(sample(two.batch, choose, 400, seeds))


@posix_only
def test_a_batch_is_played_alone_until_someone_is_ready_and_where_it_is_too_small(actor: CategoricalActor) -> None:
    shared = Shared(1)
    try:
        assert shared.play(actor, None) is None
        until(shared.helpers.ready)
        assert shared.play(actor, None) is not None
        assert shared.play(actor, None, seeds=SEEDS[:3]) is None
    finally:
        shared.helpers.close()


@posix_only
def test_perceived_rewards_are_the_same_in_any_number_of_processes(actor: CategoricalActor) -> None:
    """Noise follows from an episode's seed, wherever it is played."""
    task = replace(LUNAR_LANDER, reward=Reward(scale=2.0, shift=0.5, noise=0.1))
    environments = make_environments(task)
    policy = make_policy(task, environments.observation_size, environments.action_space)
    theta = policy.initial_parameters(np.random.default_rng(0))

    def play() -> object:
        return bits(rollout(environments, policy, theta, 60, SEEDS, np.random.default_rng(1)))

    before, pool = play(), HelperPool()
    helpers = pool.borrow(1)
    try:
        environments.share_helpers(pool)
        environments.use_threads(2)
        play()
        until(helpers.ready)
        assert play() == before
    finally:
        pool.give_back(helpers)
        environments.close()


@posix_only
def test_all_batches_of_a_process_share_its_helpers(actor: CategoricalActor) -> None:
    """As many processes for ten agents in one process as for one of them, and none when the last has closed."""
    batches = [LunarLanderBatch(gravity=-10.0 + number) for number in range(3)]
    pool = HelperPool()
    helpers = pool.borrow(1)
    for batch in batches:
        batch.share_helpers(pool)
        batch.use_threads(2)
        batch.rollout(actor, 5, SEEDS, None)
    until(helpers.ready)
    (pid,) = helpers.ready()
    for batch in batches:
        shared, reference = batch.rollout(actor, 60, SEEDS, None), sample(batch, actor.greedy, 60, SEEDS)
        assert bits(shared) == bits(reference)
    assert helpers.ready() == [pid]
    pool.give_back(helpers)
    for batch in batches:
        assert is_running(pid)
        batch.close()
    assert not is_running(pid)


@posix_only
@pytest.mark.parametrize("drawn", [True, False])
def test_a_helper_that_is_killed_is_one_sentence(two: Shared, actor: CategoricalActor, drawn: bool) -> None:
    """Before a batch, and in the middle of one, where the others wait for its counts. Then another one is started."""
    (pid,) = two.helpers.ready()
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_running(pid))
    with pytest.raises(
        EnvironmentFailedError, match=r"environment LunarLander-v3: a process .* killed by SIGKILL.*--threads 1"
    ) as raised:
        two.play(actor, np.random.default_rng(0) if drawn else None)
    assert raised.value.exit_code == ExitCode.ENVIRONMENT
    assert "\n" not in str(raised.value)
    two.be_ready(actor, 1)
    assert bits(two.play(actor, None)) == alone(two.batch, actor, None, HORIZON)


@posix_only
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_helper_that_is_lost_in_the_middle_of_a_batch_is_waited_for_as_long_as_it_lives(
    two: Shared, actor: CategoricalActor, number: signal.Signals
) -> None:
    (pid,) = two.helpers.ready()

    def hit() -> None:
        os.kill(pid, number)
        if number == signal.SIGSTOP:
            subprocess.Popen(
                [sys.executable, "-c", f"import os, time; time.sleep(1); os.kill({pid}, {signal.SIGCONT})"]
            )

    playing, make = Disturbed(two.batch, hit), pickle.dumps(LunarLanderBatch)
    rollout_now = partial(two.helpers.rollout, "LunarLander-v3", playing, make, actor, HORIZON, SEEDS)
    if number == signal.SIGKILL:
        with pytest.raises(EnvironmentFailedError, match="killed by SIGKILL"):
            rollout_now(np.random.default_rng(3))
    else:
        assert bits(rollout_now(np.random.default_rng(3))) == alone(two.batch, actor, np.random.default_rng(3), HORIZON)


@posix_only
def test_what_fails_in_a_helper_is_one_sentence(two: Shared, actor: CategoricalActor) -> None:
    """Also where this process waits for its next count."""
    two.make = partial(LunarLanderBatch, gravity=-20.0)  # which is refused
    with pytest.raises(EnvironmentFailedError, match=r"failed: UsageError: gravity must be between -12 and 0"):
        two.play(actor, np.random.default_rng(3))


@posix_only
def test_a_batch_that_is_broken_off_leaves_no_process_waiting(two: Shared, actor: CategoricalActor) -> None:
    (pid,) = two.helpers.ready()

    def interrupt() -> None:
        raise KeyboardInterrupt

    playing, make = Disturbed(two.batch, interrupt), pickle.dumps(LunarLanderBatch)
    with pytest.raises(KeyboardInterrupt):
        two.helpers.rollout("LunarLander-v3", playing, make, actor, HORIZON, SEEDS, np.random.default_rng(0))
    assert not is_running(pid)


@posix_only
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_to_all_processes_of_a_terminal_or_service_is_left_to_the_parent(
    two: Shared, actor: CategoricalActor, number: signal.Signals
) -> None:
    (pid,) = two.helpers.ready()
    os.kill(pid, number)
    assert bits(two.play(actor, None)) == alone(two.batch, actor, None, HORIZON)
    assert two.helpers.ready() == [pid]


PARENT = """
import sys, time
import numpy as np
from fedpg_common.environments.flights import Flights, Simulation
from fedpg_common.environments.helpers import HelperPool
from fedpg_common.environments.lunar_lander import LunarLanderBatch
from fedpg_common.learning.policies import CategoricalPolicy
from fedpg_common.tasks import LUNAR_LANDER
batch, pool = LunarLanderBatch(), HelperPool()
helpers = pool.borrow(1)
batch.share_helpers(pool)
batch.use_threads(2)
policy = CategoricalPolicy(LUNAR_LANDER, 8, batch.action_space)
actor = policy.actor(policy.initial_parameters(np.random.default_rng(0)))
while not helpers.ready():
    batch.rollout(actor, 2, np.arange(8), None)
print(helpers.ready()[0], flush=True)
while sys.argv[1] == "playing":
    batch.rollout(actor, 1000, np.arange(8), np.random.default_rng(0))
time.sleep(600)
"""


@posix_only
@pytest.mark.parametrize("doing", ["playing", "idle"])
def test_no_process_outlives_its_parent_however_that_ends(doing: str) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, doing], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.kill()
        until(lambda: not is_running(pid))


@posix_only
def test_where_no_process_can_be_started_one_plays_all_and_says_so_once(
    actor: CategoricalActor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_args: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(helper, "_start", refuse)
    shared = Shared(1)
    with caplog.at_level(logging.WARNING):
        assert shared.play(actor, None) is None
        assert shared.play(actor, None) is None
    (record,) = caplog.records
    assert "cannot be started" in record.getMessage()
    assert "with the same results" in record.getMessage()


@posix_only
def test_a_process_that_ends_before_it_is_ready_is_not_needed(
    actor: CategoricalActor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(helper, "PROGRAM", "raise SystemExit(3)")
    shared = Shared(1)

    def has_warned() -> bool:
        assert shared.play(actor, None) is None
        return bool(caplog.records)

    until(has_warned)
    assert "ended with exit code 3" in caplog.records[0].getMessage()


def test_help_that_is_not_worth_its_while_is_tried_less_and_less_often() -> None:
    worth, played_alone = Worth(), []
    for _ in range(9):
        assert worth.is_expected()
        worth.judge(took_s=2.0, alone_s=1.0)
        count = 0
        while not worth.is_expected():
            count += 1
        played_alone.append(count)
    assert played_alone == [1, 2, 4, 8, 16, 32, 64, 64, 64]
    worth.judge(took_s=1.0, alone_s=2.0)
    assert worth.is_expected()
    worth.judge(took_s=2.0, alone_s=1.0)
    assert [worth.is_expected(), worth.is_expected()] == [False, True]
