"""Folders and files that users name: looked at, made and written with one sentence for whatever is wrong with them."""

from __future__ import annotations

import os
import stat
from enum import Enum, auto
from pathlib import Path

from fedpg_common.checks import show
from fedpg_common.errors import StorageError, UsageError
from fedpg_common.words import PATH_SHOWN_MAX, shorten_middle


class Kind(Enum):
    """What is at a path."""

    MISSING = auto()
    FILE = auto()
    FOLDER = auto()


def look(path: Path) -> Kind:
    """What is at `path`; a path below a file is missing.

    `Path.is_dir` and its siblings raise for a folder that may not be searched and a name that is too long. This raises
    StorageError for these, for a loop of links, and for a name that is not UTF-8.
    """
    require_text(path)
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return Kind.MISSING
    except (OSError, ValueError) as error:
        raise StorageError(f"{shown(path)} cannot be read: {reason(error)}") from error
    return Kind.FOLDER if stat.S_ISDIR(mode) else Kind.FILE


def is_folder(path: Path) -> bool:
    """Whether there is a folder. Raises StorageError as `look`."""
    return look(path) is Kind.FOLDER


def is_file(path: Path) -> bool:
    """Whether there is a file. Raises StorageError as `look`."""
    return look(path) is Kind.FILE


def exists(path: Path) -> bool:
    """Whether there is anything. Raises StorageError as `look`."""
    return look(path) is not Kind.MISSING


def require_text(path: Path) -> None:
    """Raise StorageError for a path whose name is not UTF-8: stores and TensorBoard files could not be found by it."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise StorageError(f"{shown(path)} cannot be used: its name is not UTF-8") from error


def shown(path: Path) -> str:
    """A path as a sentence names it: cut in the middle, with control characters and what is not UTF-8 escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    text = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
    return shorten_middle(text, PATH_SHOWN_MAX)


def reason(error: OSError | ValueError) -> str:
    """Why the system refused, without the path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def make_folder(path: Path) -> None:
    """Make a folder and those above it. Raises StorageError."""
    if (file := _file_in_place(path)) is not None:
        raise StorageError(f"cannot write in {shown(path)}: {shown(file)} is not a folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write in {shown(path)}: {reason(error)}") from error


def require_place(folder: Path, instead: str) -> None:
    """Raise StorageError where a folder is to be or to be made, but a file stands in its place, or in that of a parent.

    `instead` says what to do, for example "choose another --out".
    """
    if (file := _file_in_place(folder)) is not None:
        raise StorageError(f"{shown(file)} is not a folder: {instead}")


def _file_in_place(folder: Path) -> Path | None:
    for place in (folder, *folder.parents):
        if (kind := look(place)) is not Kind.MISSING:
            return place if kind is Kind.FILE else None
    return None


def why_no_file(path: Path) -> str:
    """Why no file can be written at `path`, whoever asks: what is there, or above it, in words. "" if nothing is.

    Raises StorageError as `look`.
    """
    if look(path) is Kind.FOLDER:
        return "it is a folder"
    parent = look(path.parent)
    if parent is Kind.FOLDER:
        return ""
    return f"{shown(path.parent)} is a file" if parent is Kind.FILE else f"there is no folder {shown(path.parent)}"


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file, text as UTF-8, so that it is there whole or as it was. Raises StorageError."""
    unfinished = path.with_name(f"{path.name}.new")
    try:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(unfinished, path)
    except OSError as error:
        raise StorageError(f"cannot write {shown(path)}: {reason(error)}") from error


def require_name(name: str, option: str) -> None:
    """Raise UsageError unless `name` names a folder that lies directly in another: no path, no `..`."""
    if name in ("", ".", "..") or "/" in name or os.sep in name or not name.isprintable():
        raise UsageError(f"{option} must be the name of a folder, without slashes, not {show(name)}")
