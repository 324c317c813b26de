"""The Compose file that faults are laid over: each participant lives in a network namespace that outlasts it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from fedpg_client.patience import PATIENCE_S
from fedpg_lab.faults.docker.overlay import overlay

PARTICIPANTS = ["server", "agent-1", "agent-2", "agent-3"]


@pytest.fixture
def services() -> dict[str, Any]:
    laid_over = yaml.safe_load(overlay(range(1, 4), Path("/tmp/a $5 place/federation.toml"), "helper:1"))
    assert laid_over["networks"] == {"default": {"enable_ipv6": False}}  # the rules are for IPv4
    services = laid_over["services"]
    assert isinstance(services, dict)
    return services


def test_every_participant_shares_the_namespace_of_its_companion(services: dict[str, Any]) -> None:
    assert set(services) == {*PARTICIPANTS, *(f"net-{name}" for name in PARTICIPANTS), "watcher"}
    for name in PARTICIPANTS:
        assert services[name]["network_mode"] == f"service:net-{name}"
        assert services[f"net-{name}"]["networks"] == {"default": {"aliases": [name]}}


def test_nobody_but_the_backend_starts_a_participant_again(services: dict[str, Any]) -> None:
    assert {services[name]["restart"] for name in PARTICIPANTS} == {"no"}
    assert {services[f"net-{name}"]["restart"] for name in PARTICIPANTS} == {"no"}


def test_companions_may_change_their_network_and_nothing_else(services: dict[str, Any]) -> None:
    for name in PARTICIPANTS:
        companion = services[f"net-{name}"]
        assert companion["image"] == "helper:1"
        assert companion["cap_drop"] == ["ALL"]
        assert companion["cap_add"] == ["NET_ADMIN", "NET_RAW"]
        assert companion["read_only"] is True
        assert companion["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in companion
        assert "volumes" not in companion


def test_participants_gain_no_rights(services: dict[str, Any]) -> None:
    for name in PARTICIPANTS[1:]:
        assert set(services[name]) == {"restart", "network_mode", "command"}
    assert set(services["server"]) == {"restart", "network_mode", "command", "volumes"}


def test_agents_bear_a_silent_server_as_long_as_local_ones(services: dict[str, Any]) -> None:
    for name in PARTICIPANTS[1:]:
        assert services[name]["command"] == ["--patience", f"{PATIENCE_S:g}", "--connect-timeout", "3600"]


def test_the_status_is_asked_beside_the_server_with_its_own_certificate(services: dict[str, Any]) -> None:
    watcher = services["watcher"]
    assert watcher["network_mode"] == "service:net-server"
    assert watcher["environment"] == {"FEDPG_SERVER": "localhost:50051", "FEDPG_TLS": "/certs"}
    assert watcher["volumes"] == ["certs-server:/certs:ro"]
    assert watcher["cap_drop"] == ["ALL"]


def test_the_server_reads_the_whole_description(services: dict[str, Any]) -> None:
    assert services["server"]["command"] == ["--federation", "/federation.toml"]
    (mount,) = services["server"]["volumes"]
    assert mount["source"] == "/tmp/a $$5 place/federation.toml"  # Compose makes one $ of it
    assert mount["target"] == "/federation.toml"
    assert mount["read_only"] is True
