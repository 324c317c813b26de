"""Batches of environments that step in lock-step, with Gymnasium's own dynamics, bit for bit."""

from __future__ import annotations

from fedpg_common.environments.base import EnvironmentBatch
from fedpg_common.environments.factory import make_environments
from fedpg_common.environments.global_random import GlobalRandom

__all__ = ["EnvironmentBatch", "GlobalRandom", "make_environments"]
