"""Batches of environments that step in lock-step, with Gymnasium's own dynamics, bit for bit."""

from __future__ import annotations

from fedpg_common.environments.base import EnvironmentBatch
from fedpg_common.environments.factory import make_environments

__all__ = ["EnvironmentBatch", "make_environments"]
