"""How the gradients of attackers lie to the honest ones, at the policy that a run starts with, or at a bolder one.

For each seed seven honest agents and three attackers sample one batch each. Prints a line per attack: the length of the
attackers' gradients in honest ones, the cosine to the mean of the seven, the attackers' own agreement, and what becomes
of the mean of all ten, which GPOMDP and SVRPG follow:

    python benchmarks/attack_gradients.py HalfCheetah-v5 [--seeds 3] [--attack constant-action]... [--mean-head 5]

`--mean-head` multiplies the weights of a Gaussian policy's means, so that its actions lie as far from zero as those of
one that has learned.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

import numpy as np
from fedpg_client.attacks import build_attacker
from fedpg_client.worker import Worker
from fedpg_common.bootstrap import use_one_thread
from fedpg_common.choices import Choice
from fedpg_common.derived_seeds import agent_seed
from fedpg_common.descriptions import describe
from fedpg_common.environments import GlobalRandom, make_environments
from fedpg_common.learning.policies import make_policy
from fedpg_common.learning.streams import Purpose, Role, stream
from numpy.typing import NDArray

AGENTS, ATTACKERS = 10, 3
ATTACKS = ("random-action", "constant-action", "sign-flipping")

Matrix = NDArray[np.float64]


def gradients(task: str, seed: int, attacks: Sequence[str], mean_head: float) -> dict[str, Matrix]:
    """The gradients of the honest agents, under "honest", and of the attackers under each attack, shape (agents, d)."""
    federation = describe(task, agents=AGENTS, seed=seed)
    environments = make_environments(federation.task, GlobalRandom(seed))
    policy = make_policy(federation.task, environments.observation_size, environments.action_space)
    theta = policy.initial_parameters(stream(seed, Role.SERVER, Purpose.INITIAL_PARAMETERS))
    if mean_head != 1.0:
        theta = theta.copy()
        place = next(place for tensor, place in policy.spec.slices() if tensor.name == "mean.weight")
        theta[place] *= np.float32(mean_head)
    members = range(1, AGENTS + 1)
    workers = [Worker(k, AGENTS, agent_seed(seed, k), federation.task, policy, environments) for k in members]

    def matrix(chosen: Sequence[Worker]) -> Matrix:
        batch = federation.task.batch_size
        return np.array([worker.work(1, batch, theta).gradient for worker in chosen], np.float64)

    found = {"honest": matrix(workers[ATTACKERS:])}
    for attack in attacks:
        attacker = build_attacker(Choice(attack))
        found[attack] = matrix([dataclasses.replace(worker, attacker=attacker) for worker in workers[:ATTACKERS]])
    environments.close()
    return found


def describe_attack(honest: Matrix, attackers: Matrix) -> str:
    """The line about an attack, without its name."""
    mean = honest.mean(axis=0)
    mixed = np.concatenate([honest, attackers]).mean(axis=0)
    length = np.linalg.norm(attackers, axis=1).mean() / np.linalg.norm(honest, axis=1).mean()
    to_mean = float(np.mean([cosine(vector, mean) for vector in attackers]))
    pairs = [cosine(attackers[i], attackers[j]) for i in range(ATTACKERS) for j in range(i)]
    return (
        f"{length:.1f} | {to_mean:.2f} | {float(np.mean(pairs)):.2f} | {cosine(mixed, mean):.2f} | "
        f"{np.linalg.norm(mixed) / np.linalg.norm(mean):.1f}"
    )


def cosine(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Of the angle between two vectors."""
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--attack", action="append")
    parser.add_argument("--mean-head", type=float, default=1.0)
    arguments = parser.parse_args()
    use_one_thread()
    print("| seed | attack | length | cosine to the honest mean | among attackers | mean of all: cosine | length |")
    print("|---|---|---|---|---|---|---|")
    for seed in range(arguments.seeds):
        found = gradients(arguments.task, seed, arguments.attack or ATTACKS, arguments.mean_head)
        honest = found.pop("honest")
        rest = [cosine(vector, np.delete(honest, k, axis=0).mean(axis=0)) for k, vector in enumerate(honest)]
        print(f"| {seed} | honest, to the other six | 1.0 | {np.mean(rest):.2f} | | | |")
        for attack, attackers in found.items():
            print(f"| {seed} | {attack} | {describe_attack(honest, attackers)} |", flush=True)


if __name__ == "__main__":
    main()
