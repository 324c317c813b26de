"""A federation's description as a Compose file: one server, K agents, each in a container of its own.

The project's docker-compose.yml is what `fedpg compose` writes for ten agents, three of them Byzantine.
"""

from __future__ import annotations

import hashlib
import json
import re

from fedpg_common.choices import Choice
from fedpg_common.descriptions import DEFAULT_ATTACK, federation_to_toml
from fedpg_common.errors import UsageError
from fedpg_common.federation import Federation, name_of
from fedpg_common.tasks import TASKS

from fedpg_lab.deploy.compose_settings import PLAIN_PATH, agent_settings, common_attack, server_settings, task_target
from fedpg_lab.deploy.own_modules import modules_of_environments

PROJECT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
"""What Compose takes for a project's name."""
MODULES = "/modules"
"""Where a folder with modules of the user's own is mounted."""
LIMITS = {"SERVER_MEMORY": "2g", "AGENT_MEMORY": "512m"}
"""Settings that bound each container's memory, with their defaults: several times what the published tasks take."""

_HEAD = """\
# A federation in containers: one server and {agents} agents, {attackers}. Written by `fedpg compose`.
#
#   docker compose up --build                       start, follow the log; ends by itself, with the result
#   docker compose wait server                      print the server's exit code and exit with it
#   docker compose exec server fedpg status         while it runs: who was filtered, round, return
#   docker compose up --detach agent-{agents}             bring back a container that was killed; changes nothing else
#   docker compose up watch                         the page of the runs at http://localhost:8470, until Ctrl-C
#   docker compose up tensorboard                   the run's curves at http://localhost:6006, until Ctrl-C
#   docker compose stop                             the next `up` resumes the run
#   docker compose run --rm fedpg runs .            the runs and their results, also after the end
#   docker compose cp server:/runs ./runs           copy all run folders out of the volume
#   docker compose --profile '*' down --volumes     remove everything, the runs and the certificates too
#
# Settings are lines of a file .env beside this one, such as {example}; every command reads them there: TASK,
# ALGORITHM, TRAJECTORIES, SEED, {attack}SIGMA, ALPHA, ROUND_TIMEOUT; SERVER_MEMORY, AGENT_MEMORY, WATCH_PORT,
# TENSORBOARD_PORT.
# Do not set them in front of a single command: the next one, without them, would start the server again with others.
# A run that was stopped resumes with the next `up`; with other settings, or after its end, `up` starts a new one.
name: {name}

x-hardened: &hardened
  init: true
  restart: on-failure:3
  read_only: true
  tmpfs: [/tmp]
  cap_drop: [ALL]
  security_opt: ["no-new-privileges:true"]
  mem_limit: ${{SERVER_MEMORY:-{server_memory}}}
  pids_limit: 256
  stop_grace_period: 30s

x-agent: &agent
  <<: *hardened
  image: fedpg-agent
  mem_limit: ${{AGENT_MEMORY:-{agent_memory}}}
  command: [--patience, "60"] # seconds without a server after which an agent gives up
  depends_on:
    server: {{condition: service_healthy}}

x-of-agents: &of-agents
  FEDPG_SERVER: server:50051
  FEDPG_TLS: /certs
{modules_of_agents}\

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
{build}\
    command: [--copy-hint, "docker compose cp server:{{folder}} ."] # the last line of the log
    depends_on:
      certs: {{condition: service_completed_successfully}}
    environment:
      FEDPG_HOME: /runs
      FEDPG_TLS: /certs
      FEDPG_AGENTS: "{agents}"
      FEDPG_BYZANTINE: "{byzantine}" # scores the filter in the telemetry; the filter never sees it
{settings}
{modules_of_server}\
    volumes:
      - runs:/runs
      - certs-server:/certs:ro
{modules_volume}\
{task_config}\
    healthcheck:
      test: [CMD, python, -m, fedpg_server.healthcheck, /tmp/was-healthy] # where it waits, once it has succeeded
      interval: 2s # before Engine 25, which knows start_interval, the first check comes no sooner
      timeout: 20s
      retries: 3
      start_period: 60s
      start_interval: 1s
"""

_TAIL = """
  watch: # the page on which the runs can be watched, with what the server tells an operator
    <<: *hardened
    image: fedpg-server
    profiles: [watch]
    depends_on:
      certs: {{condition: service_completed_successfully}}
    entrypoint: [fedpg, watch, /runs, --host, 0.0.0.0, --port, "8470", --no-browser]
    command: [--server, "server:50051", --tls, /certs] # asked while a run is live
    ports: ["127.0.0.1:${{WATCH_PORT:-8470}}:8470"]
    volumes: ["runs:/runs:ro", "certs-operator:/certs:ro"]

  tensorboard:
    <<: *hardened
    image: fedpg-server
    profiles: [tensorboard]
    entrypoint: [tensorboard, --logdir, /runs, --host, 0.0.0.0]
    ports: ["127.0.0.1:${{TENSORBOARD_PORT:-6006}}:6006"]
    volumes: ["runs:/runs:ro"]

  fedpg: # the other commands, on the runs: docker compose run --rm fedpg --help
    <<: *hardened
    image: fedpg-server
    profiles: [commands]
    network_mode: none
    entrypoint: [fedpg]
    volumes: ["runs:/runs"]

volumes:
  runs:
  certs-authority:
  certs-server:
  certs-operator:
{volumes}
"""


