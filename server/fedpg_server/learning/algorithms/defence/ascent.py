"""Whether μ has led uphill in recent rounds, by the server's own gradients: evidence that no agent can forge."""

from __future__ import annotations

import math

from fedpg_common.learning.parameters import Vector

from fedpg_server.learning.algorithms.defence.memory import Memory, numbers_in, to_vector

FORGET = 0.8
CONFIDENCE = 1.64
"""Standard errors above zero: one in twenty, where there is nothing but noise."""
NAME = "ascent"


def learn_ascent(memory: Memory, slope: float) -> tuple[float, dict[str, Vector]]:
    """How many standard errors the mean slope is above zero after a round with this `slope`, and the memory after it.

    A slope is ⟨μ, g⟩/|μ| in units of the noise of the server's gradient g, which is independent of μ: without a signal
    it is as often positive as negative. Its variance, which depends on how much of the noise lies along μ, is that of
    the slopes themselves.
    """
    total, squares, count, count_squares = numbers_in(memory, NAME, 4)
    total = FORGET * total + slope
    squares = FORGET * squares + slope**2
    count = FORGET * count + 1.0
    count_squares = FORGET**2 * count_squares + 1.0
    error = math.sqrt(squares * count_squares / count)
    return (total / error if error > 0 else 0.0), {NAME: to_vector([total, squares, count, count_squares])}


def is_confirmed(errors: float) -> bool:
    """Whether that many standard errors are too many for noise."""
    return errors > CONFIDENCE
