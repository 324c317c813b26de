"""A round's gradients in the plane: as true as two dimensions can be to the distances between them.

Two placements. "classical" is classical scaling of the distances, about the centre: the plane in which the gradients,
seen from there, are spread furthest. It shortens distances, so that an agent beyond the radius may appear within.
"radial" keeps every distance to the centre exact, so that the circles mean what they say, and takes the directions from
classical scaling of the angles: who colludes, points the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from fedpg_common.choices import Choice
from fedpg_common.federation import Federation
from fedpg_common.learning.aggregators.fedpg import radii
from fedpg_server.learning.pairwise import unpack
from fedpg_server.learning.records import RoundRecord
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
ALIKE = 1e-4
"""Gradients this close, as a part of the median distance between two, count as the same."""


def plane_of(federation: Federation, record: RoundRecord) -> dict[str, Any] | None:
    """The picture of a round; None where its distances were not kept.

    Beside `picture`: `verdicts` and `weights` in the order of `agents`; the `circles` about the centre, each with the
    name of its rule, its radius, and whether it decided; and the groups of agents whose gradients are `alike`, to the
    last bit or nearly: no two honest agents' are.
    """
    if record.pairwise_distances is None:
        return None
    voters = sorted((*record.accepted, *record.filtered))
    if not voters:
        return None
    try:
        distances = unpack(record.pairwise_distances, len(voters))
    except ValueError:
        return None
    weights = record.weights or {}
    accepted = set(record.accepted)
    heard = "accepted" if record.is_selective else "voted"
    return {
        "round": record.round_number,
        "rule": record.rule,
        "has_mu": record.has_mu,
        **picture(distances, voters, record.median_agent, record.centre_distances, weights),
        "verdicts": [heard if agent in accepted else "filtered" for agent in voters],
        "weights": None if record.weights is None else [_figures(weights.get(agent, 0.0)) for agent in voters],
        "circles": _circles(federation, record),
        "alike": _alike(distances, voters),
    }


def _circles(federation: Federation, record: RoundRecord) -> list[dict[str, Any]]:
    """What the rule measured with: the radius that decided, and the one of FedPG-Aggregate that did not."""
    decided = record.figures.get("radius")
    if decided is None or not np.isfinite(decided) or decided <= 0:
        return []
    circles = {record.rule: decided}
    rule = federation.aggregator or Choice("fedpg" if federation.algorithm.name == "fedpg-br" else "")
    if rule.name == "fedpg" and set(rule.settings) <= {"sigma", "delta"}:
        sigma = float(rule.settings.get("sigma") or federation.task.sigma)
        delta = float(rule.settings.get("delta") or federation.task.delta)
        both = dict(zip(("R1", "R2"), radii(sigma, delta, federation.agents, record.batch_size), strict=True))
        circles = {**both, **({record.rule: decided} if record.rule in both else {})}
    return [
        {"name": name, "radius": _figures(radius), "decided": name == record.rule} for name, radius in circles.items()
    ]


def _alike(distances: Matrix, voters: Sequence[int]) -> list[list[int]]:
    """Who has sent the same, in groups of two and more."""
    usual = float(np.median(distances[np.triu_indices(len(voters), 1)])) if len(voters) > 1 else 0.0
    groups: list[list[int]] = []
    grouped: set[int] = set()
    for row, agent in enumerate(voters):
        same = [other for other, distance in zip(voters, distances[row], strict=True) if distance <= ALIKE * usual]
        if usual > 0 and len(same) > 1 and agent not in grouped:
            groups.append(same)
            grouped.update(same)
    return groups


def picture(
    distances: Matrix,
    voters: Sequence[int],
    centre: int | None,
    to_centre: Mapping[int, float],
    weights: Mapping[int, float],
) -> dict[str, Any]:
    """Where each voter lies. `centre` is the agent that the rule measured from; without one, the weighted mean is.

    `shown` is the part of the squared distances from the centre that the classical plane shows.
    """
    about = _centred(distances, voters, centre, weights)
    lengths = np.sqrt(np.maximum(np.diag(about), 0.0))
    far = np.array([to_centre.get(agent, length) for agent, length in zip(voters, lengths, strict=True)])
    total = float(np.trace(about))
    flat = _two_dimensions(about)
    scale = np.where(lengths > 0, lengths, 1.0)
    directions = _two_dimensions(about / np.outer(scale, scale))
    norms = np.hypot(*directions.T)
    unit = np.where(norms[:, None] > 0, directions / np.where(norms > 0, norms, 1.0)[:, None], [1.0, 0.0])
    return {
        "agents": list(voters),
        "classical": _rounded(flat),
        "radial": _rounded(unit * far[:, None]),
        "distance": [_figures(value) for value in far.tolist()],
        "centre": centre,
        "shown": round(float((flat**2).sum()) / total, 3) if total > 0 else None,
    }


def _centred(distances: Matrix, voters: Sequence[int], centre: int | None, weights: Mapping[int, float]) -> Matrix:
    """The inner products of the gradients, seen from the centre, by the distances alone (Gower 1966)."""
    squares = distances**2
    share = np.array([float(agent == centre) if centre is not None else max(0.0, weights.get(agent, 0.0))
                      for agent in voters])  # fmt: skip
    if share.sum() == 0:
        share = np.ones(len(voters))
    share /= share.sum()
    from_centre = squares @ share
    offset = from_centre @ share
    return np.asarray((from_centre[:, None] + from_centre[None, :] - squares - offset) / 2)


def _two_dimensions(products: Matrix) -> Matrix:
    """Coordinates (k, 2) of the best plane, with signs that do not depend on the solver."""
    values, vectors = np.linalg.eigh((products + products.T) / 2)
    places = np.zeros((len(products), 2))
    for dimension in range(min(2, len(products))):
        value, vector = values[-1 - dimension], vectors[:, -1 - dimension]
        if value > 0:
            sign = 1.0 if vector[np.argmax(np.abs(vector))] >= 0 else -1.0
            places[:, dimension] = sign * vector * np.sqrt(value)
    return places


def _figures(value: float) -> float:
    return float(f"{value:.4g}")


def _rounded(places: Matrix) -> list[list[float]]:
    return [[_figures(x), _figures(y)] for x, y in places.tolist()]
