"""Where the clone of the repository is that this program runs from."""

from __future__ import annotations

from pathlib import Path

import fedpg_lab


def repository() -> Path | None:
    """The root of the clone that this package runs from, which holds the Dockerfile; None where it was installed."""
    package = Path(fedpg_lab.__file__).resolve().parent
    return next(
        (
            folder
            for folder in package.parents
            if (folder / "Dockerfile").is_file() and folder / "lab" / "fedpg_lab" == package
        ),
        None,
    )