def compose_file(
    federation: Federation,
    task_file: str | None = None,
    *,
    name: str | None = None,
    source: str | None = ".",
    modules: str | None = None,
) -> str:
    """The Compose file of a federation, as YAML text.

    `task_file` is where a task of the user's own lies and `source` where the Dockerfile does, both relative to the
    Compose file; without a source the images must be there. The task file is mounted into the server. `modules` is a
    folder with modules of the user's own, which everyone gets to see. `name` is the project's, by default
    `project_name`. All Byzantine agents must make the same attack. Raises UsageError.
    """
    attack = common_attack(federation)
    agents = range(1, federation.agents + 1)
    to_allow = modules_of_environments(federation) if modules else None
    allow = f"      FEDPG_ALLOW: {to_allow}\n" if to_allow else ""
    head = _HEAD.format(
        name=check_name(name) if name is not None else project_name(federation),
        agents=federation.agents,
        attackers=f"{len(federation.byzantine)} of them Byzantine" if attack else "none of them Byzantine",
        attack="ATTACK, " if attack else "",
        example="ATTACK=sign-flipping" if attack else "TRAJECTORIES=2000",
        server_memory=LIMITS["SERVER_MEMORY"],
        agent_memory=LIMITS["AGENT_MEMORY"],
        build=_build(source, "server"),
        byzantine=len(federation.byzantine),
        certificate_mounts="\n".join(f"      - certs-agent-{index}:/everyone/agent-{index}" for index in agents),
        settings="\n".join(server_settings(federation, task_file, attack)),
        modules_of_agents=f"  PYTHONPATH: {MODULES}\n{allow[4:]}" if modules else "",
        modules_of_server=f"      PYTHONPATH: {MODULES}\n" if modules else "",
        modules_volume=f"      - {_modules_volume(modules)}\n" if modules else "",
        task_config=f"    configs: [{{source: task, target: {task_target(task_file)}}}]\n" if task_file else "",
    )
    services = "".join(_agent(index, federation, attack, source, modules) for index in agents)
    volumes = "\n".join(f"  certs-agent-{index}:" for index in agents)
    configs = f"\nconfigs:\n  task: {{file: {task_file}}}\n" if task_file else ""
    return head + services + _TAIL.format(volumes=volumes).rstrip() + "\n" + configs


def project_name(federation: Federation) -> str:
    """A project's name that no other federation has, for example fedpg-cartpole-v1_fedpg-br_k10_b3_random-noise.

    What cannot be seen in `name_of`, such as a seed other than 0, adds a digest of the whole description.
    """
    name = f"fedpg-{name_of(federation)}".lower()
    plain = re.sub(r"[^a-z0-9_-]", "-", name)
    published = TASKS.get(federation.task.name)
    attack = next(iter(federation.byzantine.values()), Choice(DEFAULT_ATTACK))
    first = dict.fromkeys(range(1, len(federation.byzantine) + 1), attack)
    if published is not None and plain == name:
        usual = Federation(published, agents=federation.agents, algorithm=federation.algorithm, byzantine=first)
        if usual == federation:
            return plain
    return f"{plain}_{hashlib.sha256(federation_to_toml(federation).encode()).hexdigest()[:6]}"


def check_name(name: str) -> str:
    """The name, if Compose takes it for a project's. Raises UsageError."""
    if not PROJECT_NAME.fullmatch(name):
        raise UsageError(
            f"a project cannot have the name {name!r}: use lower-case letters, digits, - and _, and begin with a "
            "letter or digit"
        )
    return name


def _agent(index: int, federation: Federation, attack: Choice | None, source: str | None, modules: str | None) -> str:
    """One agent's service. The first one builds the image for all."""
    lines = [f"  agent-{index}:", "    <<: *agent"]
    if index == 1 and source:
        lines.append(_build(source, "agent").rstrip())
    lines += ["    environment:", "      <<: *of-agents", *agent_settings(index, federation, attack)]
    if modules:
        lines += ["    volumes:", f"      - certs-agent-{index}:/certs:ro", f"      - {_modules_volume(modules)}"]
    else:
        lines.append(f'    volumes: ["certs-agent-{index}:/certs:ro"]')
    return "\n" + "\n".join(lines) + "\n"


def _build(source: str | None, target: str) -> str:
    """How an image is built, as a line of YAML; none without a source."""
    return f"    build: {{context: {_path(source)}, target: {target}}}\n" if source else ""


def _modules_volume(modules: str) -> str:
    """The mount of the folder with the user's own modules."""
    return f"{{type: bind, source: {_path(modules)}, target: {MODULES}, read_only: true}}"


def _path(path: str) -> str:
    """A path as a value in YAML, whatever it is made of. JSON is YAML, and Compose would expand a variable."""
    return path if PLAIN_PATH.fullmatch(path) else json.dumps(path.replace("$", "$$"))
