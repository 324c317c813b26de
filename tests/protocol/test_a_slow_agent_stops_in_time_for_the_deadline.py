"""Where it is asked for, an agent that will not have its whole batch in time submits the gradient of what it has."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg_client.agent import Agent
from fedpg_client.attacks import Attack, Attacker, Context
from fedpg_client.calls import Calls
from fedpg_client.pace import CAUTION, RESERVE, Budget, Pace
from fedpg_client.worker import Update, Worker
from fedpg_common.environments import EnvironmentBatch, make_environments
from fedpg_common.learning.policies import Policy, make_policy
from fedpg_common.learning.recursion import Kind, Recursion
from fedpg_common.learning.trajectories import Trajectories, joined
from fedpg_common.speeds import Speed
from fedpg_common.tasks import CARTPOLE, LUNAR_LANDER, Task
from support.agent_stubs import ENDED, StubWorker, open_reply
from support.protocol import idle_federation, serving


class Kept(Attack):
    """Honest, and keeps what was sampled."""

    def __init__(self) -> None:
        self.seen: list[Trajectories] = []

    def tamper_trajectories(self, trajectories: Trajectories, context: Context) -> Trajectories:
        self.seen.append(trajectories)
        return trajectories


class Clock:
    """Goes on by what a look at it costs."""

    def __init__(self, step_s: float = 0.0) -> None:
        self.now_s, self.step_s = 100.0, step_s

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


class Bench:
    """A worker on a task whose episodes are short, and what it has sampled."""

    def __init__(self, task: Task = CARTPOLE) -> None:
        self.task = dataclasses.replace(task, horizon=60)
        self.environments: EnvironmentBatch = make_environments(self.task)
        self.policy: Policy = make_policy(self.task, self.environments.observation_size, self.environments.action_space)
        self.theta = self.policy.initial_parameters(np.random.default_rng(3))

    def work(self, speed: Speed, budget: Budget | None = None, **fields: Any) -> tuple[Update, Trajectories]:
        kept = Kept()
        worker = Worker(2, 5, 7, self.task, self.policy, self.environments, Attacker(kept), speed)
        update = worker.work(4, fields.pop("batch_size", 16), self.theta, budget=budget, **fields)
        return update, joined(kept.seen)


@pytest.fixture(scope="module", params=[CARTPOLE, LUNAR_LANDER], ids=lambda task: task.name)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = Bench(request.param)
    yield bench
    bench.environments.close()


def of_first(batch: Trajectories, count: int) -> Trajectories:
    rows = batch.episodes < count
    return Trajectories(batch.observations[rows], batch.actions[rows], batch.rewards[rows], batch.episodes[rows], count)


def spent(chunks_s: float, left_s: float) -> Budget:
    """The budget of an agent each of whose chunks takes so long."""
    clock = Clock()
    budget = Pace(clock).budget(clock.now_s, left_s)
    clock.step_s = chunks_s
    return budget


# Chunks ---------------------------------------------------------------------------------------------------------------


def test_a_shorter_batch_is_the_beginning_of_a_longer_one(bench: Bench) -> None:
    whole, everything = bench.work(Speed(0, 5))
    assert (whole.trajectories, everything.count) == (16, 16)
    for chunks_s, expected in ((10.0, 5), (3.4, 10), (0.01, 16)):
        update, sampled = bench.work(Speed(0, 5), spent(chunks_s, left_s=10.0))
        assert update.trajectories == sampled.count == expected
        first = of_first(everything, expected)
        for field in ("observations", "actions", "rewards", "episodes"):
            np.testing.assert_array_equal(getattr(sampled, field), getattr(first, field))
        if expected == 16:
            assert update.gradient.tobytes() == whole.gradient.tobytes()


def test_chunks_are_joined_in_the_order_of_time(bench: Bench) -> None:
    _, sampled = bench.work(Speed(0, 5))
    steps = np.zeros(16, np.int64)
    last = (-1, -1)
    for episode in sampled.episodes.tolist():
        now = (int(steps[episode]), episode)
        assert now > last
        last = now
        steps[episode] += 1
    np.testing.assert_array_equal(steps, sampled.lengths())


def test_no_two_chunks_share_their_draws(bench: Bench) -> None:
    _, sampled = bench.work(Speed(0, 4))
    starts = sampled.observations[:16]
    assert len(np.unique(starts, axis=0)) == 16


@pytest.mark.parametrize("speed", [Speed(), Speed(0, 0), Speed(16, 0), Speed(40, 16), Speed(0, 99)])
def test_nothing_changes_where_nobody_asks_for_it(bench: Bench, speed: Speed) -> None:
    """Not even with a deadline that has passed."""
    plain, _ = bench.work(Speed())
    update, _ = bench.work(speed, spent(10.0, left_s=0.0))
    assert update.gradient.tobytes() == plain.gradient.tobytes()
    assert update.trajectories == 16


def test_a_smaller_batch_needs_no_clock(bench: Bench) -> None:
    small, _ = bench.work(Speed(5))
    plain, _ = bench.work(Speed(), batch_size=5)
    assert small.trajectories == 5
    assert small.gradient.tobytes() == plain.gradient.tobytes()


def test_an_agent_that_halves_its_batch_is_not_cut(bench: Bench) -> None:
    recursion = Recursion(Kind.MOMENTUM, bench.theta + np.float32(1e-3), weight=0.5)
    update, _ = bench.work(Speed(0, 2), spent(10.0, left_s=1.0), recursion=recursion)
    assert update.trajectories == 16


def test_a_difference_of_gradients_is_of_what_there_is(bench: Bench) -> None:
    recursion = Recursion(Kind.DIFFERENCE, bench.theta + np.float32(1e-3), np.zeros_like(bench.theta))
    update, sampled = bench.work(Speed(0, 5), spent(10.0, left_s=1.0), recursion=recursion)
    assert update.trajectories == sampled.count == 5
    assert np.isfinite(update.gradient).all()


# Time -----------------------------------------------------------------------------------------------------------------


def test_a_chunk_is_begun_only_if_the_slowest_so_far_would_be_complete_in_time() -> None:
    clock = Clock()
    budget = Budget(clock, clock.now_s + 10.0)
    clock.now_s += 2.0
    assert budget.allows(4, 4), "4 more take 2 s, with caution 3: 5 of 10"
    clock.now_s += 4.0
    assert not budget.allows(4, 4), "now 4 s, with caution 6: 12 of 10"
    assert budget.allows(4, 2), "half as many are done after 9"


def test_what_comes_after_sampling_is_reckoned_with() -> None:
    clock = Clock()
    pace = Pace(clock)
    first = pace.budget(clock.now_s, 10.0)
    clock.now_s += 10.0 * (1 - RESERVE) - 0.01
    assert first.allows(1, 0)
    clock.now_s += 0.02
    assert not first.allows(1, 0)
    clock.now_s += 2.0
    pace.submitted(first)
    second = pace.budget(clock.now_s, 10.0)
    clock.now_s += 10.0 - CAUTION * 2.0 - 0.01
    assert second.allows(1, 0)
    clock.now_s += 0.02
    assert not second.allows(1, 0)


class Line:
    """A server that has one round to give away, with the time that is left."""

    def __init__(self, time_left_s: float | None) -> None:
        reply = open_reply(1)
        if time_left_s is not None:
            reply.time_left_s = time_left_s
        self._script = [reply, ENDED]
        self.reports: list[pb.WorkReport] = []

    def join(self) -> pb.JoinReply:
        return pb.JoinReply(run_id="run", agents=3)

    def await_round(self, after_round: int) -> pb.AwaitRoundReply:
        return self._script.pop(0)

    def submit(self, round_: pb.Round, gradient: pb.Tensor, report: pb.WorkReport) -> pb.SubmitUpdateReply:
        self.reports.append(report)
        return pb.SubmitUpdateReply(verdict=pb.VERDICT_ACCEPTED)

    def leave(self, *_: object) -> None:
        pass


class Timed(StubWorker):
    """Notes whether it was given a budget, and samples one trajectory a second."""

    def __init__(self, speed: Speed, clock: Clock) -> None:
        super().__init__()
        self.speed, self.clock = speed, clock
        self.was_timed = False

    def work(self, round_number: int, batch_size: int, theta: Any, budget: Budget | None = None) -> Update:
        self.was_timed = budget is not None
        done = 1
        self.clock.now_s += 1.0
        while done < batch_size and (budget is None or budget.allows(1, 1)):
            done, self.clock.now_s = done + 1, self.clock.now_s + 1.0
        return dataclasses.replace(super().work(round_number, batch_size, theta), trajectories=done)


@pytest.mark.parametrize(
    ("speed", "time_left_s", "expected"),
    [
        (Speed(0, 1), 3.0, 2),
        (Speed(0, 1), 0.0, 1),
        (Speed(0, 1), 60.0, 4),
        (Speed(0, 1), None, 4),
        (Speed(0, 0), 3.0, 4),
        (Speed(), 3.0, 4),
    ],
)
def test_an_agent_heeds_the_time_that_the_server_says_is_left(
    speed: Speed, time_left_s: float | None, expected: int
) -> None:
    clock, line = Clock(), Line(time_left_s)
    worker = Timed(speed, clock)
    Agent(2, cast(Calls, line), lambda _: cast(Worker, worker), clock).run()
    assert [report.trajectories for report in line.reports] == [expected]
    assert worker.was_timed == (bool(speed.min_trajectories) and time_left_s is not None)


def test_the_server_says_how_much_time_is_left(tmp_path: Path) -> None:
    """A round whose clock has not started has all of it; then it runs down; once the deadline has passed it is 0."""

    async def scenario() -> None:
        async with serving(tmp_path, idle_federation(3, rounds=2, round_timeout_s=1.0), joining_grace_s=1e6) as door:
            while (reply := await door.poll(1, 0)).state != pb.AwaitRoundReply.STATE_OPEN:
                pass
            assert reply.time_left_s == 1.0, "two agents have not come"
            for agent in (2, 3):
                await door.open_round(agent, 0)
            reply = await door.poll(1, 0)
            first_s = reply.time_left_s
            assert 0.0 < first_s <= 1.0
            await asyncio.sleep(0.05)
            assert (await door.poll(1, 0)).time_left_s < first_s
            while (reply := await door.poll(1, 0)).time_left_s > 0.0:
                await asyncio.sleep(0.02)
            assert reply.HasField("time_left_s")
            assert (await door.poll(1, 0)).time_left_s == 0.0, "below the quorum: every vote is waited for"

    asyncio.run(scenario())
