"""What the kernels compute."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Indices = NDArray[np.int64]


class Mlp(Protocol):
    """A categorical policy's network at fixed parameters.

    Linear layers with an activation between them; the logits pass through tanh. All sums are in single precision and in
    the order of the inputs; exp, log and tanh are computed in double precision and rounded to single.
    """

    def act(self, observations: Floats, uniforms: Floats | None) -> Indices:
        """An action for each row of (n, D), shape (n,): drawn with `uniforms` (n,), or the first of the most likely."""
        ...

    def gradient(
        self, observations: Floats, actions: Indices, advantages: Floats, reference: Floats | None, scale: float
    ) -> tuple[Floats, Floats, Floats]:
        """Σ_t c_t ∇ log π(a_t|s_t), shape (d,), log π (n,) and ω (n,), with c_t = A_t ω_t · scale.

        ω_t = exp(log π − reference_t), or 1 without a reference. Rows are summed in single precision, 64 at a time,
        and these sums in double precision.
        """
        ...

    def cartpole(
        self, physics: Doubles, seeds: Indices, horizon: int, uniforms: Floats | None
    ) -> tuple[Floats, Indices, Indices]:
        """CartPole-v1 in lock-step: observations (n, 4), actions (n,) and episodes (n,) as in `rollouts.sample`.

        `physics` (6,) are gravity, the pole's mass, the total mass, half the pole's length, that length times the
        pole's mass, and the force. `uniforms` has a number for each step of `len(seeds) * horizon`, used in the order
        of the rows.
        """
        ...


class Kernels(Protocol):
    """A set of kernels."""

    def open_mlp(self, sizes: tuple[int, ...], activation: str, theta: Floats) -> Mlp:
        """The network with layers between `sizes`: each has its weight (out, in) and then its bias (out) in `theta`."""
        ...

    def advantages(self, rewards: Doubles, episodes: Indices, count: int, gamma: float) -> Floats:
        """Whitened rewards-to-go of `count` episodes, shape (n,): see `gradient.advantages`."""
        ...

    def functions(self, x: Doubles) -> tuple[Doubles, Doubles, Doubles]:
        """exp(x), ln|x| and tanh(x) of each element, as the kernels compute them."""
        ...
