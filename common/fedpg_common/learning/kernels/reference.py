"""The kernels in numpy: what kernels.c computes, operation by operation, so that the bits are the same."""

from __future__ import annotations

import math
import sys
from itertools import pairwise

import numpy as np

from fedpg_common.learning.kernels.interface import Doubles, Floats, Indices, Mlp

GRADIENT_BLOCK = 64
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
SHIFT = 6755399441055744.0
"""3 · 2^51: adding it to a double rounds that to a whole number."""
SQRT_HALF_BITS = 0x3FE6A09E667F3BCD
TIME_STEP_S, POSITION_LIMIT, ANGLE_LIMIT_RAD = 0.02, 2.4, 12.0 * 2.0 * math.pi / 360.0


def exponential(x: Doubles) -> Doubles:
    """e^x: x = n ln 2 + r, the Taylor series of e^r by Horner's rule, and 2^n."""
    bounded = np.clip(x, -708.0, 709.0)
    shifted = bounded * 1.4426950408889634 + SHIFT
    power = shifted - SHIFT
    r = (bounded - power * LN2_HIGH) - power * LN2_LOW
    total = np.full_like(r, 1.0 / math.factorial(14))
    for n in range(13, -1, -1):
        total = total * r + 1.0 / math.factorial(n)
    bits = (shifted.view(np.int64) + 1023).astype(np.uint64) << np.uint64(52)
    value = total * bits.view(np.float64)
    value = np.where(x < -708.0, 0.0, value)
    value = np.where(x > 709.0, np.inf, value)
    return np.where(np.isnan(x), x, value)


def logarithm(x: Doubles) -> Doubles:
    """Ln x of positive, normal numbers: x = 2^n m with m in [√½, √2), and ln m = 2 artanh((m − 1)/(m + 1))."""
    bits = np.ascontiguousarray(x, np.float64).view(np.uint64)
    moved = bits - np.uint64(SQRT_HALF_BITS)
    power = (moved.view(np.int64) >> 52).astype(np.float64)
    m = (bits - (moved & np.uint64(0xFFF0000000000000))).view(np.float64)
    s = (m - 1.0) / (m + 1.0)
    square = s * s
    total = np.full_like(s, 1.0 / 23.0)
    for n in range(21, 0, -2):
        total = total * square + 1.0 / n
    return np.asarray(power * LN2_HIGH + (power * LN2_LOW + 2.0 * s * total))


def hyperbolic_tangent(x: Doubles) -> Doubles:
    """Tanh x from e^(−2|x|), or near zero from its series, where that form cancels."""
    with np.errstate(over="ignore", invalid="ignore"):  # of the series far from zero, which is not used there
        return _hyperbolic_tangent(x)


def _hyperbolic_tangent(x: Doubles) -> Doubles:
    size = np.abs(x)
    square = x * x
    e = exponential(-2.0 * np.minimum(size, 20.0))
    large = (1.0 - e) / (1.0 + e)
    total = np.full_like(square, -1382.0 / 155925.0)
    for coefficient in (62.0 / 2835.0, -17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0):
        total = total * square + coefficient
    value = np.where(size < 0.05, size + size * (square * total), large)
    return np.where(np.isnan(x), x, np.where(x < 0.0, -value, value))


def _exp(x: Floats) -> Floats:
    return exponential(x.astype(np.float64)).astype(np.float32)


def _tanh(x: Floats) -> Floats:
    return hyperbolic_tangent(x.astype(np.float64)).astype(np.float32)


def _multiply(x: Floats, w: Floats) -> Floats:
    """X w for (n, in) and (in, out), the products added in the order of the inputs."""
    y = np.zeros((len(x), w.shape[1]), np.float32)
    for k in range(w.shape[0]):
        y += x[:, k, None] * w[k]
    return y


class Reference:
    """`Kernels` in numpy."""

    def open_mlp(self, sizes: tuple[int, ...], activation: str, theta: Floats) -> Mlp:
        """See `Kernels.open_mlp`."""
        return ReferenceMlp(sizes, activation, theta)

    def advantages(self, rewards: Doubles, episodes: Indices, count: int, gamma: float) -> Floats:
        """See `Kernels.advantages`."""
        lengths = np.bincount(episodes, minlength=count)
        last, values = [0.0] * count, [0.0] * len(rewards)
        for t in range(len(rewards) - 1, -1, -1):
            episode = int(episodes[t])
            last[episode] = values[t] = float(rewards[t]) + gamma * last[episode]
        to_go = np.array(values)
        means = np.bincount(episodes, to_go, count) / lengths
        deviations = to_go - means[episodes]
        squares = np.bincount(episodes, deviations * deviations, count)
        std = np.sqrt(squares / np.maximum(lengths - 1, 1))
        # A recursion of T steps is exact to about T roundings of the values that it goes through.
        rounding = 8.0 * lengths * sys.float_info.epsilon * np.abs(means)
        scale = np.divide(1.0, std, out=np.zeros(count), where=std > rounding)
        return np.asarray(deviations * scale[episodes], np.float32)

    def functions(self, x: Doubles) -> tuple[Doubles, Doubles, Doubles]:
        """See `Kernels.functions`."""
        return exponential(x), logarithm(np.abs(x)), hyperbolic_tangent(x)


