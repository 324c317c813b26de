"""What tests of a learner share: environments and a policy of what a file calls TASK, and its Bench on them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fedpg_common.environments import EnvironmentBatch, make_environments
from fedpg_common.learning.policies import Policy, make_policy


@pytest.fixture(scope="module")
def environments(request: pytest.FixtureRequest) -> Iterator[EnvironmentBatch]:
    """The task's environments."""
    batch = make_environments(request.module.TASK)
    yield batch
    batch.close()


@pytest.fixture(scope="module")
def policy(request: pytest.FixtureRequest, environments: EnvironmentBatch) -> Policy:
    """The task's policy."""
    return make_policy(request.module.TASK, environments.observation_size, environments.action_space)


@pytest.fixture
def bench(request: pytest.FixtureRequest, environments: EnvironmentBatch, policy: Policy) -> object:
    """What makes the learners of the task."""
    return request.module.Bench(environments, policy)
