"""What tests of scenarios and of their command share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fedpg_lab.commands import faults as faults_cli
from support.played_command import TINY, StoredFederation


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For properties, whose examples share one."""
    return tmp_path_factory.mktemp("scenarios")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A scenario's file in a folder in which nothing else lies."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Callable[..., StoredFederation]:
    """Have the command run a federation that is only played."""

    def play(**fields: Any) -> StoredFederation:
        federation = StoredFederation(**fields)
        monkeypatch.setattr(faults_cli, "make_backend", lambda *_arguments: federation)
        return federation

    return play
