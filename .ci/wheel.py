"""Build the wheel, install it in a clean environment outside the repository, and use it there as a user does.

    .venv/bin/python .ci/wheel.py

The environment holds the wheel and exactly what its metadata requires, with what these require in turn, linked from the
environment that runs this script: so a dependency that is used but not declared is missing, and nothing is downloaded
twice. A file that the wheel ought to carry and does not is missing, too, since nothing runs within the repository.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import venv
from collections.abc import Iterator
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
SITE_PACKAGES = Path(sysconfig.get_path("purelib"))
COMMAND_MAX_S = 300


def main() -> None:
    """Raise CalledProcessError or AssertionError at the first thing that does not work."""
    with tempfile.TemporaryDirectory(prefix="fedpg-wheel-") as name:
        place = Path(name)
        wheel = build(place)
        environment = install(wheel, place / "environment")
        link_dependencies(environment)
        run(environment / "bin" / "python", "-m", "pip", "check", cwd=place)
        use(environment, place)
    print(f"{wheel.name} works in an environment of its own.")


def build(place: Path) -> Path:
    """The wheel, built from a copy of what git knows: leftovers of earlier builds would end up in it."""
    source = place / "source"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for file in filter(None, listed.stdout.split("\0")):
        if (ROOT / file).is_file():
            (source / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, source / file)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", place, source, cwd=place)
    (wheel,) = place.glob("*.whl")
    return wheel


def install(wheel: Path, environment: Path) -> Path:
    """A new virtual environment with nothing but pip and the wheel."""
    venv.create(environment, with_pip=True)
    run(environment / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps", wheel, cwd=environment)
    return environment


def link_dependencies(environment: Path) -> None:
    """Link what the wheel requires, and what that requires, from this environment's packages."""
    (site,) = environment.glob("lib/python*/site-packages")
    (about,) = site.glob("fedpg-*.dist-info")
    for required in closure(PathDistribution(about)):
        for top in {file.parts[0] for file in required.files or () if file.parts[0] not in ("..", "__pycache__")}:
            if not (site / top).exists():
                (site / top).symlink_to(SITE_PACKAGES / top)


def closure(root: Distribution) -> list[Distribution]:
    """The distributions that `root` requires here, directly or not."""
    found: dict[str, Distribution] = {}
    waiting = [(root, frozenset[str]())]
    seen = set()
    while waiting:
        one, extras = waiting.pop()
        for requirement in requirements(one, extras):
            key = requirement.name.lower(), frozenset(requirement.extras)
            if key not in seen:
                seen.add(key)
                found[key[0]] = distribution(requirement.name)
                waiting.append((found[key[0]], key[1]))
    return list(found.values())


def requirements(one: Distribution, extras: frozenset[str]) -> Iterator[Requirement]:
    """What a distribution with these extras requires on this machine."""
    for text in one.requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras | {""}):
            yield requirement


def use(environment: Path, place: Path) -> None:
    """Do what the README begins with, and run the examples of docs/python.md."""
    home = place / "home"
    home.mkdir()
    python, fedpg = environment / "bin" / "python", environment / "bin" / "fedpg"
    where = run(python, "-c", "import fedpg_lab.api, fedpg.v1; print(fedpg_lab.__file__, fedpg.v1.__file__)", cwd=home)
    assert where.count(str(environment)) == 2, where
    assert list(environment.glob("lib/python*/site-packages/fedpg-*.dist-info/licenses/LICENSE"))

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for command in ("fedpg", "fedpg-server", "fedpg-agent"):
        assert version in run(environment / "bin" / command, "--version", cwd=home)
    run(fedpg, "train", "--agents", 3, "--trajectories", 60, "--name", "wheel", cwd=home)
    folder = home / "runs" / "wheel"
    assert json.loads((folder / "summary.json").read_text())["complete"]
    assert (folder / "returns.png").stat().st_size > 10_000
    assert "mean" in run(fedpg, "evaluate", "runs/wheel", cwd=home)
    run(fedpg, "figure", "runs/wheel", "--out", "wheel.png", cwd=home)
    run(fedpg, "watch", "runs/wheel", "--save", "wheel.html", cwd=home)  # scripts and styles that come with the package
    assert "uPlot" in (home / "wheel.html").read_text(encoding="utf-8")
    run(fedpg, "faults", "agent-crash", "--dry-run", cwd=home)  # a file that comes with the package
    assert "services" in run(fedpg, "compose", "--agents", 3, cwd=home)

    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    script = home / "script.py"
    script.write_text("\n".join(re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)))
    assert "CartPole-v1: " in run(python, script, cwd=home)


def run(*command: object, cwd: Path) -> str:
    """Run a command in `cwd`, with nothing of this environment in its own; returns its standard output."""
    outside = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    print("$", *command, flush=True)
    ended = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=outside, stdout=subprocess.PIPE, text=True, timeout=COMMAND_MAX_S,
        check=True,
    )  # fmt: skip
    return ended.stdout


if __name__ == "__main__":
    main()
