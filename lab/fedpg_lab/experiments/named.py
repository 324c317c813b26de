"""Rows and columns of a matrix that a command names, with their settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedpg_common.descriptions import TASK_FIELDS, with_settings
from fedpg_common.errors import UsageError

from fedpg_lab.experiments.matrix import Additions

KINDS = ("aggregator", "algorithm", "attack")


def named_parts(
    aggregators: Sequence[str], algorithms: Sequence[str], attacks: Sequence[str], settings: Sequence[str]
) -> Additions | None:
    """The rows and columns of `--aggregator`, `--algorithm` and `--attack`, with what `--set` says of them.

    None where a command names nothing. Raises UsageError.
    """
    if not (aggregators or algorithms or attacks or settings):
        return None
    given = dict(zip(KINDS, (list(aggregators), list(algorithms), list(attacks)), strict=True))
    one_each = {kind: values[0] for kind, values in given.items() if len(values) == 1}
    for pair in settings:
        owner = pair.partition("=")[0].partition(".")[0]
        if owner in KINDS and len(given[owner]) != 1:
            raise UsageError(f"--set {pair}: name the {owner} that is meant with --{owner}, and no other")
    if not settings:
        fields: dict[str, Any] = dict(one_each)
    else:
        fields = with_settings(one_each, settings)
    given.update({kind: [fields[kind]] for kind in one_each})
    rows = [{kind: value} for kind in ("aggregator", "algorithm") for value in given[kind]]
    overrides = {name: value for name, value in fields.items() if name in TASK_FIELDS}
    return Additions(tuple(rows), tuple(given["attack"]), overrides)


def settings_of_command(
    aggregators: Sequence[str] | None,
    algorithms: Sequence[str] | None,
    attacks: Sequence[str] | None,
    settings: Sequence[str] | None,
) -> list[str]:
    """The same options as a command line has them."""
    pairs = zip((*KINDS, "set"), (aggregators, algorithms, attacks, settings), strict=True)
    return [word for name, values in pairs for value in values or () for word in (f"--{name}", value)]
