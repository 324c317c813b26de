"""The same federation gives the same parameters, bit for bit, however its agents are spread and whatever is killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from fedpg_common.errors import StorageError
from fedpg_lab.local.processes import LocalFederation
from fedpg_lab.runs.folders import RunData, load_run
from support.lab import digests, run_federation, small_federation


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    return run_federation(small_federation(agents=10, byzantine=3), tmp_path_factory.mktemp("reference") / "run")


@pytest.mark.parametrize("agents_per_process", [2, 10])
def test_one_two_or_ten_agents_to_a_process(tmp_path: Path, reference: RunData, agents_per_process: int) -> None:
    run = run_federation(small_federation(agents=10, byzantine=3), tmp_path / "run", agents_per_process)
    assert digests(run) == digests(reference)


def test_a_server_and_an_agent_killed_in_mid_run_come_back(tmp_path: Path) -> None:
    described = small_federation(agents=10, byzantine=3, trajectories=1000)
    undisturbed = run_federation(described, tmp_path / "undisturbed", agents_per_process=10)
    folder = tmp_path / "run"
    federation = LocalFederation(described, folder, observers=())
    killed = threading.Event()

    def kill_after_the_first_round() -> None:
        while not killed.is_set():
            try:
                if load_run(folder).records:
                    os.kill(federation.server_pid, signal.SIGKILL)
                    os.kill(federation.agent_pids[4], signal.SIGKILL)
                    killed.set()
            except StorageError:
                pass  # there is no store yet
            time.sleep(0.01)

    with federation:
        killer = threading.Thread(target=kill_after_the_first_round)
        killer.start()
        while federation.supervise():
            time.sleep(0.05)
        federation.wait_for_agents(10)
        assert killed.is_set()
        killer.join()
        assert federation.restarts == 2
    assert digests(load_run(folder)) == digests(undisturbed)


def test_another_seed_gives_other_parameters(tmp_path: Path, reference: RunData) -> None:
    run = run_federation(small_federation(agents=10, byzantine=3, seed=1), tmp_path / "run", agents_per_process=10)
    assert not set(digests(run)) & set(digests(reference))
