"""A process with one agent or several: builds them, runs each in a thread, and reports how they fared."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from fedpg.v1 import federation_pb2 as pb
from fedpg_common import wire
from fedpg_common.channels import TlsFiles
from fedpg_common.choices import Choice
from fedpg_common.environments import make_environments
from fedpg_common.errors import ExitCode, FedPGError, RefusedError
from fedpg_common.policies import make_policy

from fedpg_client.agent import Agent
from fedpg_client.attacks import Attacker, Knowledge, Pool, Target, build_attacker
from fedpg_client.attacks.omniscience import contribution_size
from fedpg_client.attacks.reporting import reported
from fedpg_client.calls import FederationCalls
from fedpg_client.collusion import PoolClient, PoolServer
from fedpg_client.retry import Caller, StoppedError
from fedpg_client.worker import Worker

CONNECT_PATIENCE_S = 30.0
PATIENCE_S = 600.0
COLLUSION_WAIT_S = 60.0
WAKE_EVERY_S = 0.5

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Collusion:
    """How the attackers that collude meet."""

    attackers: tuple[int, ...]
    """Agent indices of all of them, ascending."""
    address: str = ""
    """Where they pool; empty for a lone attacker."""
    listen: str = ""
    """Where to serve the pool in this process; empty if another attacker does."""
    secret: str = ""
    """What they share, and nobody else has: it keeps their channel, and their common stream follows from it."""
    wait_s: float = COLLUSION_WAIT_S


@dataclass(frozen=True)
class AgentOptions:
    """One agent's configuration."""

    index: int
    server: str
    """HOST:PORT."""
    attack: Choice | None = None
    """None for an honest agent."""
    collusion: Collusion | None = None
    """For an attack that colludes."""
    run_seed: int | None = None
    """For an omniscient attack alone; others are not told."""
    aggregator: Choice | None = None
    """The server's rule, for an attack that colludes."""
    tls: TlsFiles | None = None
    connect_patience_s: float = CONNECT_PATIENCE_S
    """How long to wait for the server at the start."""
    patience_s: float = PATIENCE_S
    """How long a silence of the server to bear later."""


@dataclass
class AgentProcess:
    """Several agents in one process, a thread each. They share nothing but the process."""

    agents: Sequence[AgentOptions]
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> ExitCode:
        """Run all agents to the end of the run. The exit code is that of the first agent that failed."""
        with ThreadPoolExecutor(len(self.agents), "agent") as threads:
            futures = [threads.submit(self._run_one, options) for options in self.agents]
            # Python's signal handlers run in the main thread, when it wakes; and the system may hand the signal to
            # another thread, which does not wake it.
            while wait(futures, timeout=WAKE_EVERY_S).not_done:
                pass
            codes = [future.result() for future in futures]
        return next((code for code in codes if code != ExitCode.OK), ExitCode.OK)

    def _run_one(self, options: AgentOptions) -> ExitCode:
        with ExitStack() as resources:
            try:
                attacker = self._attacker(options.attack)
                caller = self._caller(options.server, options.index)
                line = FederationCalls(
                    options.index, caller, options.tls, options.connect_patience_s, options.patience_s
                )
                resources.callback(line.close)
                calls = attacker.attack.calls(line, Target(options.index, options.server, options.tls))
                if calls is not line:
                    resources.callback(calls.close)
                make_worker = partial(self._make_worker, options, attacker, resources.enter_context(ExitStack()))
                Agent(options.index, calls, make_worker, time.monotonic).run()
            except StoppedError:
                log.info("agent %d: stopped", options.index)
                return ExitCode.TERMINATED
            except FedPGError as error:
                log.error("agent %d: %s", options.index, error)
                return error.exit_code
            except wire.WireError as error:
                log.error("agent %d: the other end does not keep to the contract: %s", options.index, error)
                return ExitCode.REFUSED
            except Exception:
                log.exception("agent %d: unexpected failure", options.index)
                return ExitCode.BUG
        return ExitCode.OK

    def _attacker(self, choice: Choice | None) -> Attacker:
        attacker = build_attacker(choice)
        if choice is None or ":" not in choice.name:
            return attacker
        return replace(attacker, attack=reported(attacker.attack, choice.name))

    def _caller(self, address: str, agent: int) -> Caller:
        return Caller(address, np.random.default_rng([agent, time.time_ns()]), self.stop)

    def _make_worker(
        self, options: AgentOptions, attacker: Attacker, resources: ExitStack, joined: pb.JoinReply
    ) -> Worker:
        """Build what computes, in place of what an earlier Join had built.

        Raises RefusedError if this version builds another policy than the server's.
        """
        resources.close()
        task = wire.task_from_message(joined.task)
        environments = make_environments(task)
        resources.callback(environments.close)
        policy = make_policy(task, environments.observation_size, environments.action_space)
        if wire.spec_from_messages(list(joined.parameters)) != policy.spec:
            raise RefusedError(f"this version's policy for {task.name} is not laid out like the server's: update both")
        if attacker.attack.knowledge >= Knowledge.COLLUDERS:
            attacker = self._colluding(options, attacker, resources, joined, policy.spec.size)
        return Worker(options.index, joined.agents, joined.seed, task, policy, environments, attacker)

    def _colluding(
        self, options: AgentOptions, attacker: Attacker, resources: ExitStack, joined: pb.JoinReply, size: int
    ) -> Attacker:
        """The attacker with what it needs to collude in this run; `size` is d."""
        knows_all = attacker.attack.knowledge >= Knowledge.OMNISCIENT
        collusion = options.collusion or Collusion((options.index,))
        if knows_all:
            size = contribution_size(collusion.attackers, joined.agents, size)
        return replace(
            attacker,
            attackers=collusion.attackers,
            secret=collusion.secret,
            pool=self._open_pool(options.index, collusion, resources, joined.run_id, size),
            run_seed=options.run_seed if knows_all else None,
            aggregator=options.aggregator,
        )

    def _open_pool(self, index: int, collusion: Collusion, resources: ExitStack, run_id: str, size: int) -> Pool | None:
        if not collusion.address:
            return None
        if collusion.listen:
            server = PoolServer(collusion.attackers, size, collusion.secret)
            server.listen(collusion.listen)
            resources.callback(server.close)
        caller = self._caller(collusion.address, index)
        client = PoolClient(index, run_id, size, caller, collusion.wait_s, collusion.secret)
        resources.callback(client.close)
        return client
