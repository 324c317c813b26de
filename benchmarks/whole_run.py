"""What a whole run costs beside its learning: `fedpg train` against a plain loop in one process.

The plain loop has the same learner and the same agents, one after the other, without network, store, telemetry, log or
picture; its parameters are the run's, bit for bit. Both are whole processes, their imports included, timed by the clock
on the wall: nothing else should run beside them. The plain loop has one core; the agents of `fedpg train` share all.

Usage: python benchmarks/whole_run.py [--trajectories N]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TASK, AGENTS, SEED = "CartPole-v1", 10, 0


def plain_loop(trajectories: int) -> str:
    """A run in this process. Returns the digest of its last parameters."""
    from fedpg_common.bootstrap import use_one_thread
    from fedpg_common.descriptions import describe
    from fedpg_common.environments import make_environments
    from fedpg_common.learning.parameters import digest
    from fedpg_common.learning.policies import make_policy
    from fedpg_lab.local.in_process.agents import Agents
    from fedpg_server.learning.learner import Learner

    use_one_thread()
    federation = describe(TASK, agents=AGENTS, seed=SEED, trajectories=trajectories)
    task, environments = federation.task, make_environments(federation.task)
    policy = make_policy(task, environments.observation_size, environments.action_space)
    learner = Learner(federation, environments, policy)
    agents = Agents(federation, policy.spec)
    state, sampled, number = learner.initial_state(), 0, 0
    while sampled < trajectories:
        number += 1
        plan = learner.plan(number)
        works = agents.work(plan, state.theta, None)
        updates = {agent: work.gradient for agent, work in works.items()}
        result = learner.improve(state, plan, updates)
        learner.evaluate(result.state.theta, number)
        state, sampled = result.state, sampled + result.trajectories
    return digest(state.theta)


def timed(command: list[str], folder: str) -> tuple[float, str]:
    """The seconds that a process took, and what it printed."""
    started_s = time.perf_counter()
    quiet = subprocess.DEVNULL
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=quiet, text=True, check=True, cwd=folder)
    return time.perf_counter() - started_s, ended.stdout


def main() -> None:
    """Time both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trajectories", type=int, default=5000)
    parser.add_argument("--plain", action="store_true", help="run the plain loop here, and print its last digest")
    arguments = parser.parse_args()
    if arguments.plain:
        print(plain_loop(arguments.trajectories))
        return
    count = ["--trajectories", str(arguments.trajectories)]
    train = [sys.executable, "-m", "fedpg_lab", "train", "--task", TASK, "--agents", str(AGENTS), "--seed", str(SEED)]
    with tempfile.TemporaryDirectory() as folder:
        plain_s, printed = timed([sys.executable, str(Path(__file__).resolve()), "--plain", *count], folder)
        whole_s, _ = timed([*train, *count, "--out", folder, "--name", "run"], folder)
        summary = json.loads((Path(folder) / "run" / "summary.json").read_text(encoding="utf-8"))
    if printed.strip() != summary["parameters_digest"]:
        raise SystemExit("the plain loop and fedpg train came to different parameters")
    print("| trajectories | cores | plain loop | `fedpg train` | ratio |")
    print("|---:|---:|---:|---:|---:|")
    cores = len(os.sched_getaffinity(0))
    print(f"| {arguments.trajectories:,} | {cores} | {plain_s:.1f} s | {whole_s:.1f} s | {whole_s / plain_s:.2f} |")


if __name__ == "__main__":
    main()
