"""The compiled kernels, called through ctypes, which lets go of the interpreter's lock meanwhile."""

from __future__ import annotations

import ctypes
import logging
import sys
import weakref
from functools import cache, partial
from pathlib import Path

import numpy as np

from fedpg_common.learning.kernels import reference
from fedpg_common.learning.kernels.interface import Doubles, Floats, Indices, Kernels, Mlp

NAME = "_kernels.so"
VERSION = 4
"""Of the functions' signatures: kernels.c has the same number."""

log = logging.getLogger(__name__)


@cache
def load() -> ctypes.CDLL | None:
    """The library, or None where it was not built, or for another version or machine."""
    try:
        library = ctypes.CDLL(str(Path(__file__).with_name(NAME)))
        version = library.fedpg_version()
    except (OSError, AttributeError):
        return None
    if version != VERSION:
        return None
    library.fedpg_open.restype = ctypes.c_void_p
    library.fedpg_close.argtypes = (ctypes.c_void_p, ctypes.py_object)  # of a weak reference, which it does not look at
    library.fedpg_cartpole_rollout.restype = ctypes.c_int64
    library.fedpg_act.argtypes = (ctypes.c_void_p, ctypes.c_int64, *(ctypes.c_void_p,) * 3)
    library.fedpg_loop_open.restype = ctypes.c_void_p
    library.fedpg_loop_close.argtypes = (ctypes.c_void_p, ctypes.py_object)  # as fedpg_close
    library.fedpg_loop_run.restype = ctypes.c_int64
    return library


def is_compiled() -> bool:
    """Whether the compiled kernels are there."""
    return load() is not None


@cache
def kernels() -> Kernels:
    """The compiled kernels, or else numpy's, with one warning."""
    library = load()
    if library is None:
        log.warning("the compiled kernels are missing: sampling is slower, with the same results; install FedPG again")
        return reference.Reference()
    return _Compiled(library)


class _Compiled:
    """`Kernels` in C."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def open_mlp(self, sizes: tuple[int, ...], activation: str, theta: Floats) -> Mlp:
        """See `Kernels.open_mlp`."""
        return _CompiledMlp(self._library, sizes, activation, theta)

    def advantages(self, rewards: Doubles, episodes: Indices, count: int, gamma: float) -> Floats:
        """See `Kernels.advantages`."""
        rewards, episodes = np.ascontiguousarray(rewards, np.float64), np.ascontiguousarray(episodes, np.int64)
        result, scratch = np.empty(len(rewards), np.float32), np.empty(len(rewards) + 4 * count)
        self._library.fedpg_advantages(
            ctypes.c_int64(len(rewards)), ctypes.c_int64(count), _at(rewards), _at(episodes), ctypes.c_double(gamma),
            ctypes.c_double(sys.float_info.epsilon), _at(scratch), _at(result),
        )  # fmt: skip
        return result

    def functions(self, x: Doubles) -> tuple[Doubles, Doubles, Doubles]:
        """See `Kernels.functions`."""
        x = np.ascontiguousarray(x, np.float64)
        exps, logs, tanhs = np.empty_like(x), np.empty_like(x), np.empty_like(x)
        self._library.fedpg_functions(ctypes.c_int64(x.size), _at(x), _at(exps), _at(logs), _at(tanhs))
        return exps, logs, tanhs


class _CompiledMlp:
    """`Mlp` in C."""

    def __init__(self, library: ctypes.CDLL, sizes: tuple[int, ...], activation: str, theta: Floats) -> None:
        self._library = library
        self._inputs, self._parameters = sizes[0], theta.size
        self._room = -1
        shape, flat = np.array(sizes, np.int32), np.ascontiguousarray(theta, np.float32)
        self._network = ctypes.c_void_p(
            library.fedpg_open(len(sizes) - 1, _at(shape), int(activation == "relu"), _at(flat))
        )
        if not self._network:
            raise MemoryError(f"no memory for a network of {theta.size} parameters")
        # Freed by C alone: Ctrl-C that comes while Python runs a finalizer is lost, and printed as a traceback.
        self._closing = weakref.ref(self, partial(library.fedpg_close, self._network))

    def act(self, observations: Floats, uniforms: Floats | None) -> Indices:
        """See `Mlp.act`. It is called at every time step, so that it asks no array where its numbers are."""
        rows = len(observations)
        if rows > self._room:
            self._make_room(rows)
        self._observations[:rows] = observations
        if uniforms is not None:
            self._uniforms[:rows] = uniforms
        uniforms_at = None if uniforms is None else self._uniforms_at
        done = self._library.fedpg_act(self._network, rows, self._observations_at, uniforms_at, self._actions_at)
        _check_memory(done)
        return self._actions[:rows].copy()

    def _make_room(self, rows: int) -> None:
        """For the arguments of `act`."""
        self._room = rows
        self._observations, self._uniforms = np.empty((rows, self._inputs), np.float32), np.empty(rows, np.float32)
        self._actions = np.empty(rows, np.int64)
        places = (array.ctypes.data for array in (self._observations, self._uniforms, self._actions))
        self._observations_at, self._uniforms_at, self._actions_at = places

    def gradient(
        self, observations: Floats, actions: Indices, advantages: Floats, reference: Floats | None, scale: float
    ) -> tuple[Floats, Floats, Floats]:
        """See `Mlp.gradient`."""
        observations = np.ascontiguousarray(observations, np.float32)
        actions, advantages = np.ascontiguousarray(actions, np.int64), np.ascontiguousarray(advantages, np.float32)
        gradient = np.empty(self._parameters, np.float32)
        log_probs, ratios = np.empty(len(actions), np.float32), np.empty(len(actions), np.float32)
        done = self._library.fedpg_categorical_gradient(
            self._network, ctypes.c_int64(len(actions)), _at(observations), _at(actions), _at(advantages),
            _at(reference), ctypes.c_float(scale), _at(gradient), _at(log_probs), _at(ratios),
        )  # fmt: skip
        _check_memory(done)
        return gradient, log_probs, ratios

    def cartpole(
        self, physics: Doubles, seeds: Indices, horizon: int, uniforms: Floats | None
    ) -> tuple[Floats, Indices, Indices]:
        """See `Mlp.cartpole`."""
        physics = np.ascontiguousarray(physics, np.float64)
        seeds = np.ascontiguousarray(seeds, np.int64)
        room = len(seeds) * horizon
        observations = np.empty((room, 4), np.float32)
        actions, episodes = np.empty(room, np.int64), np.empty(room, np.int64)
        rows = self._library.fedpg_cartpole_rollout(
            self._network, _at(physics), ctypes.c_int64(len(seeds)), _at(seeds), ctypes.c_int64(horizon), _at(uniforms),
            _at(observations), _at(actions), _at(episodes),
        )  # fmt: skip
        _check_memory(rows >= 0)
        return observations[:rows], actions[:rows], episodes[:rows]


def _at(array: Floats | Doubles | Indices | np.ndarray[tuple[int, ...], np.dtype[np.int32]] | None) -> ctypes.c_void_p:
    """Where the array's elements begin; NULL for None."""
    return ctypes.c_void_p(None if array is None else array.ctypes.data)


def _check_memory(done: object) -> None:
    if not done:
        raise MemoryError("no memory for the activations of a network")
