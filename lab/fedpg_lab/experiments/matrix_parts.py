"""What a matrix of rules and attacks is made of: rows, columns, and the federations by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fedpg_common.federation import Federation


@dataclass(frozen=True)
class Variant:
    """One of a row's settings."""

    label: str
    """What sets it apart from the row's others; empty for an only one."""
    undisturbed: str
    """The federation without attackers, by name."""
    attacked: Mapping[str, str]
    """The federation of each column, by name."""


@dataclass(frozen=True)
class Row:
    """A rule."""

    name: str
    variants: tuple[Variant, ...]


@dataclass(frozen=True)
class Matrix:
    """Rules against attacks, for one task, K and number of attackers."""

    example: Federation
    """Any of its federations: task, K and trajectories are the same in all."""
    byzantine: int
    threshold: float | None
    rows: tuple[Row, ...]
    columns: tuple[str, ...]

    @property
    def title(self) -> str:
        """For people, for example "CartPole-v1, K = 10, B = 3"."""
        return f"{self.example.task.name}, K = {self.example.agents}, B = {self.byzantine}"

    def federations(self, rows: Sequence[str] | None, columns: Sequence[str] | None) -> Iterator[str]:
        """The federations of these rows and columns (None: of all), with the rows' undisturbed ones."""
        for row in self.rows:
            if rows is None or row.name in rows:
                for variant in row.variants:
                    yield variant.undisturbed
                    yield from (variant.attacked[name] for name in self.columns if columns is None or name in columns)
