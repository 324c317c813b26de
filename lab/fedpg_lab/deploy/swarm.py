"""A federation's description as a stack file for Docker Swarm: the containers of `fedpg compose`, on many machines.

A Swarm takes other means to the same ends: certificates are its secrets and configs, made beforehand with `fedpg
certs`, since machines share no volumes; nothing waits for anything, since agents wait for the server themselves; and
images come from a registry, since a Swarm builds none.
"""

from __future__ import annotations

from fedpg_common.choices import Choice
from fedpg_common.federation import Federation
from fedpg_common.transport.channels import AGENT_NAME_PREFIX

from fedpg_lab.deploy.authority import AUTHORITY_CERTIFICATE, CERTIFICATE, KEY
from fedpg_lab.deploy.certificates import SERVER
from fedpg_lab.deploy.compose import LIMITS
from fedpg_lab.deploy.compose_settings import agent_settings, check_path, common_attack, server_settings, task_target

_HEAD = """\
# A federation on a Docker Swarm: one server and {agents} agents, {byzantine} of them Byzantine. Written by
# `fedpg compose --swarm`.
#
#   fedpg certs --agents {agents} --server-name server --out {certificates}
#   docker node update --label-add fedpg-server=true NODE      the node that keeps the runs
#   docker stack deploy --compose-file THIS_FILE fedpg
#   docker service logs --follow fedpg_server
#   docker stack rm fedpg                                      stop; the volume with the runs stays
#
# Settings are environment variables of `docker stack deploy`: TASK, ALGORITHM, TRAJECTORIES, SEED, {attack}SIGMA,
# ALPHA, ROUND_TIMEOUT; SERVER_MEMORY, AGENT_MEMORY; and REGISTRY, where the nodes find the images, such as
# registry.example:5000/ with its slash. A stack has no .env: give the same ones with each `deploy`.
version: "3.9"

x-hardened: &hardened
  init: true
  read_only: true
  cap_drop: [ALL]
  stop_grace_period: 30s

x-deploy: &deploy
  endpoint_mode: dnsrr
  restart_policy: {{condition: on-failure, delay: 5s, max_attempts: 5}}
  resources: {{limits: {{memory: "${{AGENT_MEMORY:-{agent_memory}}}", pids: 256}}}}

x-agent: &agent
  <<: *hardened
  image: ${{REGISTRY:-}}fedpg-agent
  command: [--connect-timeout, "600"] # seconds: a Swarm starts everyone at once
  deploy: *deploy

x-of-agents: &of-agents
  FEDPG_SERVER: server:50051
  FEDPG_TLS: /certs

services:
  server:
    <<: *hardened
    image: ${{REGISTRY:-}}fedpg-server
    environment:
      FEDPG_HOME: /runs
      FEDPG_TLS: /certs
      FEDPG_AGENTS: "{agents}"
      FEDPG_BYZANTINE: "{byzantine}" # scores the filter in the telemetry; the filter never sees it
{settings}
    volumes:
      - runs:/runs
      - {{type: tmpfs, target: /tmp}}
{certificates_of_server}
    deploy:
      <<: *deploy
      resources: {{limits: {{memory: "${{SERVER_MEMORY:-{server_memory}}}", pids: 256}}}}
      placement: {{constraints: [node.labels.fedpg-server == true]}}
    healthcheck:
      test: [CMD, python, -m, fedpg_server.healthcheck]
      interval: 10s
      timeout: 8s
      retries: 3
      start_period: 120s
"""


def stack_file(federation: Federation, certificates: str, task_file: str | None = None) -> str:
    """The stack file of a federation, as YAML text.

    `certificates` is the folder that `fedpg certs` made and `task_file` where a task of the user's own lies, both
    relative to the stack file; `docker stack deploy` reads them. Raises UsageError, as `compose_file` does.
    """
    check_path(certificates)
    attack = common_attack(federation)
    everyone = [SERVER, *(f"{AGENT_NAME_PREFIX}{index}" for index in range(1, federation.agents + 1))]
    head = _HEAD.format(
        agents=federation.agents,
        byzantine=len(federation.byzantine),
        attack="ATTACK, " if attack else "",
        certificates=certificates,
        agent_memory=LIMITS["AGENT_MEMORY"],
        server_memory=LIMITS["SERVER_MEMORY"],
        settings="\n".join(server_settings(federation, task_file, attack)),
        certificates_of_server=_files_of(SERVER, task_file),
    )
    services = "".join(_agent(index, federation, attack) for index in range(1, federation.agents + 1))
    secrets = "".join(f"  {name}-key: {{file: {certificates}/{name}/{KEY}}}\n" for name in everyone)
    configs = "".join(f"  {name}-cert: {{file: {certificates}/{name}/{CERTIFICATE}}}\n" for name in everyone)
    authority = f"  authority: {{file: {certificates}/{SERVER}/{AUTHORITY_CERTIFICATE}}}\n"
    task = f"  task: {{file: {task_file}}}\n" if task_file else ""
    return f"{head}{services}\nvolumes:\n  runs:\n\nsecrets:\n{secrets}\nconfigs:\n{authority}{configs}{task}"


def _agent(index: int, federation: Federation, attack: Choice | None) -> str:
    """One agent's service."""
    name = f"{AGENT_NAME_PREFIX}{index}"
    settings = "\n".join(agent_settings(index, federation, attack))
    return f"""
  {name}:
    <<: *agent
    environment:
      <<: *of-agents
{settings}
    volumes: [{{type: tmpfs, target: /tmp}}]
{_files_of(name)}
"""


def _files_of(name: str, task_file: str | None = None) -> str:
    """What a participant gets to see: its own key, its certificate and the authority's, and perhaps a task."""
    owner = 'uid: "10001", gid: "10001", mode: 0400'
    task = f"\n      - {{source: task, target: {task_target(task_file)}}}" if task_file else ""
    return f"""\
    secrets:
      - {{source: {name}-key, target: /certs/{KEY}, {owner}}}
    configs:
      - {{source: authority, target: /certs/{AUTHORITY_CERTIFICATE}}}
      - {{source: {name}-cert, target: /certs/{CERTIFICATE}}}{task}"""
