"""What a fault experiment lays over a federation's Compose file, as a second Compose file. Pure.

Each participant gets a companion that owns the network namespace in which it lives, and in which the rules are made.
A participant that is started again then comes back to the same address and the same rules, as a machine does whose
program has crashed: without a companion, its namespace would be new, and free of faults for a moment. Nobody but the
backend starts anything again, and the server reads the description itself, so that no field is lost on the way.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from fedpg_client.patience import PATIENCE_S

from fedpg_lab.local.processes import SERVER

WATCHER = "watcher"
"""The service that asks the server for its status."""
CERTIFICATES = "certs"
"""The service that makes them, and ends."""
DESCRIPTION = "/federation.toml"
CONNECT_TIMEOUT_S = 3600.0
"""An agent waits for the server at its start, however long a fault lasts."""

_HEAD = """\
x-network: &network # owns a participant's network namespace; may change it, and nothing else
  image: {helper}
  init: true
  restart: "no"
  read_only: true
  tmpfs: [/run]
  cap_drop: [ALL]
  cap_add: [NET_ADMIN, NET_RAW]
  security_opt: ["no-new-privileges:true"]
  stop_grace_period: 1s

networks:
  default: {{enable_ipv6: false}} # the rules are for IPv4

services:
  {watcher}:
    image: fedpg-server
    init: true
    restart: on-failure
    read_only: true
    tmpfs: [/tmp]
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    stop_grace_period: 1s
    entrypoint: [python, -m, fedpg_lab.faults.docker.status_stream]
    network_mode: service:{network}
    environment: {{FEDPG_SERVER: "localhost:50051", FEDPG_TLS: /certs}}
    volumes: ["certs-server:/certs:ro"]
    depends_on:
      certs: {{condition: service_completed_successfully}}

  {server}:
    command: [--federation, {target}]
    volumes:
      - {{type: bind, source: {source}, target: {target}, read_only: true}}
"""

_PARTICIPANT = """
  {network}:
    <<: *network
    networks: {{default: {{aliases: [{name}]}}}}
"""

_MOVED = """\
    restart: "no"
    network_mode: service:{network}
"""

_PATIENT = json.dumps(["--patience", f"{PATIENCE_S:g}", "--connect-timeout", f"{CONNECT_TIMEOUT_S:g}"])
"""An agent bears the server's silence as long as one of a local backend does."""


def network_service(name: str) -> str:
    """The service that owns the namespace of a participant: "server" or "agent-N"."""
    return f"net-{name}"


def overlay(agents: Iterable[int], description: Path, helper: str) -> str:
    """The second Compose file, as YAML text. `description` is the federation's TOML file on the engine's machine."""
    names = [f"agent-{index}" for index in agents]
    head = _HEAD.format(
        helper=helper,
        watcher=WATCHER,
        server=SERVER,
        network=network_service(SERVER),
        target=DESCRIPTION,
        source=json.dumps(str(description).replace("$", "$$")),  # JSON is YAML, and Compose would expand a variable
    )
    text = head + _MOVED.format(network=network_service(SERVER))
    for name in names:
        text += f"\n  {name}:\n    command: {_PATIENT}\n" + _MOVED.format(network=network_service(name))
    return text + "".join(_PARTICIPANT.format(network=network_service(name), name=name) for name in [SERVER, *names])
