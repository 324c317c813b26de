"""TOML files that people write for the lab: found by path or by name, and checked field by field."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from enum import StrEnum
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

from fedpg_common.checks import show, unknown
from fedpg_common.errors import UsageError

SUFFIX = ".toml"
Kind = TypeVar("Kind", bound=StrEnum)


def package_folder(*names: str) -> Traversable:
    """A folder of files that come with FedPG."""
    return resources.files("fedpg_lab").joinpath(*names)


def names_in(folder: Traversable) -> list[str]:
    """The names of the TOML files in a folder, without suffix."""
    return sorted(file.name.removesuffix(SUFFIX) for file in folder.iterdir() if file.name.endswith(SUFFIX))


def read_toml(file: str, what: str, folder: Traversable) -> tuple[str, dict[str, Any]]:
    """A file's text and fields. `file` is a path (NAME.toml), or the name of one in `folder`; `what` is for errors.

    Raises UsageError that names the file.
    """
    text = _read_text(file, what, folder)
    try:
        return text, tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{what} {file} is not TOML: {error}") from error


def _read_text(file: str, what: str, folder: Traversable) -> str:
    if not file.endswith(SUFFIX):
        known = names_in(folder)
        if file not in known:
            raise unknown(what, file, known, ", or give a file (NAME.toml)")
        return folder.joinpath(f"{file}{SUFFIX}").read_text(encoding="utf-8")
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{what} file {file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} file {file} is not text: {error}") from error


def text_of(fields: Mapping[str, Any], name: str, default: str) -> str:
    """A field that is text. Raises UsageError."""
    value = fields.get(name, default)
    if not isinstance(value, str):
        raise UsageError(f"{name} must be text, not {show(value)}")
    return value.strip()


def choose(kind: type[Kind], value: object, what: str) -> Kind:
    """The member of `kind` with that value. Raises UsageError that lists the choices."""
    try:
        return kind(str(value))
    except ValueError:
        raise unknown(what, value, (member.value for member in kind)) from None
