"""Help, typing errors and commands that do not learn start at once: they import nothing that takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from fedpg_lab.cli import COMMANDS, LazyCommand
from support.terminal import MODULES, command_line, environment

HEAVY = {"torch", "matplotlib", "gymnasium", "mujoco", "Box2D", "tensorboard", "PIL", "jinja2", "safetensors"}
HELPS = [("fedpg", name, "--help") for name in COMMANDS]


def modules_after(folder: Path, command: str, *arguments: str) -> set[str]:
    """The top-level modules that a command has imported by its end."""
    program = (
        "import json, sys\n"
        f"sys.argv = {[command, *arguments]!r}\n"
        f"from {MODULES[command]}.__main__ import main\n"
        "try:\n    main()\n"
        "finally:\n"
        "    names = {name.partition('.')[0] for name in sys.modules}\n"
        "    open('modules.json', 'w').write(json.dumps([*names]))\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, timeout=300, check=False)
    return set(json.loads((folder / "modules.json").read_text()))


@pytest.mark.parametrize(
    "arguments",
    [
        ("fedpg", "--help"),
        ("fedpg", "--version"),
        ("fedpg", "trian"),
        ("fedpg", "train", "--agnets", "3"),
        ("fedpg", "train", "--agents", "0"),
        ("fedpg", "status", "--server", "127.0.0.1:1"),
        ("fedpg", "certs", "--agents", "1"),
        ("fedpg", "compose"),
        ("fedpg", "compose", "--swarm"),
        *HELPS,
        ("fedpg-server", "--help"),
        ("fedpg-server", "--version"),
        ("fedpg-agent", "--help"),
        ("fedpg-agent", "--version"),
        ("fedpg-agent", "--server", "nonsense", "--agent", "1"),
    ],
    ids=" ".join,
)
def test_what_it_does_not_use(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    loaded = modules_after(tmp_path, *arguments)
    assert not loaded & HEAVY
    if arguments[-1] in ("--help", "--version"):
        assert not loaded & {"numpy", "grpc", "cryptography"}


def test_an_agent_waits_for_its_server_without_torch(tmp_path: Path) -> None:
    assert "torch" not in modules_after(
        tmp_path, "fedpg-agent", "--server", "127.0.0.1:1", "--agent", "1", "--connect-timeout", "0"
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_says_of_itself(name: str) -> None:
    target, summary = COMMANDS[name]
    command = LazyCommand(name, target, summary).load()
    first = command.help.replace("\n", " ").partition(". ")[0].removesuffix(".") + "."
    assert first.partition("  ")[0].startswith(summary), first
    assert command.name == name


@pytest.mark.parametrize("command", MODULES)
def test_the_version(command: str) -> None:
    ended = subprocess.run(command_line(command, "--version"), capture_output=True, text=True, timeout=300, check=True)
    assert ended.stdout == f"{version('fedpg')}\n"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("fedpg tr", ["train"]),
        ("fedpg train --task Ca", ["CartPole-v1"]),
        ("fedpg train --algorithm g", ["gpomdp"]),
        ("fedpg train --attack s", ["seesaw", "sign-flipping", "silence", "slow-loris", "stale-round"]),
        ("fedpg train --agents-p", ["--agents-per-process"]),
        ("fedpg faults agent-cr", ["agent-crash"]),
        ("fedpg-agent --attack zer", ["zero-gradient"]),
        ("fedpg-server --task Lu", ["LunarLander-v3"]),
    ],
)
def test_completion(typed: str, offered: list[str]) -> None:
    words = typed.split()
    variables = environment(
        **{f"_{words[0].replace('-', '_').upper()}_COMPLETE": "complete_bash", "COMP_WORDS": typed},
        COMP_CWORD=str(len(words) - 1),
    )
    ended = subprocess.run(
        command_line(words[0]), env=variables, capture_output=True, text=True, timeout=300, check=False
    )
    assert sorted(ended.stdout.split()) == offered, ended.stderr


@pytest.mark.parametrize("module", ["fedpg_lab.local.train", "fedpg_lab.local.preloaded"])
def test_a_local_federation_starts_without_what_takes_longest_to_load(module: str) -> None:
    program = f"import sys, {module}; print(sorted({{'torch', 'matplotlib', 'pandas'}} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert ended.stdout == "[]\n"


def test_a_fork_server_is_started_before_anything_large_is_loaded() -> None:
    program = "import sys, fedpg_lab.local.fork_server; print(sorted({'numpy', 'grpc', 'rich'} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert ended.stdout == "[]\n"
