"""`fedpg check` finds the aggregators that break a promise, and says which; the shipped ones keep them all."""

from __future__ import annotations

import itertools
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedpg_common.choices import Choice
from fedpg_common.errors import ExitCode
from fedpg_common.learning.aggregators import Aggregate, Memory, Votes
from fedpg_common.learning.parameters import Vector
from fedpg_common.shipped import AGGREGATORS
from fedpg_lab.check.aggregators import check_aggregator
from fedpg_lab.check.patience import Patience
from support.lab import Command

ROOT = Path(__file__).parents[2]


def broken(name: str, **settings: Any) -> dict[str, str]:
    """The promises that an aggregator breaks, and why."""
    return {check.promise: check.detail for check in check_aggregator(Choice(name, settings), quick=True)
            if not check.kept}  # fmt: skip


@pytest.mark.parametrize("name", [*AGGREGATORS.shipped])
@pytest.mark.parametrize("after", [[], ["nnm"]])
def test_the_shipped_ones_keep_every_promise(name: str, after: list[str]) -> None:
    assert broken(name, **({"after": after} if after else {})) == {}


class Base:
    """The median, of which each class below spoils one thing."""

    def aggregate(self, votes: Votes, memory: Memory) -> Aggregate:
        return self.answer(np.median(votes.matrix, axis=0).astype(np.float32), votes, memory)

    def answer(self, middle: Vector, votes: Votes, memory: Memory) -> Aggregate:
        return Aggregate(middle, "median")


class Nothing(Base):
    def answer(self, middle: Vector, votes: Votes, memory: Memory) -> Aggregate:
        return Aggregate(None, "none")


class Elsewhere(Base):
    def answer(self, middle: Vector, votes: Votes, memory: Memory) -> Aggregate:
        return Aggregate(middle + np.float32(3), "median")


class Drawing(Base):
    draw = np.random.default_rng(0)

    def answer(self, middle: Vector, votes: Votes, memory: Memory) -> Aggregate:
        return Aggregate(middle + np.float32(1e-5 * self.draw.random()), "median")


class Counting(Base):
    def __init__(self) -> None:
        self.rounds = itertools.count()

    def answer(self, middle: Vector, votes: Votes, memory: Memory) -> Aggregate:
        return Aggregate(middle + np.float32(1e-6 * next(self.rounds)), "median")


class Writing(Base):
    def aggregate(self, votes: Votes, memory: Memory) -> Aggregate:
        votes.matrix.sort(axis=0)
        return super().aggregate(votes, memory)


class FirstOnly(Base):
    def answer(self, middle: Vector, votes: Votes, memory: Memory) -> Aggregate:
        return Aggregate(votes.matrix[0].copy(), "first", {votes.agents[0]: 1.0})


class NeedsThree(Base):
    def answer(self, middle: Vector, votes: Votes, memory: Memory) -> Aggregate:
        if len(votes.agents) < 3:
            raise IndexError("too few")
        return Aggregate(middle, "median")


class Overflowing(Base):
    def answer(self, middle: Vector, votes: Votes, memory: Memory) -> Aggregate:
        return Aggregate(middle, "median", memory={"energy": np.square(votes.matrix).sum(axis=1)[:1]})


class Average(Base):
    def answer(self, middle: Vector, votes: Votes, memory: Memory) -> Aggregate:
        return Aggregate(votes.matrix.mean(axis=0, dtype=np.float64), "mean")


class FalseClaims(Base):
    equivariant = ("shift", "scale")

    def answer(self, middle: Vector, votes: Votes, memory: Memory) -> Aggregate:
        return Aggregate(np.clip(middle, -0.1, 0.1), "clipped")


class Slow(Base):
    def answer(self, middle: Vector, votes: Votes, memory: Memory) -> Aggregate:
        if len(votes.agents) > 50:
            raise MemoryError("no room for so many")
        return Aggregate(middle, "median")


class KeepingApart(Base):
    """What it keeps besides its memory is lost in a restart."""

    def __init__(self) -> None:
        self.before: Mapping[int, Vector] = {}

    def answer(self, middle: Vector, votes: Votes, memory: Memory) -> Aggregate:
        number = votes.plan.round_number
        moved = middle if number - 1 not in self.before else (middle + self.before[number - 1]) / np.float32(2)
        self.before = {number: middle}
        return Aggregate(moved, "median")


