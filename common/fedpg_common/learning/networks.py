"""A multilayer perceptron in numpy, for acting and for its gradient.

At a few dozen rows a call costs what it costs to make it, and numpy's cost a fraction of an autograd framework's; at
thousands of rows this is three matrix products a layer either way.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedpg_common.learning.parameters import ParameterSpec, TensorSpec, Vector

Array = NDArray[np.float32]

_ZERO = np.zeros((), np.float32)
_ONE = np.ones((), np.float32)
# Adding a row to every row costs several times as much as adding an equal array, up to about this many rows.
_REPEATED_ROWS = 64


def layer_tensors(sizes: tuple[int, ...]) -> tuple[TensorSpec, ...]:
    """Weight (out, in) and bias (out,) of the linear layers between consecutive sizes, none for a single size."""
    return tuple(
        tensor
        for number in range(len(sizes) - 1)
        for tensor in (
            TensorSpec(f"layers.{number}.weight", (sizes[number + 1], sizes[number])),
            TensorSpec(f"layers.{number}.bias", (sizes[number + 1],)),
        )
    )


class Network:
    """The layers of `layer_tensors` at fixed parameters, with the activation between them and none after the last."""

    def __init__(self, spec: ParameterSpec, theta: Vector, activation: str) -> None:
        """Copies the layers' tensors out of `theta` (d,). `activation` is relu or tanh."""
        views = spec.views(theta)
        self._names = [name.removesuffix(".bias") for name in views if name.endswith(".bias")]
        self._weights = [views[f"{name}.weight"].T.copy() for name in self._names]
        self._biases = [views[f"{name}.bias"][None].repeat(_REPEATED_ROWS, axis=0) for name in self._names]
        self._relu = activation == "relu"
        self._count = -1
        self._layers: list[tuple[Array, Array]] = []

    def forward(self, x: Array) -> list[Array]:
        """The inputs (n, D), then what each layer hands on; the last element is the network's output."""
        if len(x) != self._count:
            self._lay_out(len(x))
        values = [x]
        for weight, bias in self._layers:
            if len(values) > 1:
                x = np.maximum(x, _ZERO, out=x) if self._relu else np.tanh(x, out=x)
            x = x.dot(weight)
            np.add(x, bias, x)
            values.append(x)
        return values

    def _lay_out(self, count: int) -> None:
        """Prepare each layer's weight (in, out) and its bias, to be added to `count` rows."""
        rows = slice(count) if count <= _REPEATED_ROWS else 0
        self._layers = [(weight, bias[rows]) for weight, bias in zip(self._weights, self._biases, strict=True)]
        self._count = count

    def backward(self, values: list[Array], slope: Array, gradient: dict[str, Array]) -> None:
        """Write ∂f/∂tensor for every tensor of the layers into `gradient`, by name.

        `values` are those of `forward`; `slope` (n, outputs) is ∂f/∂output of each row.
        """
        for number in reversed(range(len(self._names))):
            inputs = values[number]
            np.dot(slope.T, inputs, out=gradient[f"{self._names[number]}.weight"])
            np.add.reduce(slope, axis=0, out=gradient[f"{self._names[number]}.bias"])
            if number:
                slope = slope.dot(self._weights[number].T)
                slope *= inputs > _ZERO if self._relu else _ONE - inputs * inputs