class ReferenceMlp:
    """`Mlp` in numpy."""

    def __init__(self, sizes: tuple[int, ...], activation: str, theta: Floats) -> None:
        """Copies the layers out of `theta`."""
        self._is_relu = activation == "relu"
        self._layers, start = [], 0
        for inputs, outputs in pairwise(sizes):
            middle, end = start + inputs * outputs, start + inputs * outputs + outputs
            self._layers.append((theta[start:middle].reshape(outputs, inputs).copy(), theta[middle:end].copy()))
            start = end

    def _forward(self, x: Floats) -> list[Floats]:
        values = [x]
        for number, (weight, bias) in enumerate(self._layers):
            if number:
                x = np.where(x > 0.0, x, np.float32(0.0)) if self._is_relu else _tanh(x)
                values[-1] = x
            x = _multiply(x, weight.T) + bias
            values.append(x)
        return values

    def act(self, observations: Floats, uniforms: Floats | None) -> Indices:
        """See `Mlp.act`."""
        logits = _tanh(self._forward(np.asarray(observations, np.float32))[-1])
        if uniforms is None:
            return np.asarray(logits.argmax(axis=1), np.int64)
        cumulative = np.add.accumulate(_exp(logits), axis=1)
        points = uniforms * cumulative[:, -1]
        return np.asarray((cumulative[:, :-1] <= points[:, None]).sum(axis=1), np.int64)

    def gradient(
        self, observations: Floats, actions: Indices, advantages: Floats, reference: Floats | None, scale: float
    ) -> tuple[Floats, Floats, Floats]:
        """See `Mlp.gradient`."""
        totals = [np.zeros(weight.size + bias.size) for weight, bias in self._layers]
        log_probs, ratios = np.empty(len(actions), np.float32), np.ones(len(actions), np.float32)
        for start in range(0, len(actions), GRADIENT_BLOCK):
            rows = slice(start, start + GRADIENT_BLOCK)
            values = self._forward(np.asarray(observations[rows], np.float32))
            logits = _tanh(values[-1])
            weights = _exp(logits)
            sums = np.add.accumulate(weights, axis=1)[:, -1]
            taken = np.arange(len(logits)), actions[rows]
            log_probs[rows] = logits[taken] - logarithm(sums.astype(np.float64)).astype(np.float32)
            if reference is not None:
                change = log_probs[rows].astype(np.float64) - reference[rows].astype(np.float64)
                ratios[rows] = exponential(change).astype(np.float32)
            c = (advantages[rows] * ratios[rows]) * np.float32(scale)
            hit = np.zeros_like(logits)
            hit[taken] = 1.0
            slope = ((hit - weights / sums[:, None]) * c[:, None]) * (1.0 - logits * logits)
            self._add(values, slope, totals)
        return np.concatenate(totals).astype(np.float32), log_probs, ratios

    def _add(self, values: list[Floats], slope: Floats, totals: list[Doubles]) -> None:
        """Add a block's gradient, its rows in order, to the totals of each layer."""
        for number in range(len(self._layers) - 1, -1, -1):
            x, (weight, _) = values[number], self._layers[number]
            sums, slope_sums = np.zeros(weight.shape, np.float32), np.zeros(weight.shape[0], np.float32)
            for row in range(len(x)):
                sums += slope[row, :, None] * x[row]
                slope_sums += slope[row]
            totals[number] += np.concatenate((sums.reshape(-1), slope_sums))
            if number:
                before = _multiply(slope, weight)
                slope = np.where(x > 0.0, before, np.float32(0.0)) if self._is_relu else before * (1.0 - x * x)

    def cartpole(
        self, physics: Doubles, seeds: Indices, horizon: int, uniforms: Floats | None
    ) -> tuple[Floats, Indices, Indices]:
        """See `Mlp.cartpole`."""
        states = np.array(
            [np.random.Generator(np.random.PCG64(seed)).uniform(-0.05, 0.05, 4) for seed in seeds.tolist()]
        )
        states, live = states.reshape(-1, 4), np.arange(len(seeds))
        observations, actions, episodes, used = [np.empty((0, 4), np.float32)], [live[:0]], [live[:0]], 0
        for _ in range(horizon):
            if not len(live):
                break
            observations.append(states.astype(np.float32))
            points = None if uniforms is None else uniforms[used : used + len(live)]
            actions.append(self.act(observations[-1], points))
            episodes.append(live)
            used += len(live)
            states, has_ended = _cartpole_step(physics, states, actions[-1])
            states, live = states[~has_ended], live[~has_ended]
        return np.concatenate(observations), np.concatenate(actions), np.concatenate(episodes)


def _cartpole_step(
    physics: Doubles, states: Doubles, actions: Indices
) -> tuple[Doubles, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """One Euler step in Gymnasium's order of operations: the states (n, 4) after it, and which episodes have ended."""
    gravity, pole_mass, total_mass, half_length, pole_mass_length, push = physics.tolist()
    x, x_dot, angle, angle_dot = states.T
    force = np.where(actions == 1, push, -push)
    cosine, sine = np.cos(angle), np.sin(angle)
    pull = (force + pole_mass_length * (angle_dot * angle_dot) * sine) / total_mass
    angle_acc = (gravity * sine - cosine * pull) / (
        half_length * (4.0 / 3.0 - pole_mass * (cosine * cosine) / total_mass)
    )
    x_acc = pull - pole_mass_length * angle_acc * cosine / total_mass
    after = np.stack(
        (
            x + TIME_STEP_S * x_dot,
            x_dot + TIME_STEP_S * x_acc,
            angle + TIME_STEP_S * angle_dot,
            angle_dot + TIME_STEP_S * angle_acc,
        ),
        axis=1,
    )
    return after, (np.abs(after[:, 0]) > POSITION_LIMIT) | (np.abs(after[:, 2]) > ANGLE_LIMIT_RAD)
