"""What K policies do together, and how many of them would have to change their minds before the answer does.

Fang et al. 2025, algorithm 2 and theorems 1 and 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

WEISZFELD_STEPS = 200
CLOSE = 1e-10
"""A step so much shorter than the distances is the last one."""


def majority(actions: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The most frequent of `count` discrete actions in each column of (K, n), the smaller of equals; and n′, both (n,).

    n′ = min over y ≠ x of ⌊(v(x) − v(y) − [y < x]) / 2⌋, x the answer: so many of the K may change to any action.
    """
    votes = np.stack([(actions == action).sum(axis=0) for action in range(count)])
    chosen = votes.argmax(axis=0)
    order = np.arange(count)[:, None]
    margins = (votes.max(axis=0) - votes - (order < chosen)) // 2
    margins[chosen, np.arange(len(chosen))] = len(actions)
    return chosen.astype(np.int64), margins.min(axis=0)


def geometric_median(actions: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The point with the least sum of distances to the K rows of (K, A), (A,); and each row's distance to it, (K,).

    Weiszfeld's steps as Vardi and Zhang (2000) have them: from a row that is not the answer they find the way on, and
    at one that is they stop.
    """
    point = np.median(actions, axis=0)
    for _ in range(WEISZFELD_STEPS):
        distances = np.sqrt(np.square(actions - point).sum(axis=1))
        away = distances > 0
        here = len(actions) - int(away.sum())
        if here == len(actions):
            break
        pulls = distances[away].min() / distances[away]
        towards = pulls @ actions[away] / pulls.sum()
        force = float(np.linalg.norm(pulls @ (actions[away] - point))) / float(distances[away].min())
        if here and force <= here:
            break
        kept = here / force if here else 0.0
        step = (1.0 - kept) * (towards - point)
        point = point + step
        if float(np.linalg.norm(step)) <= CLOSE * float(np.linalg.norm(distances)):
            break
    return point, np.sqrt(np.square(actions - point).sum(axis=1))


def drift_bound(farthest: NDArray[np.float64], policies: int, changed: int) -> NDArray[np.float64]:
    """2 w (K − n′) / (K − 2 n′): how far the geometric median moves at most if n′ < K/2 of the actions change.

    `farthest` is w of each state, the largest distance of an action to the median, (n,).
    """
    return 2.0 * farthest * (policies - changed) / (policies - 2 * changed)


def certifiable(policies: int) -> int:
    """The most changed policies that a vote of so many can withstand: those fewer than half."""
    return (policies - 1) // 2


def stacked(choices: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The policies' actions for the same n observations: (K, n), or (K, n, A)."""
    return np.stack(list(choices))
