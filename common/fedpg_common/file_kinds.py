"""The kinds of TOML file that people write, told apart where one is given in another's place."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from enum import Enum
from typing import Any

from fedpg_common.errors import UsageError


class FileKind(Enum):
    """A kind of file: what it is called, and the command that takes it."""

    TASK = "a task file", "fedpg train --task {} trains it"
    FEDERATION = "the description of a federation", "fedpg train --federation {} trains it"
    EXPERIMENT = "an experiment", "fedpg experiment {} runs it"
    SCENARIO = "a scenario of faults", "fedpg faults {} plays it"


def kind_of(fields: Mapping[str, Any]) -> FileKind | None:
    """What kind of file has these fields, by the one that no other kind has; None where none tells."""
    if "fault" in fields or "at_most_s" in fields:
        return FileKind.SCENARIO
    federations = fields.get("federation")
    tables = federations if isinstance(federations, list) else []
    if "matrix" in fields or any(isinstance(table, Mapping) and "task" in table for table in tables):
        return FileKind.EXPERIMENT
    if "environment" in fields:
        return FileKind.TASK
    if "task" in fields or "agents" in fields:
        return FileKind.FEDERATION
    return None


def require_kind(fields: Mapping[str, Any], wanted: FileKind, file: str) -> None:
    """Raise UsageError, which says what to do with the file instead, if its fields are those of another kind."""
    found = kind_of(fields)
    if found not in (None, wanted):
        name, use = found.value
        raise UsageError(f"this is {name}: {use.format(shlex.quote(file))}")
