"""What a round waits for when each agent has a machine of its own: one agent, and then the server.

CPU time on one core. The agent samples B trajectories and computes their gradient. The server takes N_t inner steps of
b trajectories, N_t at its mean (B + b) / b, and plays ten greedy episodes, which the next round does not wait for.

The last column is what the inner loop would cost at the agent's pace: it samples N_t b trajectories against B, and
computes two gradients of each but those of the first step, where both are the same.

Usage: python benchmarks/critical_path.py [--repeats N]
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass
from functools import partial

import mujoco
import numpy as np
from fedpg_common.bootstrap import use_one_thread
from fedpg_common.environments import make_environments
from fedpg_common.environments.rollouts import rollout
from fedpg_common.learning.aggregators import RoundPlan
from fedpg_common.learning.policies import make_policy
from fedpg_server.learning.algorithms.adam import fresh
from fedpg_server.learning.algorithms.base import Tools
from fedpg_server.learning.algorithms.inner_loop import variance_reduced_steps
from fedpg_server.learning.learner import EVALUATION_EPISODES
from sampling import CASES, Case, agent_round, timed


@dataclass(frozen=True)
class Path:
    """CPU seconds of the parts of a round."""

    agent_s: float
    inner_s: float
    """Of E[N_t] steps."""
    evaluation_s: float
    at_the_agents_pace_s: float
    """The inner loop, if a trajectory and a gradient took it as long as they take the agent."""


def measure(case: Case, repeats: int) -> Path:
    """Time the parts of a round in turns."""
    task = case.task
    environments = make_environments(task)
    policy = make_policy(task, environments.observation_size, environments.action_space)
    theta = case.make_theta(policy)
    tools = Tools(task, 10, policy, 1, environments)
    state, mu = fresh(theta), np.zeros_like(theta)
    steps = round((task.batch_size + task.mini_batch_size) / task.mini_batch_size)

    def work(part: str, number: int) -> None:
        seeds = np.arange(task.batch_size) + number * task.batch_size
        if part == "agent":
            agent_round(task, environments, policy, theta, seeds)
        elif part == "sampling":
            rollout(environments, policy, theta, task.horizon, seeds, np.random.default_rng(2))
        elif part == "inner":
            # All of them: the first is cheaper than the others.
            _, report = variance_reduced_steps(tools, state, RoundPlan(number, task.batch_size, steps), mu)
            assert report.steps_taken == steps, "with a step of zero, no importance ratio leaves its bounds"
        else:
            tools.play_greedily(theta, number, EVALUATION_EPISODES)

    parts = ("agent", "sampling", "inner", "evaluation")
    times: dict[str, list[float]] = {part: [] for part in parts}
    for number in range(1, repeats + 1):  # other episodes each time: some are much longer than others
        for part in parts:
            times[part].append(timed(partial(work, part, number)))
    environments.close()
    agent_s, sampling_s, inner_s, evaluation_s = (statistics.fmean(times[part]) for part in parts)
    share = task.mini_batch_size / task.batch_size
    pace_s = share * (steps * sampling_s + (2 * steps - 1) * (agent_s - sampling_s))
    return Path(agent_s, inner_s, evaluation_s, pace_s)


def main() -> None:
    """Measure all cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=12, help="rounds that are timed; the mean counts")
    arguments = parser.parse_args()
    use_one_thread()
    mujoco.set_mju_user_warning(lambda _: None)  # else it writes what it thinks of Gymnasium's model into a file here
    print("| task | policy | agent | inner loop | evaluation | server / agent, waiting for it | not waiting "
          "| at the agent's pace |")  # fmt: skip
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for case in CASES:
        path = measure(case, arguments.repeats)
        print(
            f"| {case.task.name} | {case.name} | {1e3 * path.agent_s:.2f} ms | {1e3 * path.inner_s:.2f} ms "
            f"| {1e3 * path.evaluation_s:.1f} ms | {(path.inner_s + path.evaluation_s) / path.agent_s:.2f} "
            f"| {path.inner_s / path.agent_s:.2f} | {path.at_the_agents_pace_s / path.agent_s:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
