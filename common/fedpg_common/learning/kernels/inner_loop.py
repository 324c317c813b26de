"""The server's variance-reduced steps on CartPole, compiled: inner_loop.h, called through ctypes."""

from __future__ import annotations

import ctypes
import sys
import weakref
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpg_common.learning.kernels.interface import Doubles, Floats, Indices
from fedpg_common.learning.kernels.library import load

STEPS_AT_ONCE = 16
"""Of a call. More are more calls."""
WORDS = 8
"""A stream's name, hashed."""

Words = NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class LoopSettings:
    """What all steps of a run have alike."""

    sizes: tuple[int, ...]
    """Of the categorical policy's layers; the last is 2."""
    activation: str
    physics: Doubles
    """As `Mlp.cartpole` takes them."""
    episodes: int
    """b."""
    horizon: int
    gamma: float
    has_time_baseline: bool
    ratio_range: tuple[float, float]
    """Where the mean importance ratio must lie."""
    adam: tuple[float, float, float, float]
    """1 − β_1, β_2, 1 − β_2 and ε, each in single precision."""
    threads: int = 1
    """With more than one, a second prepares a long batch's rows while they are played, and computes one of its two
    gradients, with the same bits. A process that was forked off makes its own."""


@dataclass(frozen=True, eq=False)
class Batches:
    """What became of the steps of a call; a list has an entry per batch."""

    rows: list[int]
    """Environment steps."""
    was_taken: list[bool]
    """Whether Adam's step could be taken."""
    losses: list[float]
    ratios: list[float]
    """Mean importance ratios: 1 where there was no snapshot."""
    directions: Floats
    """v of each, shape (batches, d); a view, until the next call."""
    is_aborted: bool
    """Whether the last one was dropped."""


class _Call(ctypes.Structure):
    """Call in inner_loop.h."""

    _fields_ = (
        ("steps", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("words", "rates", "corrections", "theta_0", "mu", "theta", "m", "v")),
        ("ratio_low", ctypes.c_double),
        ("ratio_high", ctypes.c_double),
        *((name, ctypes.c_float) for name in ("beta_1_rest", "beta_2", "beta_2_rest", "epsilon")),
        *((name, ctypes.c_int32) for name in ("has_moved", "wants_snapshot", "is_aborted")),
        *((name, ctypes.c_void_p) for name in ("rows", "outcomes", "losses", "ratios", "directions", "snapshot")),
    )


class CompiledLoop:
    """Takes inner steps; θ, Adam's moments and what is known of the last batch stay in it between calls.

    Not to be used by two threads at the same time.
    """

    def __init__(self, library: ctypes.CDLL, settings: LoopSettings, size: int) -> None:
        """Room for a batch of trajectories of a policy of `size` = d parameters. Raises MemoryError."""
        self._library, self._settings = library, settings
        self.theta_0, self.mu, self.theta, self.m, self.v, self.snapshot = np.zeros((6, size), np.float32)
        """(d,) each: to be written before the first call of a round, and read after the last one. `snapshot` is the
        last batch's ∇L_ω(θ_0)."""
        self.words: Words = np.zeros((STEPS_AT_ONCE, 2, WORDS), np.uint32)
        """Of each step's streams for episodes and for actions."""
        self.rates, self.corrections = np.zeros((2, STEPS_AT_ONCE), np.float32)
        """Adam's: η / (1 − β_1^t) and √(1 − β_2^t) for the steps to come."""
        self._rows, self._outcomes = np.zeros((2, STEPS_AT_ONCE), np.int64)
        self._losses, self._ratios = np.zeros((2, STEPS_AT_ONCE))
        self._directions = np.zeros((STEPS_AT_ONCE, size), np.float32)
        self._mu_place = self.mu.ctypes.data
        self._call = self._describe()
        self._at = ctypes.byref(self._call)
        self._loop = self._open()
        if not self._loop:
            raise MemoryError(f"no memory for {settings.episodes} episodes of {settings.horizon} steps")
        # Freed by C alone, its thread ended: Ctrl-C that comes while Python runs a finalizer is lost.
        self._closing = weakref.ref(self, partial(library.fedpg_loop_close, self._loop))

    def _open(self) -> ctypes.c_void_p:
        settings = self._settings
        sizes, physics = np.array(settings.sizes, np.int32), np.ascontiguousarray(settings.physics, np.float64)
        return ctypes.c_void_p(
            self._library.fedpg_loop_open(
                len(sizes) - 1, ctypes.c_void_p(sizes.ctypes.data), int(settings.activation == "relu"),
                ctypes.c_void_p(self.theta.ctypes.data), ctypes.c_void_p(physics.ctypes.data),
                ctypes.c_int64(settings.episodes), ctypes.c_int64(settings.horizon), ctypes.c_double(settings.gamma),
                ctypes.c_double(sys.float_info.epsilon), int(settings.has_time_baseline), settings.threads,
            )
        )  # fmt: skip

    def _describe(self) -> _Call:
        arrays: dict[str, NDArray[Any]] = {
            "words": self.words, "rates": self.rates, "corrections": self.corrections, "theta_0": self.theta_0,
            "theta": self.theta, "m": self.m, "v": self.v, "rows": self._rows, "outcomes": self._outcomes,
            "losses": self._losses, "ratios": self._ratios, "directions": self._directions, "snapshot": self.snapshot,
        }  # fmt: skip
        low, high = self._settings.ratio_range
        beta_1_rest, beta_2, beta_2_rest, epsilon = self._settings.adam
        return _Call(
            **{name: array.ctypes.data for name, array in arrays.items()}, ratio_low=low, ratio_high=high,
            beta_1_rest=beta_1_rest, beta_2=beta_2, beta_2_rest=beta_2_rest, epsilon=epsilon,
        )  # fmt: skip

    def run(self, steps: int, *, has_mu: bool, has_moved: bool, wants_snapshot: bool) -> Batches:
        """Take up to `steps` of at most STEPS_AT_ONCE, fewer if a batch is dropped.

        `has_moved`: whether a step has been taken since θ was θ_0. Raises MemoryError.
        """
        call = self._call
        call.steps, call.has_moved, call.wants_snapshot = steps, has_moved, wants_snapshot
        call.mu = self._mu_place if has_mu else None
        count = self._library.fedpg_loop_run(self._loop, self._at)
        if count < 0:
            raise MemoryError("no memory for an inner step")
        return Batches(
            self._rows[:count].tolist(),
            self._outcomes[:count].astype(np.bool_).tolist(),
            self._losses[:count].tolist(),
            self._ratios[:count].tolist(),
            self._directions[:count],
            bool(call.is_aborted),
        )

    def last_batch(self, rows: int) -> tuple[Floats, Indices, Indices]:
        """The last batch's observations (rows, 4), actions (rows,) and episodes (rows,)."""
        observations = np.empty((rows, 4), np.float32)
        actions, episodes = np.empty((2, rows), np.int64)
        places = (ctypes.c_void_p(array.ctypes.data) for array in (observations, actions, episodes))
        self._library.fedpg_loop_batch(self._loop, ctypes.c_int64(rows), *places)
        return observations, actions, episodes


def open_loop(settings: LoopSettings, size: int) -> CompiledLoop | None:
    """The compiled loop, or None where the kernels are not compiled: the same steps can be taken one by one."""
    library = load()
    return None if library is None else CompiledLoop(library, settings, size)
