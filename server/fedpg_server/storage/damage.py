"""What a sentence on a damaged store says, and what it advises."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path

from fedpg_common.errors import StorageError

CONFIG_NAME = "config.toml"
"""A run's description, beside its store."""
CHECKPOINT_FOLDER = "checkpoints"
"""Its policies, likewise."""


def damaged(store: Path, what: str) -> StorageError:
    """The error for a damaged store: what is wrong with it, and what to do."""
    return StorageError(f"{store} is damaged: {what}: {advice(store)}")


def advice(store: Path) -> str:
    """What to do about a store that cannot be trusted, by what else there is of its run."""
    folder = store.parent
    text = "put the whole folder back from a copy"
    if _describes_a_start(folder / CONFIG_NAME):
        config = shlex.quote(str(folder / CONFIG_NAME))
        text += f", or start the run afresh, with the same settings and seed: fedpg train --federation {config}"
    with suppress(OSError):
        if any((folder / CHECKPOINT_FOLDER).glob("*.safetensors")):
            text += (
                f"; its policies in {CHECKPOINT_FOLDER}/ can be evaluated as they are: "
                f"fedpg evaluate {shlex.quote(str(folder))}"
            )
    return text


def _describes_a_start(config: Path) -> bool:
    """Whether a run can be started with it: one that takes up Adam's state from another run cannot."""
    with suppress(OSError, ValueError):
        return "\nadam_after" not in config.read_text(encoding="utf-8")
    return False
