"""Sampling episodes with what there is beside FedPG: environment steps per second on one core.

The policy is the task's own network with the parameters a run starts from, and acts on all episodes at once. FedPG's
figure includes the gradient, which none of the others computes. What is not installed (pip install envpool
stable-baselines3), or does not run, has a dash in the table, and the reason on standard error.

Usage: python benchmarks/alternatives.py [--repeats N]
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
from collections.abc import Callable
from typing import Any

import gymnasium
import mujoco
import numpy as np
from fedpg_common.bootstrap import use_one_thread
from fedpg_common.environments import make_environments
from fedpg_common.learning.policies import Policy, make_policy
from fedpg_common.tasks import CARTPOLE, HALF_CHEETAH, LUNAR_LANDER, Task
from sampling import agent_round, initial, timed

STEPS = 100
"""Steps of all environments at once that one timing of the others takes."""
ENVPOOL_NAMES = {"CartPole-v1": "CartPole-v1", "LunarLander-v3": "LunarLander-v3", "HalfCheetah-v5": "HalfCheetah-v5"}

Measured = float | None
"""Steps per second; None for what is not installed, or does not run here."""


def fedpg(task: Task, policy: Policy) -> Callable[[], int]:
    """An agent's round: returns how many steps it took."""
    environments = make_environments(task)
    theta, seeds = initial(policy), np.arange(task.batch_size)
    return lambda: agent_round(task, environments, policy, theta, seeds).steps


def gymnasium_vector(task: Task, policy: Policy) -> Callable[[], int]:
    """Gymnasium's own vector of environments, stepped in this process."""
    batch = task.batch_size
    vector = gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make(task.environment)] * batch)
    return _acting(policy, task, lambda: vector.reset(seed=0)[0], lambda actions: vector.step(actions)[0])


def envpool_vector(task: Task, policy: Policy) -> Callable[[], int]:
    """EnvPool with one thread."""
    envpool: Any = importlib.import_module("envpool")
    pool = envpool.make_gymnasium(ENVPOOL_NAMES[task.environment], num_envs=task.batch_size, num_threads=1, seed=0)
    return _acting(policy, task, lambda: pool.reset()[0], lambda actions: pool.step(actions)[0])


def _acting(policy: Policy, task: Task, reset: Callable[[], Any], step: Callable[[Any], Any]) -> Callable[[], int]:
    """Act with the policy, some steps at a time, on whatever resets itself."""
    actor, rng = policy.actor(initial(policy)), np.random.default_rng(2)
    seen = [np.asarray(reset(), np.float32)]

    def run() -> int:
        for _ in range(STEPS):
            seen[0] = np.asarray(step(actor.sample(seen[0], rng)), np.float32)
        return STEPS * task.batch_size

    return run


def stable_baselines(task: Task, policy: Policy) -> Callable[[], int]:
    """The rollout collection of Stable-Baselines3's A2C, with a network of the same size."""
    importlib.import_module("torch").set_num_threads(1)
    sb3: Any = importlib.import_module("stable_baselines3")
    make_vec_env = importlib.import_module("stable_baselines3.common.env_util").make_vec_env
    vector = make_vec_env(task.environment, n_envs=task.batch_size, seed=0)
    model = sb3.A2C("MlpPolicy", vector, n_steps=STEPS, policy_kwargs={"net_arch": list(task.hidden)}, device="cpu")
    _, callback = model._setup_learn(total_timesteps=10**9)

    def run() -> int:
        model.collect_rollouts(vector, callback, model.rollout_buffer, STEPS)
        return STEPS * task.batch_size

    return run


CONTENDERS: dict[str, Callable[[Task, Policy], Callable[[], int]]] = {
    "FedPG, with the gradient": fedpg,
    "Gymnasium SyncVectorEnv": gymnasium_vector,
    "EnvPool, one thread": envpool_vector,
    "Stable-Baselines3 A2C": stable_baselines,
}


def measure(make: Callable[[Task, Policy], Callable[[], int]], task: Task, repeats: int) -> Measured:
    """Steps per CPU second, the median of several timings."""
    environments = make_environments(task)
    policy = make_policy(task, environments.observation_size, environments.action_space)
    environments.close()
    try:
        run = make(task, policy)
        steps = run()
    except Exception as error:  # of others' packages, or for want of them
        print(f"{make.__name__}, {task.name}: {type(error).__name__}: {error}", file=sys.stderr)
        return None
    return float(steps / statistics.median(timed(run) for _ in range(repeats)))


def main() -> None:
    """Measure all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="timings of each, of which the median counts")
    arguments = parser.parse_args()
    use_one_thread()
    mujoco.set_mju_user_warning(lambda _: None)  # else it writes what it thinks of Gymnasium's model into a file here
    tasks = (CARTPOLE, LUNAR_LANDER, HALF_CHEETAH)
    print("| steps/s |", " | ".join(task.name for task in tasks), "|")
    print("|---|" + "---:|" * len(tasks))
    for name, make in CONTENDERS.items():
        rates = [measure(make, task, arguments.repeats) for task in tasks]
        print(f"| {name} |", " | ".join("-" if rate is None else f"{rate:,.0f}" for rate in rates), "|")


if __name__ == "__main__":
    main()
