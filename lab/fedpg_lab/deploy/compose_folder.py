"""A folder per federation: the Compose file, and beside it the settings that every `docker compose` command reads."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from fedpg_common.derived_seeds import attackers_secret
from fedpg_common.errors import StorageError, UsageError
from fedpg_common.federation import Federation
from fedpg_common.files import require_place

from fedpg_lab.deploy.clone import repository
from fedpg_lab.deploy.compose import LIMITS, compose_file
from fedpg_lab.deploy.compose_settings import common_attack, server_defaults, task_target

COMPOSE_NAME, SETTINGS_NAME = "docker-compose.yml", ".env"

_SETTINGS = """\
# The settings of the federation in docker-compose.yml, which every `docker compose` command in this folder reads.
# Written by `fedpg compose`. After a change `docker compose up` starts a new run; what ran before stays in its volume.
{settings}
# Empty: the task's own.
{left_to_the_task}
# What a container may take of the memory, and where `docker compose up watch` shows the page, `tensorboard` curves.
{limits}
WATCH_PORT=8470
TENSORBOARD_PORT=6006
# Compose's own: no line of keys below the log.
COMPOSE_MENU=false
"""


def settings_file(federation: Federation, task_file: str | None = None) -> str:
    """The settings of `compose_file` as the text of a .env file. Raises UsageError."""
    defaults = server_defaults(federation, task_file, common_attack(federation))
    if federation.byzantine:
        defaults["ATTACKERS_SECRET"] = attackers_secret(federation.seed, federation.byzantine)
    left = ("TRAJECTORIES", "SIGMA", "ALPHA")
    return _SETTINGS.format(
        settings=_lines({name: value for name, value in defaults.items() if name not in left}),
        left_to_the_task=_lines({name: defaults[name] for name in left}),
        limits=_lines(LIMITS),
    )


def write_compose_folder(
    folder: Path,
    federation: Federation,
    *,
    task_file: Path | None = None,
    name: str | None = None,
    modules: Path | None = None,
    replace: bool = False,
) -> None:
    """Write the Compose file and its .env, and copy the task file there.

    What is there already stays if it is the same. Raises UsageError if it is not and `replace` is false, or for what a
    Compose file cannot hold; StorageError for a folder that cannot be written.
    """
    require_place(folder, "choose another --out")
    root = repository()
    copied = task_file.name if task_file else None
    files = {
        COMPOSE_NAME: compose_file(
            federation,
            copied,
            name=name,
            source=_seen_from(folder, root) if root else None,
            modules=_seen_from(folder, check_modules(modules)) if modules else None,
        ),
        SETTINGS_NAME: settings_file(federation, copied),
    }
    try:
        if task_file:
            files[task_target(task_file.name)[1:]] = task_file.read_text(encoding="utf-8")
        folder.mkdir(parents=True, exist_ok=True)
        changed = [name for name, text in files.items() if _differs(folder / name, text)]
        if changed and not replace:
            raise UsageError(
                f"{folder / changed[0]} is there already and is another one: choose another --out, or write over it "
                "with --replace"
            )
        for file_name, text in files.items():
            _write(folder / file_name, text)
    except OSError as error:
        raise StorageError(f"the federation cannot be kept in {folder}: {error.strerror}") from error


def check_modules(folder: Path) -> Path:
    """The folder, if containers can read it: their user is not this one. Raises UsageError."""
    if not folder.is_dir():
        raise UsageError(f"--modules takes a folder with Python modules, and {folder} is not one")
    closed = [path for path in (folder, *sorted(folder.glob("*.py"))) if not _others_may_read(path)]
    if closed:
        raise UsageError(f"others may not read {closed[0]}, so containers could not: run chmod -R o+rX {folder}")
    return folder


def _others_may_read(path: Path) -> bool:
    needed = stat.S_IROTH | (stat.S_IXOTH if path.is_dir() else 0)
    return path.stat().st_mode & needed == needed


def _seen_from(folder: Path, target: Path) -> str:
    """A path as it is seen from `folder`, from which Compose takes it; never bare, as a volume's name is."""
    seen = os.path.relpath(target.resolve(), folder.resolve())
    return seen if seen.startswith(".") else f"./{seen}"


def _differs(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8", errors="replace") != text


def _write(path: Path, text: str) -> None:
    """Write a file that appears whole, and that containers may read."""
    if path.exists() and not _differs(path, text):
        return
    unfinished = path.with_name(path.name + ".new")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.chmod(0o644)
    os.replace(unfinished, path)


def _lines(settings: Mapping[str, object]) -> str:
    return "\n".join(f"{name}={value}" for name, value in settings.items())
