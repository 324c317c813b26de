"""Rounds of CartPole have the same bits with whatever code OpenBLAS and numpy choose, and on every processor with FMA.

A library chooses by the processor that it finds: OpenBLAS, numpy and the C library can be told to find a lesser one,
and qemu, where it is installed, pretends to be another one to all of them, and to the kernels.

Without fused operations the C library's sine and cosine differ in the last bit of one number in a thousand or so, and
with them a pole's angle: there it is the kernels alone, acting and gradients, that have the same bits.
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
KERNELS = """
import hashlib
import numpy as np
from fedpg_common.learning.kernels import is_compiled, kernels
assert is_compiled()
rng, digest = np.random.default_rng(5), hashlib.sha256()
for sizes, activation in (((4, 16, 16, 2), "relu"), ((8, 64, 64, 4), "tanh")):
    count = sum((before + 1) * after for before, after in zip(sizes, sizes[1:]))
    network = kernels().open_mlp(sizes, activation, (0.4 * rng.random(count) - 0.2).astype(np.float32))
    seen = rng.random((3000, sizes[0]), np.float32)
    actions = network.act(seen, rng.random(3000, np.float32))
    episodes = np.arange(3000) % 7
    weights = kernels().advantages(rng.random(3000), episodes, 7, 0.99)
    reference = rng.random(3000, np.float32) - 1.0
    for result in (actions, weights, *network.gradient(seen, actions, weights, reference, -1 / 3000)):
        digest.update(result.tobytes())
for result in kernels().functions(np.linspace(-30, 30, 9999) + 1e-3):
    digest.update(result.tobytes())
print(digest.hexdigest())
"""
LESSER = {
    "OpenBLAS": {"OPENBLAS_CORETYPE": "Prescott"},
    "OpenBLAS, another": {"OPENBLAS_CORETYPE": "Haswell"},
    "numpy": {"NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512_SKX X86_V3 X86_V4"},
}


WITHOUT_FMA = {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX2,-AVX2_Usable,-FMA,-FMA_Usable,-FMA4,-AVX"}
needs_qemu = pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="qemu-user is not installed")


def play(script: str, *emulator: str, **variables: str) -> str:
    """What a script prints in a process of its own."""
    done = subprocess.run(
        [*emulator, sys.executable, "-c", script], env={**os.environ, **variables}, capture_output=True, text=True,
        timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def here(script: str) -> str:
    """The same on this processor."""
    return play(script)


@pytest.mark.parametrize("variables", LESSER.values(), ids=list(LESSER))
def test_what_libraries_choose_for_a_lesser_processor_changes_no_bit(variables: dict[str, Any]) -> None:
    assert play(ROUNDS, **variables) == here(ROUNDS)


def test_the_kernels_have_nothing_from_the_c_library() -> None:
    assert play(KERNELS, **WITHOUT_FMA) == here(KERNELS)


@needs_qemu
def test_another_processor_computes_the_same_rounds() -> None:
    """Haswell has no vectors of 512 bits."""
    assert play(ROUNDS, "qemu-x86_64", "-cpu", "Haswell") == here(ROUNDS)


@needs_qemu
def test_the_kernels_need_no_fused_operations() -> None:
    """Nehalem has neither them nor AVX."""
    assert play(KERNELS, "qemu-x86_64", "-cpu", "Nehalem") == here(KERNELS)
