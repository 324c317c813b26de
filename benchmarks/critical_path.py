"""What a round waits for when each agent has a machine of its own: one agent, and then the server.

The agent samples B trajectories and computes their gradient. The server takes N_t inner steps of b trajectories, N_t at
its mean (B + b) / b, and plays ten greedy episodes, which the next round does not wait for.

The first table has CPU time on one core. Its last column is what the inner loop would cost at the agent's pace: it
samples N_t b trajectories against B, and computes two gradients of each but those of the first step, where both are the
same. The second table has the time on the clock, with one core for the agent and all that this process may use for the
server.

Usage: python benchmarks/critical_path.py [--repeats N]
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from dataclasses import dataclass
from functools import partial

import mujoco
import numpy as np
from fedpg_common.bootstrap import use_one_thread
from fedpg_common.environments import make_environments
from fedpg_common.environments.rollouts import rollout
from fedpg_common.learning.aggregators import RoundPlan
from fedpg_common.learning.policies import make_policy
from fedpg_common.machine import cores
from fedpg_server.learning.algorithms.adam import fresh
from fedpg_server.learning.algorithms.base import Tools
from fedpg_server.learning.algorithms.inner_loop import variance_reduced_steps
from fedpg_server.learning.learner import EVALUATION_EPISODES
from numpy.typing import NDArray
from sampling import CASES, Case, agent_round, timed

START_S = 2.0
"""In which what helps the server's process has started."""
TRIES = 3
LEAST_S = 0.02
"""How long each of them takes at least: short ones are repeated."""


@dataclass(frozen=True)
class Path:
    """Seconds of the parts of a round."""

    agent_s: float
    inner_s: float
    """Of E[N_t] steps."""
    evaluation_s: float
    at_the_agents_pace_s: float = math.nan
    """The inner loop, if a trajectory and a gradient took it as long as they take the agent."""


class Round:
    """The parts of a case's round."""

    def __init__(self, case: Case, cores_of_server: int) -> None:
        """Environments of the agent and of the server. What starts in the background has started on return."""
        self.task = task = case.task
        self._agents, self._servers = make_environments(task), make_environments(task)
        self._servers.use_threads(cores_of_server)
        self._policy = make_policy(task, self._agents.observation_size, self._agents.action_space)
        self._theta = case.make_theta(self._policy)
        self._tools = Tools(task, 10, self._policy, 1, self._servers)
        self.steps = round((task.batch_size + task.mini_batch_size) / task.mini_batch_size)
        until_s = time.perf_counter() + (START_S if cores_of_server > 1 else 0.0)
        while time.perf_counter() < until_s:
            self.inner(0)

    def agent(self, number: int) -> None:
        """What an agent computes."""
        agent_round(self.task, self._agents, self._policy, self._theta, self._seeds(number))

    def sampling(self, number: int) -> None:
        """The agent's trajectories alone."""
        horizon, rng = self.task.horizon, np.random.default_rng(2)
        rollout(self._agents, self._policy, self._theta, horizon, self._seeds(number), rng)

    def inner(self, number: int) -> None:
        """All inner steps: the first is cheaper than the others."""
        plan, mu = RoundPlan(number, self.task.batch_size, self.steps), np.zeros_like(self._theta)
        _, report = variance_reduced_steps(self._tools, fresh(self._theta), plan, mu)
        assert report.steps_taken == self.steps, "with a step of zero, no importance ratio leaves its bounds"

    def evaluation(self, number: int) -> None:
        """The ten greedy episodes."""
        self._tools.play_greedily(self._theta, number, EVALUATION_EPISODES)

    def close(self) -> None:
        """Release the environments."""
        self._agents.close()
        self._servers.close()

    def _seeds(self, number: int) -> NDArray[np.int64]:
        return np.arange(self.task.batch_size) + number * self.task.batch_size


def measure(case: Case, repeats: int) -> Path:
    """CPU time of the parts of a round, in turns, on one core."""
    played = Round(case, 1)
    parts = (played.agent, played.sampling, played.inner, played.evaluation)
    times: list[list[float]] = [[] for _ in parts]
    for number in range(1, repeats + 1):  # other episodes each time: some are much longer than others
        for part, seconds in zip(parts, times, strict=True):
            seconds.append(timed(partial(part, number)))
    played.close()
    agent_s, sampling_s, inner_s, evaluation_s = map(statistics.fmean, times)
    task = case.task
    share = task.mini_batch_size / task.batch_size
    pace_s = share * (played.steps * sampling_s + (2 * played.steps - 1) * (agent_s - sampling_s))
    return Path(agent_s, inner_s, evaluation_s, pace_s)


def measure_on_clock(case: Case, repeats: int, cores_of_server: int) -> Path:
    """Time on the clock, in turns, the best of three for each: whatever else the machine does only adds to it."""
    played = Round(case, cores_of_server)
    parts = (played.agent, played.inner, played.evaluation)
    times: list[list[float]] = [[] for _ in parts]
    for number in range(1, repeats + 1):
        best = [math.inf] * len(parts)
        for _ in range(TRIES):
            for place, part in enumerate(parts):
                best[place] = min(best[place], timed(partial(part, number), LEAST_S, time.perf_counter))
        for seconds, one in zip(times, best, strict=True):
            seconds.append(one)
    played.close()
    return Path(*map(statistics.fmean, times))


def main() -> None:
    """Measure all cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=12, help="rounds that are timed; the mean counts")
    arguments = parser.parse_args()
    everything = cores()
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
    print()
    print(f"| task | policy | agent, one core | inner loop, {everything} cores | evaluation "
          "| server / agent, waiting for it | not waiting |")  # fmt: skip
    print("|---|---|---:|---:|---:|---:|---:|")
    for case in CASES:
        path = measure_on_clock(case, arguments.repeats, everything)
        print(
            f"| {case.task.name} | {case.name} | {1e3 * path.agent_s:.2f} ms | {1e3 * path.inner_s:.2f} ms "
            f"| {1e3 * path.evaluation_s:.1f} ms | {(path.inner_s + path.evaluation_s) / path.agent_s:.2f} "
            f"| {path.inner_s / path.agent_s:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
