"""An observer that fails is left out with one warning; one that cannot be made is refused with one sentence."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from fedpg_common.choices import Choice
from fedpg_common.cli.observer_options import chosen_observers, parse_observer
from fedpg_common.descriptions import describe
from fedpg_common.errors import UsageError
from fedpg_common.learning.parameters import Vector
from fedpg_server.learning.records import RoundRecord
from fedpg_server.observers.base import Observed, Observers, build_observers
from support.protocol import SPEC, make_round_record

HERE = __name__


class Watcher:
    """An observer that fails at a round, or when it is closed."""

    def __init__(self, observed: Observed, at: int = 0, closing: bool = False) -> None:
        self.at, self.closing, self.seen, self.closed = at, closing, list[int](), 0

    def record(self, record: RoundRecord, theta: Vector) -> None:
        if record.round_number == self.at:
            raise RuntimeError("the tracker\nis gone")
        self.seen.append(record.round_number)

    def close(self) -> None:
        self.closed += 1
        if self.closing:
            raise OSError("no route")


def observed(folder: Path) -> Observed:
    return Observed(folder, describe("CartPole-v1"), SPEC, [])


def test_an_observer_that_raises_is_left_out_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    choices = [Choice(f"{HERE}:Watcher", settings) for settings in ({"at": 2}, {}, {"closing": True})]
    failing, sound, unclosable = build_observers(choices, observed(tmp_path))
    observers = Observers([failing, sound, unclosable])
    for number in (1, 2, 3):
        observers.record(make_round_record(number), np.zeros(1, np.float32))
    observers.close()
    assert [watcher.seen for watcher in (failing, sound, unclosable)] == [[1], [1, 2, 3], [1, 2, 3]]  # type: ignore[attr-defined]
    assert [watcher.closed for watcher in (failing, sound, unclosable)] == [1, 1, 1]  # type: ignore[attr-defined]
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert re.fullmatch(
        r"the observer Watcher failed, round 2, and is left out from now on: RuntimeError: the tracker is gone "
        rf"\({HERE.rpartition('.')[2]}\.py, line \d+\)",
        warnings[0],
    )


class Ending(Watcher):
    """An observer that ends the process."""

    def record(self, record: RoundRecord, theta: Vector) -> None:
        sys.exit(3)

    def close(self) -> None:
        raise SystemExit


def test_an_observer_that_ends_the_process_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    observers = Observers(build_observers([Choice(f"{HERE}:Ending")], observed(tmp_path)))
    observers.record(make_round_record(1), np.zeros(1, np.float32))
    observers.close()
    assert "the observer Ending failed, round 1" in caplog.text
    assert "it ended the process (SystemExit: 3)" in caplog.text
    assert "while it was closed" in caplog.text


class NotAnObserver:
    """It has none of an observer's methods."""

    def __init__(self, observed: Observed) -> None:
        """As an observer."""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("csv", "unknown observer 'csv': choose one of checkpoints, tensorboard, or MODULE:NAME"),
        ("", "--observer takes NAME"),
        ("checkpoints 'x", "--observer takes NAME"),
        ("checkpoints often", "a setting is written NAME=VALUE"),
        ("checkpoints name=x", "no setting is called name"),
        ("checkpoints every_rounds=0", "every_rounds must be a whole number of at least 1, not 0"),
        (f"{HERE}:NotAnObserver", "has no method 'record'"),
        ("no_such:Thing", "no_such cannot be imported"),
    ],
)
def test_a_wrong_observer_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_observers([parse_observer(text)], observed(tmp_path))
    assert sentence in str(caught.value)


def test_shipped_observers_can_be_set_and_left_out() -> None:
    assert chosen_observers(True, []) == (Choice("checkpoints"), Choice("tensorboard"))
    assert chosen_observers(False, ["checkpoints every_rounds=5"]) == (Choice("checkpoints", {"every_rounds": 5}),)
    both = chosen_observers(False, ["a:B x=1", "a:B x=2"])
    assert both[1:] == (Choice("a:B", {"x": 1}), Choice("a:B", {"x": 2}))
