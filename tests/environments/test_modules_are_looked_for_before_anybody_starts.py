"""A module that a part of the federation comes from is looked for before anything starts, and who names it is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from fedpg_common.descriptions import federation_from_toml
from fedpg_common.environments import make_environments
from fedpg_common.errors import ExitCode
from fedpg_common.learning.policies import make_policy
from fedpg_common.tasks import CARTPOLE
from fedpg_lab.deploy.own_modules import who_names_them
from fedpg_server.learning.worlds import check_worlds
from support.lab import Command

WRAPPER = "import gymnasium\n\nclass Wrap(gymnasium.Wrapper):\n    pass\n"
ATTACK = "from fedpg_client.attacks.base import Attack\n\nclass Mine(Attack):\n    pass\n"
HEAD = 'task = "CartPole-v1"\nagents = 4\ntrajectories = 30\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with two modules in it of which one cannot be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "there_wraps.py").write_text(WRAPPER)
    (tmp_path / "there_attacks.py").write_text(ATTACK)
    (tmp_path / "broken_wraps.py").write_text("import no_such_library\n")
    return tmp_path


def world(wrapper: str) -> str:
    return f'{HEAD}[environments.2]\nwrappers = ["there_wraps:Wrap"]\n[environments.3]\nwrappers = ["{wrapper}"]\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            world("gone_wraps:X"),
            ("the world of agent 3: wrapper gone_wraps:X", "gone_wraps is not there", "PYTHONPATH"),
        ),
        (world("there_wraps:Wrapp"), ("the world of agent 3: wrapper there_wraps:Wrapp", "has no class Wrapp")),
        (world("broken_wraps:X"), ("the world of agent 3: wrapper broken_wraps:X", "no_such_library")),
        (f'{HEAD}[byzantine]\n1 = "alie"\n3 = "gone_attacks:X"', ("agent 3: attack gone_attacks:X", "gone_attacks")),
        (f'{HEAD}byzantine = 2\nattack = "gone_attacks:X"', ("fedpg: attack gone_attacks:X",)),
        (f'{HEAD}aggregator = "gone_rules:X"', ("aggregator gone_rules:X",)),
        (f'{HEAD}algorithm = "gone_methods:X"', ("algorithm gone_methods:X",)),
        (f'{HEAD}wrappers = ["gone_wraps:X"]', ("gone_wraps",)),
    ],
)
def test_training_ends_before_anybody_starts(folder: Path, fedpg: Command, text: str, words: tuple[str, ...]) -> None:
    (folder / "federation.toml").write_text(text)
    code, _, error = fedpg("train", "--federation", "federation.toml", "--no-tensorboard")
    assert code == ExitCode.USAGE
    assert all(word in error for word in words), error
    assert "Traceback" not in error
    assert not (folder / "runs").exists()


def test_a_server_warns_of_a_wrapper_that_only_the_agents_machine_may_have(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy = make_policy(CARTPOLE, 4, make_environments(CARTPOLE).action_space)
    check_worlds(federation_from_toml(world("there_wraps:Wrap"), ""), policy)
    assert not caplog.messages
    check_worlds(federation_from_toml(world("gone_wraps:X"), ""), policy)
    (message,) = caplog.messages
    assert message.startswith("the world of agent 3: wrapper gone_wraps:X")
    assert message.endswith("(rounds wait for that agent, unless its own machine has it)")


def test_each_module_is_looked_for_once(folder: Path) -> None:
    worlds = "".join(f'[environments.{agent}]\nwrappers = ["once_wraps:Wrap"]\n' for agent in range(1, 5))
    (folder / "once_wraps.py").write_text(f"{WRAPPER}\nopen('seen', 'a').write('x')\n")
    policy = make_policy(CARTPOLE, 4, make_environments(CARTPOLE).action_space)
    check_worlds(federation_from_toml(f"{HEAD}{worlds}", ""), policy)
    assert (folder / "seen").read_text() == "x"


def test_every_part_that_names_a_module_is_known() -> None:
    text = (
        f'{HEAD}aggregator = {{ name = "krum", after = ["my_mixes:Mix"] }}\nalgorithm = "my_methods:Method"\n'
        'wrappers = ["gymnasium.wrappers:ClipAction", "my_task:Wrap"]\n'
        '[byzantine]\n2 = "my_attacks:Mine"\n[environments.3]\nwrappers = ["my_wraps.deep:Wrap", "my_task:Wrap"]\n'
    )
    assert who_names_them(federation_from_toml(text, "")) == {
        "my_task": "a wrapper of the task",
        "my_wraps.deep": "a wrapper of agent 3",
        "my_methods": "the algorithm",
        "my_mixes": "the aggregator",
        "my_attacks": "the attack of agent 2",
    }


def test_a_compose_file_is_not_written_for_modules_that_its_folder_lacks(folder: Path, fedpg: Command) -> None:
    (folder / "parts").mkdir()
    (folder / "parts" / "a_wraps.py").write_text(WRAPPER)
    own = ("--set", "environments.3.wrappers=a_wraps:Wrap", "--modules", folder / "parts")
    code, _, error = fedpg("compose", "--agents", "4", *own)
    assert (code, error) == (0, "")
    code, out, error = fedpg("compose", "--agents", "4", "--set", "environments.2.wrappers=b_wraps.deep:Wrap", *own)
    assert (code, out) == (ExitCode.USAGE, "")
    assert "a wrapper of agent 2 comes from the module b_wraps.deep, but --modules" in error
    assert "has no b_wraps/deep.py" in error


def test_without_a_folder_of_modules_each_is_told_of(fedpg: Command) -> None:
    code, _, error = fedpg("compose", "--agents", "4", "--aggregator", "c_rules:Mine")
    assert code == 0
    assert "the aggregator comes from the module c_rules, which FedPG's images do not have" in error


def test_an_attack_in_the_folder_of_modules_is_found_there(tmp_path: Path, fedpg: Command) -> None:
    (tmp_path / "parts").mkdir(mode=0o755)
    (tmp_path / "parts" / "d_attacks.py").write_text(ATTACK)
    options = ("--byzantine", "1", "--attack", "d_attacks:Mine", "--modules", tmp_path / "parts")
    code, out, error = fedpg("compose", "--agents", "4", *options)
    assert (code, error) == (0, "")
    assert "d_attacks:Mine" in out