@pytest.mark.parametrize(
    ("part", "promise"),
    [
        (Nothing, "answers honest votes with a vector"),
        (Elsewhere, "answers honest votes with a vector"),
        (Drawing, "gives the same bits for the same votes"),
        (Counting, "keeps nothing but its memory"),
        (Writing, "leaves what it is given as it is"),
        (FirstOnly, "treats all agents alike"),
        (NeedsThree, "does with one vote, identical votes, and any agent absent"),
        (Overflowing, "stays finite whatever the size of a vote"),
        (Average, "is not moved far by ⌊αK⌋ votes of any size"),
        (FalseClaims, "moves with its votes (claimed: shift)"),
        (FalseClaims, "grows with its votes (claimed: scale)"),
        (KeepingApart, "memory survives a restart"),
        (Slow, "100 agents with 1,000 numbers: time and memory"),
    ],
)
def test_a_broken_promise_is_found(part: type[Base], promise: str) -> None:
    found = broken(f"{__name__}:{part.__name__}")
    assert promise in found
    assert found[promise]
    assert "\n" not in found[promise]


class Looping(Base):
    def answer(self, middle: Vector, votes: Votes, memory: Memory) -> Aggregate:
        while True:
            try:
                time.sleep(0.01)
            except Exception:
                continue


def test_one_that_never_answers_is_named_and_ends_the_check() -> None:
    told: list[str] = []
    checks = check_aggregator(Choice(f"{__name__}:Looping"), quick=True, patience=Patience(1.0, told.append, 0.1))
    (check,) = checks
    assert (check.promise, check.kept) == ("answers honest votes with a vector", False)
    assert re.fullmatch(
        r"no answer for 1 s \(test_aggregators\w+\.py, line \d+\): nothing else was tested", check.detail
    )
    (sentence,) = told
    assert re.fullmatch(
        r"no answer for 0\.1 s \(test_aggregators\w+\.py, line \d+\), and 1 s at most "
        r"\(promise: answers honest votes with a vector\)",
        sentence,
    )


class Leaving(Base):
    def answer(self, middle: Vector, votes: Votes, memory: Memory) -> Aggregate:
        sys.exit(3)


def test_one_that_ends_the_process_breaks_its_promises() -> None:
    assert "it ended the process (SystemExit: 3)" in broken(f"{__name__}:Leaving")["answers honest votes with a vector"]


def test_who_does_not_claim_to_resist_is_not_held_to_it() -> None:
    assert "is not moved far by ⌊αK⌋ votes of any size" not in broken("mean")


def test_the_command_prints_a_table_and_ends_with_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fedpg: Command
) -> None:
    (tmp_path / "own_parts.py").write_text(
        (ROOT / "examples" / "extending" / "clipping.py").read_text()
        + "\n\nclass Proud(CentredClipping):\n    resists = True\n\n\nclass Neither:\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    code, out, text = fedpg("check", "own_parts:CentredClipping", "--set", "radius=0.05", "--quick")
    assert (code, text) == (ExitCode.OK, "")
    assert "aggregator CentredClipping radius=0.05" in out
    assert len(re.findall(r"\bok\b", out)) == 9
    code, out, text = fedpg("check", "own_parts:Proud", "--set", "radius=1.0", "--quick")
    assert code == ExitCode.VIOLATED
    assert "failed" in out
    assert text.splitlines() == [
        "fedpg: aggregator Proud radius=1 breaks a promise: is not moved far by ⌊αK⌋ votes of any size"
    ]
    for arguments, sentence in (
        (("own_parts:CentredClipping", "--set", "radius=-1"), "radius must be a positive number, not -1"),
        (("own_parts:Nobody",), "own_parts has no class Nobody"),
        (("fedpg",), "fedpg is an aggregator and an attack: say which with --kind"),
        (("kurm",), "unknown aggregator or attack 'kurm': did you mean krum?"),
        (("krum", "--set", "faulty"), "a setting is written NAME=VALUE"),
    ):
        code, _, text = fedpg("check", *arguments, "--quick")
        assert (code, len(text.splitlines())) == (ExitCode.USAGE, 1), text
        assert sentence in text
