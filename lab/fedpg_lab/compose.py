"""A federation's description as a Compose file: one server, K agents, each in a container of its own.

The project's docker-compose.yml is what `fedpg compose` writes for ten agents, three of them Byzantine.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from fedpg_client.attacks import Knowledge, knowledge_of
from fedpg_common.choices import Choice
from fedpg_common.errors import UsageError
from fedpg_common.federation import Federation
from fedpg_common.streams import attackers_secret
from fedpg_common.tasks import TASKS, show

from fedpg_lab.local import rule_of

RING_PORT = 50052
PLAIN_SETTING = re.compile(r"[\w.+,\[\]:-]+", re.ASCII)
"""Values of settings that need no quoting anywhere in a Compose file."""
PLAIN_PATH = re.compile(r"[\w./-]+", re.ASCII)
"""Paths that need no quoting anywhere in a Compose file."""

_HEAD = """\
# A federation in containers: one server and {agents} agents, {attackers}. Written by `fedpg compose`.
#
#   docker compose up --build                            start, follow the log; ends by itself when the run has ended
#   docker compose wait server                           print the server's exit code and exit with it
#   {attack_example}TRAJECTORIES=2000 docker compose up
#   docker compose exec server fedpg status              who was filtered, round, return
#   docker compose up tensorboard                        the run's curves at http://localhost:6006, until Ctrl-C
#   docker compose stop                                  the next `up` goes on with the run
#   docker compose down --volumes                        forget the runs and the certificates
#
# Settings, each an environment variable or a line in .env: TASK, ALGORITHM, TRAJECTORIES, SEED, {attack}SIGMA, ALPHA,
# ROUND_TIMEOUT. A run that was stopped goes on with the next `up`; other settings, or a finished run, start a new one.
name: fedpg

x-hardened: &hardened
  init: true
  restart: on-failure:3
  read_only: true
  tmpfs: [/tmp]
  cap_drop: [ALL]
  security_opt: ["no-new-privileges:true"]
  stop_grace_period: 30s

x-agent: &agent
  <<: *hardened
  image: fedpg-agent
  command: [--patience, "60"] # seconds without a server after which an agent gives up
  depends_on:
    server: {{condition: service_healthy}}

x-of-agents: &of-agents
  FEDPG_SERVER: server:50051
  FEDPG_TLS: /certs

services:
  certs: # makes the authority and everyone's certificate on the first start
    <<: *hardened
    image: fedpg-server
    restart: "no"
    network_mode: none
    entrypoint: [fedpg, certs, --out, /everyone, --agents, "{agents}", --server-name, server]
    volumes:
      - certs-authority:/everyone/authority
      - certs-server:/everyone/server
      - certs-operator:/everyone/operator
{certificate_mounts}

  server:
    <<: *hardened
    image: fedpg-server
    build: {{context: ., target: server}}
    depends_on:
      certs: {{condition: service_completed_successfully}}
    environment:
      FEDPG_HOME: /runs
      FEDPG_TLS: /certs
      FEDPG_AGENTS: "{agents}"
      FEDPG_BYZANTINE: "{byzantine}" # scores the filter in the telemetry; the filter never sees it
{settings}
    volumes:
      - runs:/runs
      - certs-server:/certs:ro
{task_config}\
    healthcheck:
      test: [CMD, python, -m, fedpg_server.healthcheck]
      interval: 10s
      timeout: 8s
      retries: 3
      start_period: 60s
      start_interval: 1s
"""

_TAIL = """
  tensorboard:
    <<: *hardened
    image: fedpg-server
    profiles: [tensorboard]
    entrypoint: [tensorboard, --logdir, /runs, --host, 0.0.0.0]
    ports: ["127.0.0.1:${{TENSORBOARD_PORT:-6006}}:6006"]
    volumes: ["runs:/runs:ro"]

