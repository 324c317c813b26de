"""The faults that are active, and what they make of each participant: the same for every backend."""

from __future__ import annotations

from fedpg_lab.faults.backend import SERVER, Fault, FaultKind
from fedpg_lab.local.processes import SERVER as SERVER_NAME

DOWN = (FaultKind.KILL, FaultKind.STOP)
"""While one of these is active, the participant is not running."""


def name_of(participant: int) -> str:
    """The name of the server or of an agent, as processes and containers have it."""
    return SERVER_NAME if participant == SERVER else f"agent-{participant}"


class ActiveFaults:
    """What a backend makes hold, and nothing else. Faults on the same participant add up."""

    def __init__(self) -> None:
        """None."""
        self._faults: list[Fault] = []

    def begin(self, fault: Fault) -> None:
        """A fault is active from now on."""
        self._faults.append(fault)

    def end(self, fault: Fault) -> bool:
        """A fault is not active any more; False if it was not before."""
        if fault not in self._faults:
            return False
        self._faults.remove(fault)
        return True

    def on(self, participant: int) -> list[Fault]:
        """Those on a participant, in the order in which they began."""
        return [fault for fault in self._faults if participant in fault.targets]

    def on_link(self, agent: int) -> list[Fault]:
        """Those on an agent or on the server, in the order in which they began."""
        return [fault for fault in self._faults if {agent, SERVER} & set(fault.targets)]

    def is_down(self, participant: int) -> bool:
        """Whether it must not run."""
        return any(fault.kind in DOWN for fault in self.on(participant))

    def is_paused(self, participant: int) -> bool:
        """Whether it stands still."""
        return any(fault.kind is FaultKind.PAUSE for fault in self.on(participant))

    def cpu_fraction(self, participant: int) -> float | None:
        """The fraction of a core that it gets, which the latest of its faults says; None for as much as there is."""
        kinds = (fault for fault in reversed(self.on(participant)) if fault.kind is FaultKind.SLOW_CPU)
        return next((fault.fraction for fault in kinds), None)
