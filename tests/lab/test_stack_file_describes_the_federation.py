"""`fedpg compose --swarm`: the federation's description as a stack file for Docker Swarm."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from fedpg_common.descriptions import describe
from fedpg_common.errors import UsageError
from fedpg_lab import cli
from fedpg_lab.deploy.certificates import make_certificates
from fedpg_lab.deploy.compose import compose_file
from fedpg_lab.deploy.swarm import stack_file
from lab.test_certificates_are_made_once_and_renewed_in_time import NOW
from typer.testing import CliRunner

FEDERATION = describe("LunarLander-v3", agents=5, byzantine=2, attack="fedpg", trajectories=700, seed=3)


def stack(task_file: str | None = None) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(stack_file(FEDERATION, "certs", task_file))
    return content


def test_the_command_writes_it() -> None:
    options = "--task LunarLander-v3 --agents 5 --byzantine 2 --attack fedpg --trajectories 700 --seed 3"
    written = CliRunner().invoke(cli.app, ["compose", "--swarm", *options.split()], catch_exceptions=False)
    assert written.exit_code == 0
    assert written.stdout == stack_file(FEDERATION, "certs")


def test_it_is_the_federation_of_the_compose_file() -> None:
    services, composed = stack()["services"], yaml.safe_load(compose_file(FEDERATION))["services"]
    assert set(services) == set(composed) - {"certs", "tensorboard", "watch", "fedpg"}
    for name, service in services.items():
        assert service["environment"] == composed[name]["environment"]


def test_every_participant_is_given_its_own_key_alone() -> None:
    content = stack()
    for name, service in content["services"].items():
        (secret,) = service["secrets"]
        assert secret == {
            "source": f"{name}-key", "target": "/certs/key.pem", "uid": "10001", "gid": "10001", "mode": 0o400
        }  # fmt: skip
        assert service["configs"] == [
            {"source": "authority", "target": "/certs/ca.pem"},
            {"source": f"{name}-cert", "target": "/certs/cert.pem"},
        ]
    assert set(content["secrets"]) == {f"{name}-key" for name in content["services"]}


def test_it_names_the_files_that_fedpg_certs_makes(tmp_path: Path) -> None:
    make_certificates(tmp_path / "certs", 5, ["server"], 30, NOW)
    content = stack()
    for source in [*content["secrets"].values(), *content["configs"].values()]:
        assert (tmp_path / source["file"]).is_file()


def test_it_uses_nothing_that_a_swarm_ignores() -> None:
    known = {
        "image", "init", "read_only", "cap_drop", "stop_grace_period", "command", "environment", "volumes", "secrets",
        "configs", "deploy", "healthcheck",
    }  # fmt: skip
    content = stack()
    for service in content["services"].values():
        assert set(service) <= known
    assert "start_interval" not in content["services"]["server"]["healthcheck"]
    assert "name" not in content


def test_whoever_ends_well_is_not_started_again() -> None:
    for service in stack()["services"].values():
        assert service["deploy"]["restart_policy"]["condition"] == "on-failure"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]


def test_memory_and_processes_are_limited() -> None:
    for name, service in stack()["services"].items():
        memory = "${SERVER_MEMORY:-2g}" if name == "server" else "${AGENT_MEMORY:-512m}"
        assert service["deploy"]["resources"] == {"limits": {"memory": memory, "pids": 256}}


def test_images_come_from_a_registry_that_the_environment_names() -> None:
    images = {service["image"] for service in stack()["services"].values()}
    assert images == {"${REGISTRY:-}fedpg-server", "${REGISTRY:-}fedpg-agent"}


def test_a_task_file_is_a_config_of_the_server() -> None:
    content = stack("tasks/acrobot.toml")
    assert content["configs"]["task"] == {"file": "tasks/acrobot.toml"}
    assert {"source": "task", "target": "/acrobot.toml"} in content["services"]["server"]["configs"]
    assert not any("acrobot" in str(service) for name, service in content["services"].items() if name != "server")


def test_a_path_that_would_need_quoting_is_refused() -> None:
    with pytest.raises(UsageError, match=re.escape("cannot hold the path 'my certs'")):
        stack_file(FEDERATION, "my certs")
