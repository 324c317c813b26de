"""A run's page as one file, with the same parts as the served one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedpg_common.errors import StorageError
from fedpg_common.files import shown, why_no_file, write_whole

from fedpg_lab.watch import adapter
from fedpg_lab.watch.page import saved
from fedpg_lab.watch.plane import plane_of
from fedpg_lab.watch.run_view import RunView, ServerAccess

PLANES_MAX = 100
"""Rounds whose gradients a saved page shows: of a longer run, so many at even distances."""


def save_page(folder: Path, path: Path, access: ServerAccess | None = None) -> None:
    """Write the page of the run in `folder` to `path`.

    Raises StorageError if there is no run, it cannot be read, or the file cannot be written.
    """
    adapter.check_run(folder)
    if why := why_no_file(path):
        raise StorageError(f"cannot write {shown(path)}: {why}")
    view = RunView(folder, Path(shown(folder.absolute())).name, access or ServerAccess())
    whole = view.whole()
    if whole["run"]["state"] == "unreadable":
        raise StorageError(str(whole["run"]["note"]))
    whole["planes"] = _planes(view, whole["run"]["rounds"])
    write_whole(path, saved(whole, f"{whole['run']['run']} – FedPG"))


def _planes(view: RunView, rounds: int) -> list[dict[str, Any]]:
    facts = view.facts()
    if facts is None or not rounds:
        return []
    count = min(rounds, PLANES_MAX)
    numbers = sorted({1 + place * (rounds - 1) // max(1, count - 1) for place in range(count)})
    records = adapter.read_records(view.folder, numbers)
    return [plane for record in records if (plane := plane_of(facts.federation, record)) is not None]
