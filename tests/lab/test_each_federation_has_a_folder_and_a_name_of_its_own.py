"""`fedpg compose --out`: a Compose file and its settings in a folder, as a project that no other federation is."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import pytest
import yaml
from fedpg_common.descriptions import describe
from fedpg_lab.deploy.clone import repository
from fedpg_lab.deploy.compose import PROJECT_NAME, compose_file, project_name
from fedpg_lab.deploy.compose_folder import settings_file
from lab.test_compose_file_describes_the_federation import ACROBOT, server_settings
from support.documentation import ROOT
from support.lab import Command

VARIABLE = re.compile(r"\$\{([A-Z_]+):-(.*?)\}")


def test_different_federations_are_different_projects(tmp_path: Path) -> None:
    (tmp_path / "acrobot.toml").write_text(ACROBOT)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "acrobot.toml").write_text(ACROBOT.replace("0.99", "0.9"))
    federations = [
        describe("CartPole-v1"), describe("LunarLander-v3"), describe("CartPole-v1", agents=9),
        describe("CartPole-v1", byzantine=3), describe("CartPole-v1", byzantine=3, attack="fedpg"),
        describe("CartPole-v1", algorithm="svrpg"), describe("CartPole-v1", seed=1),
        describe("CartPole-v1", trajectories=10), describe("CartPole-v1", sigma=0.1),
        describe("CartPole-v1", alpha=0.2), describe("CartPole-v1", round_timeout_s=7.0),
        describe(str(tmp_path / "acrobot.toml")),
        describe(str(tmp_path / "other" / "acrobot.toml")),
    ]  # fmt: skip
    names = [project_name(federation) for federation in federations]
    assert all(PROJECT_NAME.fullmatch(name) for name in names)
    assert not [(one, two) for one, two in combinations(names, 2) if one == two]
    assert names[3] == "fedpg-cartpole-v1_fedpg-br_k10_b3_random-noise"
    assert [yaml.safe_load(compose_file(federation, "a.toml"))["name"] for federation in federations] == names


def test_a_name_of_ones_own(fedpg: Command, tmp_path: Path) -> None:
    assert "\nname: mine\n" in fedpg("compose", "--name", "mine")[1]
    for name in ("Mine", "-mine", "my federation", "", "mine\n", "a/b"):
        code, output, errors = fedpg("compose", "--name", name, "--out", tmp_path / "never")
        assert (code, output) == (2, "")
        assert "lower-case letters" in errors
    assert not (tmp_path / "never").exists()


def test_the_settings_are_those_of_the_compose_file(fedpg: Command, tmp_path: Path) -> None:
    options = ("--agents", 4, "--byzantine", 1, "--attack", "fedpg", "--trajectories", 300, "--seed", 5)
    code, output, _ = fedpg("compose", *options, "--out", tmp_path / "a" / "b")
    assert code == 0
    assert "docker compose up" in output
    text = (tmp_path / "a" / "b" / "docker-compose.yml").read_text()
    lines = (tmp_path / "a" / "b" / ".env").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    assert settings.pop("COMPOSE_MENU") == "false"
    assert dict(VARIABLE.findall(text)) == settings
    assert settings["ATTACK"] == "fedpg"
    assert settings["TRAJECTORIES"] == "300"
    assert settings["SEED"] == "5"
    assert settings["SIGMA"] == ""


def test_a_federation_without_attackers_has_no_attack_to_set() -> None:
    assert "ATTACK" not in settings_file(describe("CartPole-v1"))
    assert "ATTACK" not in server_settings(describe("CartPole-v1"))


def test_the_images_are_built_from_the_clone(fedpg: Command, tmp_path: Path) -> None:
    fedpg("compose", "--out", tmp_path / "fed")
    services = yaml.safe_load((tmp_path / "fed" / "docker-compose.yml").read_text())["services"]
    contexts = {service["build"]["context"] for service in services.values() if "build" in service}
    assert {(tmp_path / "fed" / context).resolve() for context in contexts} == {repository()}


def test_without_a_clone_the_images_must_be_there() -> None:
    services = yaml.safe_load(compose_file(describe("CartPole-v1"), source=None))["services"]
    assert not any("build" in service for service in services.values())


def test_nothing_that_differs_is_written_over(fedpg: Command, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "fed")
    fedpg("compose", *out)
    assert fedpg("compose", *out)[0] == 0
    settings = tmp_path / "fed" / ".env"
    settings.write_text(settings.read_text().replace("SEED=0", "SEED=7"))
    code, _, errors = fedpg("compose", *out)
    assert code == 2
    assert f"{settings} is there already" in errors
    assert "SEED=7" in settings.read_text()
    assert fedpg("compose", *out, "--agents", 3)[0] == 2
    assert fedpg("compose", *out, "--agents", 3, "--replace")[0] == 0
    assert "SEED=0" in settings.read_text()


def test_a_task_file_comes_along(fedpg: Command, tmp_path: Path) -> None:
    (tmp_path / "acrobot.toml").write_text(ACROBOT)
    assert fedpg("compose", "--task", tmp_path / "acrobot.toml", "--out", tmp_path / "fed")[0] == 0
    assert (tmp_path / "fed" / "acrobot.toml").read_text() == ACROBOT
    content = yaml.safe_load((tmp_path / "fed" / "docker-compose.yml").read_text())
    assert content["configs"] == {"task": {"file": "acrobot.toml"}}
    assert "TASK=/acrobot.toml" in (tmp_path / "fed" / ".env").read_text().splitlines()


def test_modules_are_mounted_read_only_for_everyone(fedpg: Command, tmp_path: Path) -> None:
    (tmp_path / "my modules $x").mkdir(mode=0o755)
    (tmp_path / "my modules $x" / "worlds.py").touch(mode=0o644)
    (tmp_path / "task.toml").write_text(ACROBOT.replace("Acrobot-v1", "worlds:Mine-v0"))
    options = ("--agents", 2, "--task", tmp_path / "task.toml", "--modules", tmp_path / "my modules $x")
    assert fedpg("compose", *options, "--out", tmp_path / "fed")[0] == 0
    services = yaml.safe_load((tmp_path / "fed" / "docker-compose.yml").read_text())["services"]
    for name in ("server", "agent-1", "agent-2"):
        mount = services[name]["volumes"][-1]
        assert mount == {"type": "bind", "source": "../my modules $$x", "target": "/modules", "read_only": True}
        assert services[name]["environment"]["PYTHONPATH"] == "/modules"
    assert services["agent-1"]["environment"]["FEDPG_ALLOW"] == "worlds"
    assert "PYTHONPATH" not in compose_file(describe("CartPole-v1"))


def test_a_module_that_no_container_would_have_is_told(fedpg: Command, tmp_path: Path) -> None:
    puck = ROOT / "examples" / "my_environment" / "puck.toml"
    code, _, errors = fedpg("compose", "--task", puck, "--agents", 2, "--out", tmp_path / "without")
    assert code == 0
    assert "comes from the module my_envs, which FedPG's images do not have" in errors
    code, _, errors = fedpg(
        "compose", "--task", puck, "--agents", 2, "--modules", puck.parent, "--out", tmp_path / "with"
    )
    assert (code, errors) == (0, "")


def test_modules_that_containers_could_not_read_are_refused(fedpg: Command, tmp_path: Path) -> None:
    (tmp_path / "modules").mkdir(mode=0o755)
    (tmp_path / "modules" / "worlds.py").touch(mode=0o600)
    code, _, errors = fedpg("compose", "--modules", tmp_path / "modules")
    assert code == 2
    assert "worlds.py" in errors
    assert "chmod" in errors
    assert fedpg("compose", "--modules", tmp_path / "none")[0] == 2


def test_a_folder_that_cannot_be_written_is_one_sentence(fedpg: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, errors = fedpg("compose", "--out", tmp_path / "file" / "fed")
    assert code == 6
    assert errors.count("\n") == 1


@pytest.mark.parametrize("option", [("--out", "x"), ("--name", "x"), ("--modules", ".")])
def test_a_swarm_has_neither_folder_nor_name(fedpg: Command, option: tuple[str, str]) -> None:
    code, output, errors = fedpg("compose", "--swarm", *option)
    assert (code, output) == (2, "")
    assert "--swarm writes to standard output" in errors
