"""Long episodes of CartPole by compiled kernels, for comparing the bits that compilers and images give them.

It is run in images, too, as a script: it needs nothing of the tests.
"""

from __future__ import annotations

import hashlib

import numpy as np
from fedpg_common.environments import make_environments
from fedpg_common.environments.cartpole import CartPoleBatch
from fedpg_common.learning.kernels import kernels
from fedpg_common.learning.kernels.interface import Kernels
from fedpg_common.tasks import CARTPOLE


def digest_of_long_episodes(compiled: Kernels) -> str:
    """SHA-256 of 200 episodes of a linear controller: a difference in the last bit of an angle needs time to show."""
    environments = make_environments(CARTPOLE)
    assert isinstance(environments, CartPoleBatch)
    pushes = np.array([0.5, 1.0, 10.0, 5.0])
    theta = np.concatenate((pushes, -pushes, [0, 0], [-1, 1, 1, -1], [0, 0])).astype(np.float32)
    uniforms = np.random.default_rng(3).random(100_000, np.float32)
    results = compiled.open_mlp((4, 2, 2), "relu", theta).cartpole(environments.physics, np.arange(200), 500, uniforms)
    environments.close()
    assert len(results[1]) > 50_000
    return hashlib.sha256(b"".join(result.tobytes() for result in results)).hexdigest()


if __name__ == "__main__":
    print(digest_of_long_episodes(kernels()))
