"""Whoever waits long for a part of somebody's own says for which method of which part, and at which line it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from fedpg_client.attacks.reporting import reported
from fedpg_common.choices import Choice, import_named
from fedpg_common.errors import UsageError
from fedpg_common.learning.aggregators.composition import After
from fedpg_common.shipped import ALGORITHMS
from fedpg_common.waits import TELL_AFTER_S, Waits
from fedpg_server.learning import answers
from fedpg_server.observers.base import Observers
from support.hanging_parts import GATE, PATIENCE_S, Waiter
from support.protocol import make_round_record

VOTES = cast(Any, SimpleNamespace(plan=SimpleNamespace(round_number=1), agents=(1,)))
NOTHING = cast(Any, None)


class Mixing:
    """A pre-aggregator that waits."""

    def mix(self, votes: Any) -> Any:
        GATE.pass_through()


class Watching:
    """An observer that waits."""

    def __init__(self, method: str) -> None:
        self._method = method

    def record(self, record: Any, theta: Any) -> None:
        if self._method == "record":
            GATE.pass_through()

    def close(self) -> None:
        if self._method == "close":
            GATE.pass_through()


@pytest.fixture(autouse=True)
def gate() -> Iterator[None]:
    GATE.reset()
    yield
    GATE.opened.set()


def told_of(work: Callable[[], object]) -> list[str]:
    """What is said of a thread that does that work, once it has waited for long, and is at the gate."""

    def do() -> None:
        with suppress(Exception):  # what a part answers once it is let go is of no interest here
            work()

    now_s = 0.0
    watch = Waits(lambda: now_s)
    thread = threading.Thread(target=do)
    thread.start()
    try:
        assert GATE.reached.wait(PATIENCE_S)
        watch.look()
        now_s = TELL_AFTER_S
        return [str(one) for one in watch.look()[0] if one.thread == thread.ident]
    finally:
        GATE.opened.set()
        thread.join(PATIENCE_S)


def pass_gate() -> Any:
    GATE.pass_through()


@pytest.mark.parametrize(
    ("work", "what"),
    [
        (lambda: reported(Waiter(), "mine:Waiter").tamper_gradient(np.ones(1, np.float32), NOTHING),
         "tamper_gradient of attack mine:Waiter"),
        (lambda: reported(Waiter(), "mine:Waiter").collude({1: np.ones(1, np.float32)}, NOTHING),
         "collude of attack mine:Waiter"),
        (lambda: answers.checked_aggregate(pass_gate, VOTES, "mine:Rule"), "aggregate of the aggregator mine:Rule"),
        (lambda: After(NOTHING, [Mixing()]).aggregate(VOTES, {}), "mix of the pre-aggregator Mixing"),
        (lambda: answers.checked_plan(pass_gate, 1, "mine:Way"), "plan of the algorithm mine:Way"),
        (lambda: answers.checked_improvement(pass_gate, NOTHING, "mine:Way"), "improve of the algorithm mine:Way"),
        (lambda: answers.checked_call(pass_gate, "screen", "mine:Way"), "screen of the algorithm mine:Way"),
        (lambda: Observers([Watching("record")]).record(make_round_record(1), np.zeros(1, np.float32)),
         "record of the observer Watching"),
        (lambda: Observers([Watching("close")]).close(), "close of the observer Watching"),
        (lambda: ALGORITHMS.build(Choice("support.hanging_parts:Constructed")),
         "__init__ of algorithm support.hanging_parts:Constructed"),
    ],
)  # fmt: skip
def test_it_is_named_with_its_line(work: Callable[[], object], what: str) -> None:
    # The gate is this test's own, and its frame the innermost that is nobody's library.
    (told,) = told_of(work)
    assert told.startswith(f"waiting for 10 s for {what} (hanging_parts.py, line ")


def test_a_module_that_is_imported_for_long_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imported_for_long.py").write_text("from support.hanging_parts import GATE\nGATE.pass_through()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (told,) = told_of(lambda: import_named("imported_for_long", "Mine", "attack imported_for_long:Mine"))
    assert told.startswith("waiting for 10 s for the import of the module imported_for_long (")


def test_what_comes_with_fedpg_may_take_its_time() -> None:
    """Its rules compute for long where there are many agents, and nobody could mend a line of theirs."""
    assert told_of(lambda: answers.checked_aggregate(pass_gate, VOTES, "history")) == []


def test_a_part_that_fails_is_still_named() -> None:
    with pytest.raises(UsageError, match=r"the algorithm mine:Way failed: KeyError: 'x' \(test_whoever\w+\.py, line"):
        answers.checked_call(lambda: dict[str, int]()["x"], "screen", "mine:Way")
