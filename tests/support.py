"""What the protocol's tests share: a learner without work, its records, and a real server in this process."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from fedpg_common.federation import describe, federation_to_toml
from fedpg_common.parameters import Vector
from fedpg_server.records import RoundRecord

DESCRIPTION = federation_to_toml(describe("CartPole-v1", agents=5))


def digest_of_vector(vector: Vector) -> bytes:
    """SHA-256 of the vector's bytes, as submissions and rounds carry it."""
    return hashlib.sha256(np.ascontiguousarray(vector, "<f4").tobytes()).digest()


def make_round_record(round_number: int, **changes: Any) -> RoundRecord:
    """A plausible record of a closed round."""
    values: dict[str, Any] = {
        "round_number": round_number, "parameters_digest": "00" * 32, "batch_size": 16, "inner_steps": 3,
        "inner_steps_taken": 2, "inner_aborted": True, "trajectories_total": 16 * round_number,
        "sampled_trajectories": {"agents": 80, "inner": 8}, "environment_steps": {"agents": 1600, "inner": 160},
        "rule": "R1", "radius": 0.05, "accepted": (1, 2, 3), "filtered": (4,), "absent": (5,), "median_agent": 2,
        "distances": {"good": 0.02}, "median_distances": {1: 0.01, 2: 0.0, 3: 0.02, 4: 7.5},
        "detection": {"precision": 1.0}, "evaluation_returns": (20.0, 30.0), "evaluation_lengths": (20.0, 30.0),
        "training_return": 21.5, "training_length": 21.5, "loss": -0.1, "gradient_norm": 0.03,
        "inner_gradient_norms": (0.02, 0.03), "importance_ratios": (1.0, 1.01), "learning_rate": 1e-3,
        "skipped_steps": 0, "seconds": 0.5,
    }  # fmt: skip
    return RoundRecord(**{**values, **changes})