volumes:
  runs:
  certs-authority:
  certs-server:
  certs-operator:
{volumes}
"""


def compose_file(federation: Federation, task_file: str | None = None) -> str:
    """The Compose file of a federation, as YAML text.

    `task_file` is where a task of the user's own lies, relative to the Compose file; it is mounted into the server.
    All Byzantine agents must make the same attack. Raises UsageError.
    """
    attack = common_attack(federation)
    agents = range(1, federation.agents + 1)
    head = _HEAD.format(
        agents=federation.agents,
        attackers=f"{len(federation.byzantine)} of them Byzantine" if attack else "none of them Byzantine",
        attack="ATTACK, " if attack else "",
        attack_example="ATTACK=sign-flipping " if attack else "",
        byzantine=len(federation.byzantine),
        certificate_mounts="\n".join(f"      - certs-agent-{index}:/everyone/agent-{index}" for index in agents),
        settings="\n".join(server_settings(federation, task_file, attack)),
        task_config=f"    configs: [{{source: task, target: {task_target(task_file)}}}]\n" if task_file else "",
    )
    services = "".join(_agent(index, federation, attack) for index in agents)
    volumes = "\n".join(f"  certs-agent-{index}:" for index in agents)
    configs = f"\nconfigs:\n  task: {{file: {task_file}}}\n" if task_file else ""
    return head + services + _TAIL.format(volumes=volumes).rstrip() + "\n" + configs


def common_attack(federation: Federation) -> Choice | None:
    """What the Byzantine agents do; None without any. Raises UsageError if they do different things."""
    attacks: list[Choice] = []
    for attack in federation.byzantine.values():
        if attack not in attacks:
            attacks.append(attack)
    if len(attacks) > 1:
        labels = " and ".join(sorted(attack.label for attack in attacks))
        raise UsageError(f"a Compose file has one attack for all Byzantine agents, not {labels}")
    return attacks[0] if attacks else None


def common_settings(federation: Federation, attack: Choice | None) -> str:
    """The settings of algorithm, aggregator and attack, as FEDPG_SET has them. Raises UsageError."""
    parts = {"algorithm": federation.algorithm, "aggregator": federation.aggregator, "attack": attack}
    return " ".join(
        f"{owner}.{name}={_plain_setting(owner, name, value)}"
        for owner, choice in parts.items()
        if choice is not None
        for name, value in choice.settings.items()
    )


def _plain_setting(owner: str, name: str, value: object) -> str:
    """A setting's value in TOML. Raises UsageError for one that would need quoting in a Compose file."""
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    if not PLAIN_SETTING.fullmatch(text):
        raise UsageError(
            f"a Compose file cannot hold the setting {owner}.{name} = {show(value)}: use numbers, words and lists"
        )
    return text


def task_target(task_file: str) -> str:
    """Where a task file lies in the server's container, under its own name. Raises UsageError for an odd path."""
    check_path(task_file)
    return f"/{Path(task_file).name}"


def check_path(path: str) -> None:
    """Raise UsageError for a path that would need quoting."""
    if not PLAIN_PATH.fullmatch(path):
        raise UsageError(f"a Compose file cannot hold the path {path!r}: use letters, digits, dots, _ and -")


def server_settings(federation: Federation, task_file: str | None, attack: Choice | None) -> list[str]:
    """The server's settings as lines of YAML, each with the description's value as its default."""
    task = federation.task
    published = TASKS.get(task.name)
    defaults: dict[str, object] = {
        "TASK": task_target(task_file) if task_file else task.name,
        "ALGORITHM": federation.algorithm.name,
        "SEED": federation.seed,
        "ROUND_TIMEOUT": federation.round_timeout_s,
    }
    for name in ("trajectories", "sigma", "alpha"):
        value = getattr(task, name)
        # Left to the task where it is the task's own, so that TASK=... brings its own values along.
        defaults[name.upper()] = "" if published and getattr(published, name) == value else value
    if federation.aggregator is not None:
        defaults["AGGREGATOR"] = federation.aggregator.name
    if attack:
        defaults["ATTACK"] = attack.name
    if settings := common_settings(federation, attack):
        defaults["SET"] = settings
    return [f"      FEDPG_{name}: ${{{name}:-{value}}}" for name, value in defaults.items()]


def agent_settings(index: int, federation: Federation, attack: Choice | None) -> list[str]:
    """What tells one agent from the others, as lines of YAML."""
    lines = [f'      FEDPG_AGENT: "{index}"']
    if attack is not None and index in federation.byzantine:
        ringleader = min(federation.byzantine)
        attackers = ",".join(map(str, sorted(federation.byzantine)))
        lines.append(f"      FEDPG_ATTACK: ${{ATTACK:-{attack.name}}}")
        if settings := common_settings(federation, attack):
            lines.append(f"      FEDPG_SET: ${{SET:-{settings}}} # the attack's settings; the others are the server's")
        lines.append(f'      FEDPG_ATTACKERS: "{attackers}" # for an attack that colludes, as ATTACK=fedpg does')
        secret = attackers_secret(federation.seed, federation.byzantine)
        lines.append(f"      FEDPG_ATTACKERS_SECRET: ${{ATTACKERS_SECRET:-{secret}}} # their common random draws")
        if knowledge_of(attack) >= Knowledge.OMNISCIENT:
            lines.append(f"      FEDPG_RUN_SEED: ${{SEED:-{federation.seed}}} # the attack is omniscient")
        if knowledge_of(attack) >= Knowledge.COLLUDERS:
            rule = rule_of(federation).name
            lines.append(f"      FEDPG_AGGREGATOR: ${{AGGREGATOR:-{rule}}} # the attack knows the server's rule")
        lines.append(f"      FEDPG_RING: agent-{ringleader}:{RING_PORT}")
        if index == ringleader:
            lines.append(f"      FEDPG_RING_LISTEN: 0.0.0.0:{RING_PORT}")
    return lines


def _agent(index: int, federation: Federation, attack: Choice | None) -> str:
    """One agent's service. The first one builds the image for all."""
    lines = [f"  agent-{index}:", "    <<: *agent"]
    if index == 1:
        lines.append("    build: {context: ., target: agent}")
    lines += ["    environment:", "      <<: *of-agents", *agent_settings(index, federation, attack)]
    lines.append(f'    volumes: ["certs-agent-{index}:/certs:ro"]')
    return "\n" + "\n".join(lines) + "\n"
