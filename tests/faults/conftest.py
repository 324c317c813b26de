"""What tests of scenarios share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For properties, whose examples share one."""
    return tmp_path_factory.mktemp("scenarios")
