"""The images' lists of libraries: complete beside pyproject.toml, pinned, without torch for agents."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
ABSENT = {"imageio-ffmpeg"}
"""What the images do without, on purpose."""
HEAVY = ("torch", "matplotlib", "tensorboard", "PIL", "OpenGL", "rich", "jinja2", "safetensors")
"""What an agent must not need."""
WITHOUT = f"""
import importlib.abc, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())
import gymnasium
for name in ("CartPole-v1", "LunarLander-v3", "HalfCheetah-v5"):
    gymnasium.make(name).reset(seed=0)
import fedpg_client.cli
from typer.main import get_command
try:
    get_command(fedpg_client.cli.app)(["--help"])
except SystemExit as ended:
    assert ended.code == 0
"""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def listed(name: str) -> set[str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return {canonical(re.split(r"[\[<>=]", line)[0]) for line in lines if line and not line.startswith("#")}


def test_the_two_lists_and_torch_are_the_dependencies_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {canonical(re.split(r"[\[<>=]", line)[0]) for line in project["dependencies"]}
    installed = listed("deploy/agent-requirements.txt") | listed("deploy/server-requirements.txt") | {"torch"}
    assert needed - installed == ABSENT
    assert listed("deploy/server-requirements.txt") <= needed


def test_every_library_is_pinned() -> None:
    pinned = listed("constraints.txt")
    assert listed("deploy/agent-requirements.txt") <= pinned
    assert listed("deploy/server-requirements.txt") | {"torch"} <= pinned


def test_an_agent_computes_without_torch_and_what_draws() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT], env={"TYPER_USE_RICH": "0", "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "--server" in ended.stdout


def test_every_stage_is_part_of_an_image_with_a_name() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    bases = {stage: base for base, stage in re.findall(r"^FROM (\S+) AS (\S+)$", text, re.MULTILINE)}
    kept = set()
    for image in ("agent", "server"):
        while image in bases:
            kept.add(image)
            image = bases[image]
    assert kept == set(bases)
    assert "--from=" not in text
