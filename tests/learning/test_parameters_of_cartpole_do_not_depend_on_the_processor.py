"""Rounds of CartPole have the same bits with whatever code the libraries choose for a processor, and on other models.

A library chooses by the processor that it finds: OpenBLAS, numpy and the C library can be told to find a lesser one,
and qemu, where it is installed, pretends to be another one to all of them, and to the kernels.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from typing import Any

import pytest

ROUNDS = """
import dataclasses
import numpy as np
from fedpg_common.choices import Choice
from fedpg_common.environments import make_environments
from fedpg_common.environments.rollouts import rollout
from fedpg_common.federation import Federation
from fedpg_common.learning.gradient import advantages, estimate
from fedpg_common.learning.policies import make_policy
from fedpg_common.tasks import CARTPOLE as TASK
from fedpg_server.learning.learner import Learner
from fedpg_server.learning.state import digest_of
environments = make_environments(TASK)
policy = make_policy(TASK, environments.observation_size, environments.action_space)
learner = Learner(Federation(TASK, 3, Choice("fedpg-br"), seed=11), environments, policy)
state = learner.initial_state()
for number in range(1, 9):
    plan, updates = learner.plan(number), {}
    for agent in (1, 2, 3):
        seeds = np.arange(plan.batch_size) + 1000 * agent + 100_000 * number
        batch = rollout(environments, policy, state.theta, TASK.horizon, seeds, np.random.default_rng(seeds[0]))
        updates[agent] = estimate(policy, state.theta, batch, advantages(batch, TASK.gamma)).gradient
    state = learner.improve(state, plan, updates).state
assert state.steps > 8
print(digest_of(state).hex(), learner.evaluate(state.theta, 8))
"""
LESSER = {
    "OpenBLAS": {"OPENBLAS_CORETYPE": "Prescott"},
    "OpenBLAS, another": {"OPENBLAS_CORETYPE": "Haswell"},
    "the C library": {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX2,-AVX2_Usable,-FMA,-FMA_Usable,-FMA4,-AVX"},
    "numpy": {"NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512_SKX X86_V3 X86_V4"},
}


def play(*emulator: str, **variables: str) -> str:
    """The digest of some rounds and their evaluation, in a process of its own."""
    done = subprocess.run(
        [*emulator, sys.executable, "-c", ROUNDS], env={**os.environ, **variables}, capture_output=True, text=True,
        timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def here() -> str:
    """The same on this processor."""
    return play()


@pytest.mark.parametrize("variables", LESSER.values(), ids=list(LESSER))
def test_what_libraries_choose_for_a_lesser_processor_changes_no_bit(variables: dict[str, Any]) -> None:
    assert play(**variables) == here()


@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="qemu-user is not installed")
@pytest.mark.parametrize("model", ["Nehalem", "Haswell"])
def test_another_processor_computes_the_same_bits(model: str) -> None:
    """Nehalem has neither AVX nor fused operations; Haswell has no vectors of 512 bits."""
    assert play("qemu-x86_64", "-cpu", model) == here()
