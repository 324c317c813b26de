"""Small local federations for the tests of the lab."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

from fedpg_common.cli.observer_options import chosen_observers
from fedpg_common.descriptions import describe, federation_to_toml
from fedpg_common.federation import Federation
from fedpg_lab.local.train import TrainOptions, train
from fedpg_lab.runs.folders import RunData
from fedpg_server.learning.records import RoundRecord
from fedpg_server.storage.store import STORE_NAME, Store
from rich.console import Console
from support.protocol import initial_state

TRAJECTORIES = 60

Command = Callable[..., tuple[int, str, str]]
"""The `fedpg` command in this process, as the fixture `fedpg` runs it: exit code, standard output, standard error."""


def small_federation(
    agents: int = 4,
    byzantine: int = 1,
    attack: str = "random-noise",
    seed: int = 0,
    trajectories: int = TRAJECTORIES,
) -> Federation:
    """CartPole, by default for a few rounds, which are over in a twinkling."""
    return describe(
        "CartPole-v1", agents=agents, byzantine=byzantine, attack=attack, seed=seed, trajectories=trajectories
    )


def run_federation(federation: Federation, folder: Path, agents_per_process: int = 1) -> RunData:
    """Run it with real processes, without TensorBoard files."""
    options = TrainOptions(agents_per_process=agents_per_process, observers=chosen_observers(False, ()))
    return train(federation, folder, options, Console(file=io.StringIO()))


def digests(run: RunData) -> list[str]:
    """The parameter digest of every round."""
    return [record.parameters_digest for record in run.records]


def write_run(folder: Path, federation: Federation, records: Sequence[RoundRecord], run_id: str = "run") -> Path:
    """A run folder whose store has these rounds, and nothing else."""
    folder.mkdir(parents=True)
    store = Store.create(folder / STORE_NAME, run_id, federation_to_toml(federation), initial_state())
    for record in records:
        store.finish_round(record, initial_state())
    store.close()
    return folder
