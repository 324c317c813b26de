"""How fast an agent samples, against the bare simulator, on one core.

An agent's batch (acting, stepping, advantages, gradient) is timed in turns with a bare loop that replays the very same
episodes, one after the other, on a single instance: Gymnasium's environment without wrappers, and for HalfCheetah
nothing but MuJoCo. Prints a Markdown table of medians of CPU time, in which the waits for other processes do not count:

    python benchmarks/sampling.py [--repeats N] [--json FILE]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
from fedpg_common.bootstrap import use_one_thread
from fedpg_common.environments import EnvironmentBatch, make_environments
from fedpg_common.environments.rollouts import rollout
from fedpg_common.learning.gradient import advantages, estimate
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.policies import Policy, make_policy
from fedpg_common.learning.trajectories import Trajectories
from fedpg_common.tasks import CARTPOLE, HALF_CHEETAH, LUNAR_LANDER, Task
from numpy.typing import NDArray

# Linear controllers, one row a logit with its constant last: they keep episodes going, as a trained policy does.
BALANCE = [[-0.5, -1.0, -10.0, -5.0, 0.0], [0.5, 1.0, 10.0, 5.0, 0.0]]
HOVER = [
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -3.0],
    [7.5, 0.0, 15.0, 0.0, -15.0, -30.0, 0.0, 0.0, -3.0],
    [0.0, -3.0, 0.0, -10.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    [-7.5, 0.0, -15.0, 0.0, 15.0, 30.0, 0.0, 0.0, -3.0],
]


@dataclasses.dataclass(frozen=True)
class Case:
    """A task, a policy and the ratio to reach."""

    task: Task
    name: str
    make_theta: Callable[[Policy], Vector]
    target: float


@dataclasses.dataclass(frozen=True)
class Figures:
    """What a case measured. Rates are environment steps per second."""

    task: str
    policy: str
    episodes: int
    mean_length: float
    agent_steps_per_s: float
    bare_steps_per_s: float
    ratio: float
    target: float


def initial(policy: Policy) -> Vector:
    """The parameters a run starts from."""
    return policy.initial_parameters(np.random.default_rng(1))


def controller(policy: Policy, rows: list[list[float]]) -> Vector:
    """θ of a network with two hidden layers whose logits before the last tanh are about rows · (s, 1).

    Pairs of hidden units carry each row and its negative through the layers; the rest stays near zero. The rows are
    scaled down on the way in, so that a tanh is nearly linear there, and up on the way out.
    """
    small, weights = 1e-2, np.asarray(rows, dtype=np.float32)
    theta = 1e-6 * initial(policy)
    views = policy.spec.views(theta)
    outputs = len(weights)
    views["layers.0.weight"][: 2 * outputs] = small * np.concatenate((weights[:, :-1], -weights[:, :-1]))
    views["layers.1.weight"][: 2 * outputs, : 2 * outputs] = np.eye(2 * outputs)
    views["layers.2.weight"][:, : 2 * outputs] = np.concatenate((np.eye(outputs), -np.eye(outputs)), axis=1) / small
    views["layers.2.bias"][:] = weights[:, -1]
    return theta


CASES = (
    Case(CARTPOLE, "initial", initial, 1.5),
    Case(CARTPOLE, "balancing", lambda policy: controller(policy, BALANCE), 1.5),
    Case(LUNAR_LANDER, "initial", initial, 0.8),
    Case(LUNAR_LANDER, "hovering", lambda policy: controller(policy, HOVER), 0.8),
    Case(HALF_CHEETAH, "initial", initial, 0.8),
)


def agent_round(
    task: Task, environments: EnvironmentBatch, policy: Policy, theta: Vector, seeds: NDArray[np.int64]
) -> Trajectories:
    """All that an honest agent computes in a round."""
    trajectories = rollout(environments, policy, theta, task.horizon, seeds, np.random.default_rng(2))
    estimate(policy, theta, trajectories, advantages(trajectories, task.gamma))
    return trajectories


def bare_environment(task: Task, seeds: NDArray[np.int64], actions: list[NDArray[Any]]) -> Callable[[], None]:
    """Replay on one environment, resets included."""
    environment: Any = gymnasium.make(task.environment).unwrapped

    def replay() -> None:
        for seed, episode in zip(seeds.tolist(), actions, strict=True):
            environment.reset(seed=seed)
            for action in episode:
                environment.step(action)

    return replay


def bare_mujoco(task: Task, seeds: NDArray[np.int64], actions: list[NDArray[Any]]) -> Callable[[], None]:
    """Replay on one MjData without Gymnasium: no observations, no rewards; starts are prepared beforehand."""
    environment: Any = gymnasium.make(task.environment).unwrapped
    model, data, frames = environment.model, environment.data, environment.frame_skip
    starts = []
    for seed in seeds.tolist():
        environment.reset(seed=seed)
        starts.append((data.qpos.copy(), data.qvel.copy()))

    def replay() -> None:
        for (qpos, qvel), episode in zip(starts, actions, strict=True):
            mujoco.mj_resetData(model, data)
            data.qpos[:], data.qvel[:] = qpos, qvel
            for action in episode:
                data.ctrl[:] = action
                mujoco.mj_step(model, data, frames)

    return replay


def measure(case: Case, repeats: int) -> Figures:
    """Time agent and bare loop in turns."""
    task = case.task
    environments = make_environments(task)
    policy = make_policy(task, environments.observation_size, environments.action_space)
    theta = case.make_theta(policy)
    seeds = np.arange(task.batch_size)

    def agent() -> Trajectories:
        return agent_round(task, environments, policy, theta, seeds)

    trajectories = agent()
    actions = [trajectories.actions[trajectories.episodes == i] for i in range(trajectories.count)]
    bare_replay = (bare_mujoco if task is HALF_CHEETAH else bare_environment)(task, seeds, actions)
    agent_s, bare_s = [], []
    for _ in range(repeats):
        agent_s.append(timed(agent))
        bare_s.append(timed(bare_replay))
    environments.close()
    return Figures(
        task=task.name,
        policy=case.name,
        episodes=trajectories.count,
        mean_length=trajectories.steps / trajectories.count,
        agent_steps_per_s=trajectories.steps / statistics.median(agent_s),
        bare_steps_per_s=trajectories.steps / statistics.median(bare_s),
        ratio=statistics.median(bare / agent for agent, bare in zip(agent_s, bare_s, strict=True)),
        target=case.target,
    )


def timed(work: Callable[[], Any], least_s: float = 0.1, clock: Callable[[], float] = time.process_time) -> float:
    """CPU seconds of one call, or those of another clock, over as many calls as take `least_s`."""
    calls, start = 0, clock()
    while True:
        work()
        calls += 1
        elapsed = clock() - start
        if elapsed >= least_s:
            return elapsed / calls


def main() -> None:
    """Measure all cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9, help="timings of each side, of which the median counts")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    use_one_thread()
    mujoco.set_mju_user_warning(lambda _: None)  # else it writes what it thinks of Gymnasium's model into a file here
    print("| task | policy | episodes | mean length | agent steps/s | bare steps/s | ratio | target |")
    print("|---|---|---|---|---|---|---|---|")
    results = []
    for case in CASES:
        row = measure(case, arguments.repeats)
        results.append(row)
        print(
            f"| {row.task} | {row.policy} | {row.episodes} | {row.mean_length:.0f} | {row.agent_steps_per_s:,.0f} "
            f"| {row.bare_steps_per_s:,.0f} | {row.ratio:.2f} | {row.target} |",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(
            json.dumps([dataclasses.asdict(row) for row in results], indent=2) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
