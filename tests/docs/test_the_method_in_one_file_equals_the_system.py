"""examples/fedpg_br_in_one_file.py computes what the system computes, bit for bit, round by round."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from fedpg_common.bootstrap import use_one_thread
from fedpg_common.descriptions import describe
from fedpg_common.federation import Federation
from fedpg_common.learning.parameters import Vector
from fedpg_lab.runs.folders import RunData
from support.documentation import ROOT
from support.lab import digests, run_federation

FILE = ROOT / "examples" / "fedpg_br_in_one_file.py"
LINES_MAX = 200
FEDERATIONS = [
    describe("CartPole-v1", agents=4, byzantine=1, trajectories=100),
    describe("CartPole-v1", agents=1, seed=3, trajectories=60),
]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """The example as a module."""
    specification = importlib.util.spec_from_file_location("fedpg_br_in_one_file", FILE)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    use_one_thread()
    return module


@pytest.fixture(scope="module", params=FEDERATIONS, ids=lambda federation: f"K{federation.agents}")
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunData:
    """A run of the system, with processes and a network."""
    return run_federation(request.param, tmp_path_factory.mktemp("system") / "run", agents_per_process=4)


def rounds_of(example: ModuleType, federation: Federation) -> list[tuple[Vector, str]]:
    """Parameters and line of each round."""
    attackers = len(federation.byzantine)
    return list(example.train(federation.agents, attackers, federation.task.trajectories, federation.seed))


def test_every_round_has_the_same_parameters(example: ModuleType, run: RunData) -> None:
    rounds = rounds_of(example, run.federation)
    assert [hashlib.sha256(theta.tobytes()).hexdigest() for theta, _ in rounds] == digests(run)
    assert sum(record.inner_steps_taken for record in run.records) > len(run.records)
    for record, (_, line) in zip(run.records, rounds, strict=True):
        assert f"trajectories {record.trajectories_total}  return {record.evaluation_return:.1f}" in line
        assert line.endswith(f"{record.rule} accepted {list(record.accepted)}")


def test_it_is_one_file_that_needs_numpy_and_gymnasium_alone() -> None:
    text = FILE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LINES_MAX
    assert "fedpg_common" not in text
    assert "torch" not in text


def test_it_runs_as_its_first_lines_say(tmp_path: Path) -> None:
    command = next(line for line in FILE.read_text(encoding="utf-8").splitlines() if line.startswith("    python "))
    arguments = command.split()[2:]
    assert arguments[0] == "--agents"
    arguments[arguments.index("--trajectories") + 1] = "30"
    ended = subprocess.run(
        [sys.executable, FILE, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True
    )
    assert ended.stdout.startswith("round 1  trajectories ")
    assert "Traceback" not in ended.stderr
