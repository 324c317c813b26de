r"""What looks on while a run goes on, chosen by name: TensorBoard, checkpoints, anybody's own.

An observer is a class. Its constructor is given what it is to observe, and its settings:

    class Csv:
        '''A line per round in a file of one's own.'''

        def __init__(self, observed: Observed, name: str = "returns.csv") -> None:
            self._file = (observed.folder / name).open("a", encoding="utf-8")

        def record(self, record: RoundRecord, theta: Vector) -> None:
            self._file.write(f"{record.round_number},{record.evaluation_return}\n")

        def close(self) -> None:
            self._file.close()

An observer never ends a run: one that raises is left out from then on, with one warning.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from fedpg_common.choices import Choice
from fedpg_common.cli.observer_options import OBSERVERS
from fedpg_common.errors import UsageError
from fedpg_common.federation import Federation
from fedpg_common.learning.parameters import ParameterSpec, Vector
from fedpg_common.others_code import asked, place, raise_if_ours, reason

from fedpg_server.learning.records import RoundRecord

log = logging.getLogger(__name__)


class Observer(Protocol):
    """Whatever wants to see every closed round."""

    def record(self, record: RoundRecord, theta: Vector) -> None:
        """Take one closed round and the parameters (d,) after it. The server waits, so that it should be quick."""

    def close(self) -> None:
        """Write what is buffered."""


@dataclass(frozen=True)
class Observed:
    """What an observer is told when it is made."""

    folder: Path
    """The run folder."""
    federation: Federation
    spec: ParameterSpec
    """The tensors in θ."""
    records: Sequence[RoundRecord]
    """The rounds so far, where a run is resumed."""
    parameters: Callable[[int], Vector | None] | None = None
    """θ (d,) after one of these rounds; None of a round whose θ is not kept. To be used in the constructor alone."""


def build_observers(choices: Sequence[Choice], observed: Observed) -> list[Observer]:
    """Make those that are chosen. Raises UsageError, and what the constructors of FedPG's own raise."""
    built: list[Observer] = []
    try:
        for choice in choices:
            observer = OBSERVERS.build(choice, observed)
            for method in ("record", "close"):
                if not callable(getattr(observer, method, None)):
                    raise UsageError(f"observer {choice.name} has no method {method!r}")
            built.append(observer)
    except BaseException:
        Observers(built).close()
        raise
    return built


class Observers:
    """Several observers, none of which can harm the run or each other."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        """Take them over: `close` closes them."""
        self._observers = list(observers)

    def record(self, record: RoundRecord, theta: Vector) -> None:
        """Show all of them a closed round."""
        for observer in list(self._observers):
            try:
                asked("record", _name(observer), partial(observer.record, record, theta))
            except BaseException as error:  # an observer that is not ours may raise anything
                raise_if_ours(error)
                self._observers.remove(observer)
                _warn(observer, f"round {record.round_number}", error)
                _close(observer)

    def close(self) -> None:
        """Close all of them."""
        for observer in self._observers:
            _close(observer)
        self._observers.clear()


def _name(observer: Observer) -> str:
    return f"the observer {type(observer).__name__}"


def _close(observer: Observer) -> None:
    try:
        asked("close", _name(observer), observer.close)
    except BaseException as error:  # see above
        raise_if_ours(error)
        _warn(observer, "while it was closed", error)


def _warn(observer: Observer, where: str, error: BaseException) -> None:
    log.warning("%s failed, %s, and is left out from now on: %s%s",
                _name(observer), where, reason(error), place(error))  # fmt: skip
    log.debug("its traceback", exc_info=error)
