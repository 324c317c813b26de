"""The matrix of an experiment: a row for each rule, a column for each attack.

[matrix]
task = "CartPole-v1"          # like a [[federation]]: a list stands for a matrix with each of its values
agents = 10
byzantine = [3, 4]
threshold = 400               # of the picture of trajectories until there; a task with published figures has one
rows = [
  "median",                                                            # an aggregator,
  { algorithm = "fedpg-guard" },                                       # or fields of a description,
  { name = "NNM, trimmed mean", aggregator = { name = "trimmed-mean", after = ["nnm"] } },
  { aggregator = ["centered-clipping", { name = "centered-clipping", momentum = 0.9 }] },
]                             # and a list stands for settings of one row, of which the worst attack chooses
attacks = ["sign-flipping", { name = "worst-down", starts_at = 40 }]
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median_low
from typing import Any

from fedpg_common.checks import is_number, is_whole, refuse_unknown, show, unknown
from fedpg_common.choices import Choice, Choices
from fedpg_common.descriptions import TASK_FIELDS
from fedpg_common.errors import UsageError
from fedpg_common.federation import Federation
from fedpg_common.shipped import AGGREGATORS, ALGORITHMS, ATTACKS

from fedpg_lab.experiments.matrix_parts import Matrix, Row, Variant
from fedpg_lab.figures.published import published_targets
from fedpg_lab.files.toml_files import text_of

BASE_FIELDS = ("task", "algorithm", "agents", "byzantine", "round_timeout_s")
MATRIX_FIELDS = (*BASE_FIELDS, "threshold", "rows", "attacks")
ROW_FIELDS = ("name", "algorithm", "aggregator")
LISTS_THEMSELVES = ("hidden", "wrappers")
"""Fields whose value is a list, which does not stand for several."""

Register = Callable[[dict[str, Any]], tuple[str, Federation]]
"""Plans the federation with these fields, and answers with its name."""


@dataclass(frozen=True)
class Additions:
    """What a command, or commands before it, add to a file's matrix."""

    rows: tuple[Mapping[str, Any], ...] = ()
    """Fields of a row. An aggregator or algorithm may be called what a row of the file is called."""
    attacks: tuple[Any, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Fields of a task, in place of the file's."""


@dataclass(frozen=True)
class Plan:
    """The matrices of an experiment."""

    matrices: tuple[Matrix, ...]
    added: Additions
    """What is not in the file."""
    wanted: frozenset[str]
    """The federations of the rows and columns that the command names; all where it names none."""


def plan_matrices(
    table: object, quick: Mapping[str, Any], named: Additions, earlier: Additions, register: Register
) -> Plan:
    """The matrices that a file's [matrix] describes, with what the command has `named` and what was added `earlier`.

    `quick` has the names of `rows` and `attacks` to which --quick limits them, and perhaps another `byzantine`. Raises
    UsageError.
    """
    if not isinstance(table, Mapping):
        raise UsageError("matrix must be a table")
    if "byzantine" in quick:
        table = {**table, "byzantine": quick["byzantine"]}
    refuse_unknown(table, (*MATRIX_FIELDS, *TASK_FIELDS), " of [matrix]")
    rows = _limit(_rows_of(table.get("rows")), quick.get("rows"), "rows")
    columns = _limit(_columns_of(table.get("attacks")), quick.get("attacks"), "attacks")
    in_file = set(rows) | set(columns)
    for known in (earlier, named):
        named_rows = [_find_row(rows, fields) for fields in known.rows]
        named_columns = [_find_column(columns, attack) for attack in known.attacks]
    added = Additions(
        tuple(fields for name, fields in rows.items() if name not in in_file),
        tuple(choice.to_plain() for name, choice in columns.items() if name not in in_file),
    )
    base = {**{name: value for name, value in table.items() if name in (*BASE_FIELDS, *TASK_FIELDS)}, **named.overrides}
    matrices = tuple(_matrix(fields, rows, columns, table, register) for fields in combinations(base))
    wanted = {name for matrix in matrices for name in matrix.federations(named_rows or None, named_columns or None)}
    return Plan(matrices, added, frozenset(wanted))


def combinations(table: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every choice of one value from each list."""
    choices = [
        value if isinstance(value, list) and name not in LISTS_THEMSELVES else [value] for name, value in table.items()
    ]
    for values in itertools.product(*choices):
        yield dict(zip(table, values, strict=True))


def _matrix(
    base: Mapping[str, Any],
    rows: Mapping[str, Mapping[str, Any]],
    columns: Mapping[str, Choice],
    table: Mapping[str, Any],
    register: Register,
) -> Matrix:
    """One matrix. Column by column, so that what is run first are the undisturbed runs."""
    byzantine = base.get("byzantine")
    if not is_whole(byzantine) or byzantine < 1:
        raise UsageError(f"matrix.byzantine must be how many attack, one at least, not {show(byzantine)}")
    variants = {name: list(combinations(_fields_of(fields))) for name, fields in rows.items()}
    undisturbed: dict[tuple[str, int], str] = {}
    attacked: dict[tuple[str, int], dict[str, str]] = {}
    example = None
    for name, choices in variants.items():
        for place, choice in enumerate(choices):
            undisturbed[name, place], example = register({**base, **choice, "byzantine": 0})
            attacked[name, place] = {}
    for label, attack in columns.items():
        for name, choices in variants.items():
            for place, choice in enumerate(choices):
                attacked[name, place][label], _ = register({**base, **choice, "attack": attack.to_plain()})
    assert example is not None
    return Matrix(
        example=example,
        byzantine=byzantine,
        threshold=_threshold(table.get("threshold"), example),
        rows=tuple(
            Row(name, tuple(Variant(_setting(rows[name], choice) if len(choices) > 1 else "",
                                    undisturbed[name, place], attacked[name, place])
                            for place, choice in enumerate(choices)))
            for name, choices in variants.items()
        ),
        columns=tuple(columns),
    )  # fmt: skip


def _rows_of(given: object) -> dict[str, Mapping[str, Any]]:
    """Each row's fields by its name."""
    if not isinstance(given, list) or not given:
        raise UsageError("matrix.rows must be a list of aggregators, or of tables with fields of a description")
    rows: dict[str, Mapping[str, Any]] = {}
    for entry in given:
        fields = {"aggregator": entry} if isinstance(entry, str) else entry
        name = _row_name(fields)
        if name in rows:
            raise UsageError(f"matrix.rows: two rows are called {name}: give one of them another name")
        rows[name] = fields
    return rows


def _row_name(fields: object) -> str:
    """The name of a row, which its parts give it if nothing else does."""
    if not isinstance(fields, Mapping):
        raise UsageError(f"matrix.rows: a row is the name of an aggregator, or a table, not {show(fields)}")
    refuse_unknown(fields, (*ROW_FIELDS, *TASK_FIELDS), " of a row of [matrix]")
    given = text_of(fields, "name", "")
    parts = [_label(value, AGGREGATORS if kind == "aggregator" else ALGORITHMS)
             for kind, value in fields.items() if kind in ("algorithm", "aggregator")]  # fmt: skip
    parts += [f"{name}={value}" for name, value in fields.items()
              if name in TASK_FIELDS and (name in LISTS_THEMSELVES or not isinstance(value, list))]  # fmt: skip
    if not parts and not given:
        raise UsageError("matrix.rows: a row needs an aggregator, an algorithm, or a name")
    return given or ", ".join(parts)


def _label(value: object, choices: Choices[Any]) -> str:
    """What a part is called; where a list gives several settings of it, without these."""
    if not isinstance(value, list):
        return choices.parse(value).label
    return " or ".join(dict.fromkeys(Choice(choices.parse(entry).name).label for entry in value))


def _setting(fields: Mapping[str, Any], choice: Mapping[str, Any]) -> str:
    """What sets one choice of a row's settings apart."""
    parts = []
    for name, value in choice.items():
        if isinstance(fields.get(name), list) and name not in LISTS_THEMSELVES:
            kinds = {"aggregator": AGGREGATORS, "algorithm": ALGORITHMS}
            parts.append(kinds[name].parse(value).label if name in kinds else f"{name}={value}")
    return ", ".join(parts)


def _fields_of(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "name"}


def _columns_of(given: object) -> dict[str, Choice]:
    """Each column's attack by its label."""
    if not isinstance(given, list) or not given:
        raise UsageError("matrix.attacks must be a list of attacks")
    columns: dict[str, Choice] = {}
    for entry in given:
        attack = ATTACKS.parse(entry)
        if attack.label in columns:
            raise UsageError(f"matrix.attacks: two columns are called {attack.label}")
        columns[attack.label] = attack
    return columns


def _find_row(rows: dict[str, Mapping[str, Any]], fields: Mapping[str, Any]) -> str:
    """The row that is called so or has these fields; added if there is none."""
    called = next(iter(fields.values())) if len(fields) == 1 else None
    if isinstance(called, str) and called in rows:
        return called
    wanted = _parsed(fields)
    for name, known in rows.items():
        if _parsed(known) == wanted:
            return name
    name = _row_name(fields)
    if name in rows:
        raise UsageError(f"the matrix has a row {name} already, with other settings")
    rows[name] = fields
    return name


def _parsed(row: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {"aggregator": AGGREGATORS, "algorithm": ALGORITHMS}
    return {
        name: kinds[name].parse(value) if name in kinds and not isinstance(value, list) else value
        for name, value in _fields_of(row).items()
    }


def _find_column(columns: dict[str, Choice], given: object) -> str:
    if isinstance(given, str) and given in columns:
        return given
    attack = ATTACKS.parse(given)
    known = columns.setdefault(attack.label, attack)
    if known != attack:
        raise UsageError(f"the matrix has a column {attack.label} already, which is another attack")
    return attack.label


def _limit(found: dict[str, Any], names: object, what: str) -> dict[str, Any]:
    """Those that --quick keeps."""
    if names is None:
        return found
    if not isinstance(names, list) or not names:
        raise UsageError(f"quick.{what} must be a list of names")
    for name in names:
        if name not in found:
            raise unknown(f"name in quick.{what}", name, found)
    return {name: found[name] for name in found if name in names}


def _threshold(given: object, example: Federation) -> float | None:
    """The return of the second picture: the file's, or the middle one of those published for the task."""
    if given is None:
        targets = published_targets(example)
        return median_low(targets) if targets else None
    if not is_number(given):
        raise UsageError(f"matrix.threshold must be a return, not {show(given)}")
    return float(given)
