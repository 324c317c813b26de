"""The networks that the published code starts with, for the reproduction of its figures and nothing else.

How soon a policy learns depends on the network it starts with (docs/results.md), and a published curve is the mean over
the networks of seeds 0 to 9. They have the distribution that every run draws from; only the generator is another.
"""

from __future__ import annotations

import math

from fedpg_common.learning.parameters import ParameterSpec, Vector


def published_parameters(spec: ParameterSpec, seed: int) -> Vector:
    """θ (d,) as PyTorch's generator gives it to the published code after `manual_seed(seed)`.

    Its layers first draw a start of their own, which the policy then draws over: so as many numbers are left out. Every
    tensor is uniform in ±1/√(size of its last dimension).
    """
    import torch  # takes long, and no other run needs it to start

    generator = torch.Generator().manual_seed(seed)
    torch.rand(spec.size, generator=generator)
    theta = torch.empty(spec.size)
    for tensor, place in spec.slices():
        bound = 1.0 / math.sqrt(tensor.shape[-1])
        theta[place].uniform_(-bound, bound, generator=generator)
    return theta.numpy()
