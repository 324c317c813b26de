"""A federation's description as a Compose file: one server, K agents, each in a container of its own.

The project's docker-compose.yml is what `fedpg compose` writes for ten agents, three of them Byzantine.
"""

from __future__ import annotations

from fedpg_common.errors import UsageError
from fedpg_common.federation import Federation
from fedpg_common.tasks import TASKS

RING_PORT = 50052
TASK_TARGET = "/task.toml"

_HEAD = """\
# A federation in containers: one server and {agents} agents, {attackers}. Written by `fedpg compose`.
#
#   docker compose up --build                              start; it ends by itself when the run has ended
#   docker compose up --build --exit-code-from server      the same, with the server's exit code
#   ATTACK=sign-flipping TRAJECTORIES=2000 docker compose up
#   docker compose exec server fedpg status                who was filtered, round, return
#   docker compose --profile tensorboard up                also http://localhost:6006
#   docker compose down --volumes                          forget the runs and the certificates
#
# Settings, each an environment variable or a line in .env: TASK, ALGORITHM, TRAJECTORIES, SEED, {attack}SIGMA, ALPHA,
# ROUND_TIMEOUT. A run that was stopped goes on with the next `up`; other settings, or a finished run, start a new one.
name: fedpg

x-hardened: &hardened
  restart: on-failure:10
  read_only: true
  tmpfs: [/tmp]
  cap_drop: [ALL]
  security_opt: ["no-new-privileges:true"]
  stop_grace_period: 30s

x-server-image: &server-image
  image: fedpg-server
  build: {{context: ., target: server}}

x-agent: &agent
  <<: *hardened
  image: fedpg-agent
  build: {{context: ., target: agent}}
  depends_on:
    server: {{condition: service_healthy}}

x-of-agents: &of-agents
  FEDPG_SERVER: server:50051
  FEDPG_TLS: /certs

services:
  certs: # makes the authority and everyone's certificate on the first start
    <<: [*hardened, *server-image]
    restart: "no"
    network_mode: none
    entrypoint: [fedpg, certs, --out, /certs, --agents, "{agents}", --server-name, server]
    volumes:
      - certs-authority:/certs/authority
      - certs-server:/certs/server
{certificate_mounts}

  server:
    <<: [*hardened, *server-image]
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
      interval: 5s
      timeout: 5s
      retries: 3
      start_period: 60s
      start_interval: 1s
"""

_TAIL = """
  tensorboard:
    <<: [*hardened, *server-image]
    profiles: [tensorboard]
    entrypoint: [tensorboard, --logdir, /runs, --host, 0.0.0.0]
    ports: ["127.0.0.1:6006:6006"]
    volumes: ["runs:/runs:ro"]

volumes:
  runs:
  certs-authority:
  certs-server:
{volumes}
"""


def compose_file(federation: Federation, task_file: str | None = None) -> str:
    """The Compose file of a federation, as YAML text.

    `task_file` is where a task of the user's own lies, relative to the Compose file; it is mounted into the server.
    All Byzantine agents must make the same attack.
    """
    attacks = sorted({attack.value for attack in federation.byzantine.values()})
    if len(attacks) > 1:
        raise UsageError(f"a Compose file has one attack for all Byzantine agents, not {' and '.join(attacks)}")
    attack = attacks[0] if attacks else None
    agents = range(1, federation.agents + 1)
    head = _HEAD.format(
        agents=federation.agents,
        attackers=f"{len(federation.byzantine)} of them Byzantine" if attack else "none of them Byzantine",
        attack="ATTACK, " if attack else "",
        byzantine=len(federation.byzantine),
        certificate_mounts="\n".join(f"      - certs-agent-{index}:/certs/agent-{index}" for index in agents),
        settings="\n".join(_settings(federation, task_file, attack)),
        task_config=f"    configs: [{{source: task, target: {TASK_TARGET}}}]\n" if task_file else "",
    )
    services = "".join(_agent(index, federation, attack) for index in agents)
    volumes = "\n".join(f"  certs-agent-{index}:" for index in agents)
    configs = f"\nconfigs:\n  task: {{file: {task_file}}}\n" if task_file else ""
    return head + services + _TAIL.format(volumes=volumes).rstrip() + "\n" + configs


def _settings(federation: Federation, task_file: str | None, attack: str | None) -> list[str]:
    """The server's settings, each with the description's value as its default."""
    task = federation.task
    published = TASKS.get(task.name)
    defaults: dict[str, object] = {
        "TASK": TASK_TARGET if task_file else task.name,
        "ALGORITHM": federation.algorithm.value,
        "SEED": federation.seed,
        "ROUND_TIMEOUT": federation.round_timeout_s,
    }
    for name in ("trajectories", "sigma", "alpha"):
        value = getattr(task, name)
        # Left to the task where it is the task's own, so that TASK=... brings its own values along.
        defaults[name.upper()] = "" if published and getattr(published, name) == value else value
    if attack:
        defaults["ATTACK"] = attack
    return [f"      FEDPG_{name}: ${{{name}:-{value}}}" for name, value in defaults.items()]


def _agent(index: int, federation: Federation, attack: str | None) -> str:
    """One agent's service."""
    lines = [f"  agent-{index}:", "    <<: *agent", "    environment:", "      <<: *of-agents"]
    lines.append(f'      FEDPG_AGENT: "{index}"')
    if index in federation.byzantine:
        ringleader = min(federation.byzantine)
        attackers = ",".join(map(str, sorted(federation.byzantine)))
        lines.append(f"      FEDPG_ATTACK: ${{ATTACK:-{attack}}}")
        lines.append(f'      FEDPG_ATTACKERS: "{attackers}" # for ATTACK=fedpg, whose agents collude')
        lines.append(f"      FEDPG_RING: agent-{ringleader}:{RING_PORT}")
        if index == ringleader:
            lines.append(f"      FEDPG_RING_LISTEN: 0.0.0.0:{RING_PORT}")
    lines.append(f'    volumes: ["certs-agent-{index}:/certs:ro"]')
    return "\n" + "\n".join(lines) + "\n"
