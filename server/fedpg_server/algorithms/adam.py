"""Adam on a state's named vectors."""

from __future__ import annotations

import numpy as np
import torch
from fedpg_common.parameters import Vector
from torch.optim.adam import adam  # what torch.optim.Adam computes with; the class itself takes seconds to load

from fedpg_server.state import ADAM_M, ADAM_V, THETA, State


def fresh(theta: Vector) -> State:
    """θ with Adam's moments at zero."""
    return State({THETA: theta, ADAM_M: np.zeros_like(theta), ADAM_V: np.zeros_like(theta)})


def adam_step(state: State, gradient: Vector, learning_rate: float) -> State | None:
    """One step of Adam (Kingma & Ba 2015; PyTorch's default settings) against `gradient` (d,). Changes no input.

    None where float32 cannot hold the result.
    """
    theta, m, v = (torch.tensor(state.vectors[name]) for name in (THETA, ADAM_M, ADAM_V))
    steps = torch.tensor(float(state.steps))
    adam(
        [theta], [torch.tensor(gradient)], [m], [v], [], [steps], foreach=False, amsgrad=False, beta1=0.9, beta2=0.999,
        lr=learning_rate, weight_decay=0.0, eps=1e-8, maximize=False,
    )  # fmt: skip
    vectors = {THETA: theta.numpy(), ADAM_M: m.numpy(), ADAM_V: v.numpy()}
    if not all(np.isfinite(vector).all() for vector in vectors.values()):
        return None
    return state.with_vectors(vectors, int(steps))
