"""Scenario files of the tests, and the plans that they become."""

from __future__ import annotations

from pathlib import Path

from fedpg_lab.faults.scenario import Scenario, read_scenario

FEDERATION = '[federation]\ntask = "CartPole-v1"\nagents = 10\nbyzantine = 3\n'


def described(tmp_path: Path, text: str, seed: int | None = None) -> Scenario:
    """The scenario of this text."""
    path = tmp_path / "described.toml"
    path.write_text(text, encoding="utf-8")
    return read_scenario(str(path), seed)


def with_fault(*lines: str, head: str = FEDERATION) -> str:
    """A scenario's text with one fault."""
    return "\n".join([head, "[[fault]]", *lines])


def split(folder: Path, name: str, agents: int, alpha: float, seed: int) -> tuple[Scenario, tuple[int, ...]]:
    """A scenario with that split, and who is cut off."""
    head = f'seed = {seed}\n[federation]\ntask = "CartPole-v1"\nagents = {agents}\nalpha = {alpha}\n'
    scenario = described(
        folder, with_fault('kind = "partition"', f'split = "{name}"', "at_s = 1", "for_s = 1", head=head)
    )
    (planned,) = scenario.planned
    return scenario, planned.fault.targets
