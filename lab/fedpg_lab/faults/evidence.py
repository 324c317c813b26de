"""What a scenario's run left behind, read once: records, votes and parameters from the store, and the logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedpg_common.errors import StorageError
from fedpg_common.federation import Federation
from fedpg_common.learning.parameters import digest
from fedpg_common.transport.verdicts import Verdict
from fedpg_server.learning.records import RoundRecord
from fedpg_server.storage.store import STORE_NAME, Store

from fedpg_lab.local.processes import LOG_FOLDER

TRACEBACK = "Traceback (most recent call last)"


@dataclass(frozen=True)
class Evidence:
    """A run, as far as the invariants look at it."""

    federation: Federation
    records: Sequence[RoundRecord]
    votes: Sequence[tuple[int, int]]
    """(round, agent) of every stored vote."""
    stored_digests: Mapping[int, str]
    """Digest of the parameters that are stored for a round, by round; 0 is the start. A missing round has none."""
    verdicts: Mapping[int, Mapping[Verdict, int]]
    """How often each agent got each verdict; agent 0 stands for all who are not members."""
    logs: Sequence[str]
    """Names of the logs that were read."""
    failures: Sequence[str]
    """Names of the logs that show an exception that nobody caught."""
    parameters_from: int = 1
    """The round from which on the store keeps the parameters of each."""

    @property
    def voters(self) -> Mapping[int, frozenset[int]]:
        """Who voted in each round, by the votes."""
        voters: dict[int, set[int]] = {}
        for round_number, agent in self.votes:
            voters.setdefault(round_number, set()).add(agent)
        return {round_number: frozenset(agents) for round_number, agents in voters.items()}


def read_evidence(folder: Path) -> Evidence:
    """Read a run folder. Raises StorageError for a store that is missing or cannot be read."""
    with Store.read(folder / STORE_NAME) as store:
        records = store.records()
        logs = sorted(path for path in (folder / LOG_FOLDER).glob("*.log") if path.is_file())
        return Evidence(
            federation=store.federation,
            records=records,
            votes=store.votes(),
            stored_digests={n: digest(store.parameters(n)) for n in store.state_rounds()},
            parameters_from=store.parameters_from,
            verdicts=store.verdict_counts(),
            logs=[path.name for path in logs],
            failures=[path.name for path in logs if _has_traceback(path)],
        )


def _has_traceback(path: Path) -> bool:
    """Whether a log shows an exception. Raises StorageError."""
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            return any(TRACEBACK in line for line in lines)
    except OSError as error:
        raise StorageError(f"the log {path} cannot be read: {error.strerror}") from error
