"""How far one honest gradient lies from the true one in a round."""

from __future__ import annotations

import math

import numpy as np

from fedpg_common.learning.aggregators.base import Votes


def scale_of(votes: Votes) -> float:
    """s_t = √(tr Cov) of an honest vote: the server's own estimate, or else one of the votes; always positive.

    Of the votes: for each the distance to its ⌊(K − ⌊αK⌋)/2⌋-th nearest other one, of these the lower median, over √2.
    Attackers can touch that, but while fewer than half of the votes are theirs, they cannot choose it.
    """
    if votes.server_scale is not None and votes.server_scale > 0:
        return votes.server_scale
    count = len(votes.agents)
    near = min(max(1, (votes.federation_size - votes.faulty) // 2), count - 1)
    distances = np.sort(np.sort(votes.distances, axis=1)[:, near])
    scale = float(distances[(count - 1) // 2]) / math.sqrt(2.0)
    if scale > 0:
        return scale
    lengths = np.sqrt(np.square(votes.matrix, dtype=np.float64).sum(axis=1))
    return float(np.median(lengths)) or 1.0
