"""`fedpg compose`: the federation's description as a Compose file."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from fedpg_common.choices import Choice
from fedpg_common.descriptions import describe
from fedpg_common.errors import UsageError
from fedpg_common.federation import Federation
from fedpg_common.tasks import task_to_fields
from fedpg_lab import cli
from fedpg_lab.deploy.compose import compose_file
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
AGENT = re.compile(r"agent-(\d+)")
HARDENED = {
    "init": True,
    "read_only": True,
    "tmpfs": ["/tmp"],
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
    "stop_grace_period": "30s",
}

ACROBOT = """
environment = "Acrobot-v1"
hidden = [32, 32]
activation = "tanh"
horizon = 500
evaluation_horizon = 500
trajectories = 2000
gamma = 0.99
learning_rate = 1e-3
batch_size = 16
batch_size_min = 12
batch_size_max = 20
mini_batch_size = 4
inner_steps = 3
"""


def parsed(federation: Federation, task_file: str | None = None) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(compose_file(federation, task_file))
    return content


def agents_of(content: dict[str, Any]) -> dict[int, dict[str, Any]]:
    found = {
        int(match[1]): service for name, service in content["services"].items() if (match := AGENT.fullmatch(name))
    }
    assert list(found) == sorted(found)
    return found


def test_the_committed_file_is_what_the_command_writes() -> None:
    written = CliRunner().invoke(cli.app, ["compose", "--agents", "10", "--byzantine", "3"], catch_exceptions=False)
    assert written.exit_code == 0
    assert written.stdout == (ROOT / "docker-compose.yml").read_text(encoding="utf-8")


@pytest.mark.parametrize(("agents", "byzantine"), [(1, 0), (1, 1), (10, 3), (30, 9), (300, 0)])
def test_every_agent_is_a_service_and_the_first_ones_attack(agents: int, byzantine: int) -> None:
    content = parsed(describe("CartPole-v1", agents=agents, byzantine=byzantine, attack="sign-flipping"))
    services = agents_of(content)
    assert list(services) == list(range(1, agents + 1))
    for index, service in services.items():
        environment = service["environment"]
        assert environment["FEDPG_AGENT"] == str(index)
        assert environment["FEDPG_SERVER"] == "server:50051"
        attack = {name for name in environment if "ATTACK" in name or "RING" in name}
        if index > byzantine:
            assert attack == set()
        else:
            assert environment["FEDPG_ATTACK"] == "${ATTACK:-sign-flipping}"
            assert environment["FEDPG_ATTACKERS"] == ",".join(map(str, range(1, byzantine + 1)))
            assert environment["FEDPG_RING"] == "agent-1:50052"
            assert ("FEDPG_RING_LISTEN" in environment) == (index == 1)
    assert content["services"]["server"]["environment"]["FEDPG_AGENTS"] == str(agents)
    assert content["services"]["server"]["environment"]["FEDPG_BYZANTINE"] == str(byzantine)


def test_everyone_sees_its_own_key_alone() -> None:
    content = parsed(describe("CartPole-v1", agents=12, byzantine=2))
    for index, service in agents_of(content).items():
        assert service["volumes"] == [f"certs-agent-{index}:/certs:ro"]
    server = content["services"]["server"]
    assert server["volumes"] == ["runs:/runs", "certs-server:/certs:ro"]
    assert content["services"]["tensorboard"]["volumes"] == ["runs:/runs:ro"]
    assert content["services"]["watch"]["volumes"] == ["runs:/runs:ro", "certs-operator:/certs:ro"]
    maker = content["services"]["certs"]
    assert {volume.split(":")[0] for volume in maker["volumes"]} | {"runs"} == set(content["volumes"])
    assert maker["network_mode"] == "none"


def test_every_container_is_hardened() -> None:
    services = parsed(describe("CartPole-v1", agents=3, byzantine=1))["services"]
    for name, service in services.items():
        assert HARDENED.items() <= service.items(), name
        assert "privileged" not in service
        assert service["restart"] == ("no" if name == "certs" else "on-failure:3")
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(published) == {"watch", "tensorboard"}
    assert all(address.startswith("127.0.0.1:") for ports in published.values() for address in ports)


def test_each_image_is_built_once() -> None:
    services = parsed(describe("CartPole-v1", agents=5))["services"]
    built = {(service["image"], service["build"]["target"]) for service in services.values() if "build" in service}
    assert built == {("fedpg-server", "server"), ("fedpg-agent", "agent")}
    assert sum("build" in service for service in services.values()) == 2
    assert {service["image"] for service in services.values()} == {"fedpg-server", "fedpg-agent"}


def server_settings(federation: Federation, task_file: str | None = None) -> dict[str, str]:
    environment = parsed(federation, task_file)["services"]["server"]["environment"]
    return {
        match[1]: match[2]
        for value in environment.values()
        if (match := re.fullmatch(r"\$\{([A-Z_]+):-(.*)\}", str(value)))
    }


def test_what_a_published_task_fixes_is_left_to_the_task() -> None:
    assert server_settings(describe("LunarLander-v3", byzantine=1)) == {
        "TASK": "LunarLander-v3",
        "ALGORITHM": "fedpg-br",
        "SEED": "0",
        "ROUND_TIMEOUT": "120.0",
        "TRAJECTORIES": "",
        "SIGMA": "",
        "ALPHA": "",
        "ATTACK": "random-noise",
    }


def test_what_the_description_changes_is_written_down() -> None:
    federation = describe(
        "CartPole-v1", algorithm="svrpg", seed=7, round_timeout_s=9.5, trajectories=300, sigma=0.2, alpha=0.25
    )
    assert server_settings(federation) == {
        "TASK": "CartPole-v1",
        "ALGORITHM": "svrpg",
        "SEED": "7",
        "ROUND_TIMEOUT": "9.5",
        "TRAJECTORIES": "300",
        "SIGMA": "0.2",
        "ALPHA": "0.25",
    }


def test_a_task_file_is_mounted_into_the_server(tmp_path: Path) -> None:
    path = tmp_path / "acrobot.toml"
    path.write_text(ACROBOT, encoding="utf-8")
    federation = describe(str(path), agents=2)
    content = parsed(federation, "tasks/acrobot.toml")
    assert content["configs"] == {"task": {"file": "tasks/acrobot.toml"}}
    assert content["services"]["server"]["configs"] == [{"source": "task", "target": "/acrobot.toml"}]
    settings = server_settings(federation, "tasks/acrobot.toml")
    assert settings["TASK"] == "/acrobot.toml"
    assert settings["TRAJECTORIES"] == str(task_to_fields(federation.task)["trajectories"]) == "2000"


@pytest.mark.parametrize("path", ["my task.toml", "a}.toml", "$HOME/a.toml", "a'.toml", "ä.toml"])
def test_a_path_that_would_need_quoting_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="a Compose file cannot hold the path"):
        compose_file(describe("CartPole-v1"), path)


def test_one_attack_for_all_or_none() -> None:
    federation = replace(describe("CartPole-v1"), byzantine={1: Choice("fedpg"), 2: Choice("zero-gradient")})
    with pytest.raises(UsageError, match="one attack for all Byzantine agents, not fedpg and zero-gradient"):
        compose_file(federation)


def test_a_bad_description_is_refused_like_everywhere() -> None:
    with pytest.raises(UsageError, match="4 Byzantine agents do not fit in a federation of 3"):
        CliRunner().invoke(cli.app, ["compose", "--agents", "3", "--byzantine", "4"], catch_exceptions=False)


def test_settings_reach_the_server_and_the_attackers() -> None:
    described = describe(
        "CartPole-v1",
        agents=5,
        byzantine=2,
        attack={"name": "fedpg", "deviation": 2.5, "starts_at": 500},
        aggregator={"name": "krum", "faulty": 2},
    )
    services = parsed(described)["services"]
    expected = "${SET:-aggregator.faulty=2 attack.deviation=2.5 attack.starts_at=500}"
    server = services["server"]["environment"]
    assert (server["FEDPG_SET"], server["FEDPG_ATTACK"]) == (expected, "${ATTACK:-fedpg}")
    assert server["FEDPG_AGGREGATOR"] == "${AGGREGATOR:-krum}"
    attackers = [services[f"agent-{index}"]["environment"] for index in range(1, 6)]
    assert [environment.get("FEDPG_SET") for environment in attackers] == [expected] * 2 + [None] * 3
    assert [environment.get("FEDPG_ATTACK") for environment in attackers] == ["${ATTACK:-fedpg}"] * 2 + [None] * 3


@pytest.mark.parametrize("value", ["two words", "}", "$HOME", 'a"b', {"a": 1}])
def test_a_setting_that_would_need_quoting_is_refused(value: object) -> None:
    described = describe("CartPole-v1", agents=5, byzantine=2, attack={"name": "fedpg", "deviation": value})
    with pytest.raises(UsageError, match="cannot hold the setting"):
        compose_file(described)


def test_only_attackers_have_the_secret_and_only_omniscient_ones_the_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "all_knowing.py").write_text(
        "from fedpg_client.attacks import Attack, Knowledge\n"
        "class AllKnowing(Attack):\n    knowledge = Knowledge.OMNISCIENT\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for attack, knows in (("fedpg", False), ("sign-flipping", False), ("all_knowing:AllKnowing", True)):
        described = replace(describe("CartPole-v1", agents=5, byzantine=2, attack=attack), seed=271828)
        for index, service in agents_of(parsed(described)).items():
            environment = service["environment"]
            assert ("FEDPG_ATTACKERS_SECRET" in environment) is (index <= 2)
            assert ("271828" in str(environment)) is (knows and index <= 2)
