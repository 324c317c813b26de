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
from fedpg_common.choices import Choice
from fedpg_common.environments import GlobalRandom, make_environments
from fedpg_common.environments.helpers import HelperPool
from fedpg_common.errors import ExitCode, FedPGError, RefusedError
from fedpg_common.learning.parameters import ParameterSpec
from fedpg_common.learning.policies import make_policy
from fedpg_common.learning.streams import Role
from fedpg_common.speeds import Speed
from fedpg_common.tasks import Task
from fedpg_common.transport import wire
from fedpg_common.transport.channels import TlsFiles, open_channel
from fedpg_common.waits import Waiting, telling_of_waits
from fedpg_common.worlds import World

from fedpg_client.agent import Agent
from fedpg_client.attacks import Attacker, Knowledge, Pool, Target
from fedpg_client.attacks.omniscience import contribution_size
from fedpg_client.attacks.reporting import build_reported
from fedpg_client.attacks.shared import SharedSearches
from fedpg_client.calls import FederationCalls
from fedpg_client.collusion.channel import PoolClient, PoolServer
from fedpg_client.fates import Ended, OnFate, Waits, tell_nobody
from fedpg_client.interruptible import InterruptibleChannel
from fedpg_client.patience import CONNECT_PATIENCE_S, PATIENCE_S
from fedpg_client.retry import Caller, StoppedError
from fedpg_client.trust import check_trusted
from fedpg_client.worker import Worker

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
    threads: int = 1
    """How many share the agent's episodes, where the environment lets them."""
    use_proxy: bool = False
    """Whether to heed the environment's proxy on the way to the server."""
    allow: tuple[str, ...] = ()
    """Modules and environments that the server may name: see `fedpg_client.trust`."""
    module_folder: str = ""
    """Where to look for an allowed module, besides Python's path and the working folder."""
    world: World = field(default_factory=World)
    """What the operator gives this agent's environment, over what the server says."""
    speed: Speed = field(default_factory=Speed)
    """How much the operator lets it sample, over what the server says."""


@dataclass
class AgentProcess:
    """Several agents in one process, a thread each. They share the process, what helps it, and attackers a search."""

    agents: Sequence[AgentOptions]
    stop: threading.Event = field(default_factory=threading.Event)
    on_fate: OnFate = tell_nobody
    """Told at once of each agent that ends, also while others go on; from any agent's thread."""
    _searches: SharedSearches = field(default_factory=SharedSearches, init=False)
    _helpers: HelperPool = field(default_factory=HelperPool, init=False)
    _channels: list[InterruptibleChannel] = field(default_factory=list, init=False)
    """Those of all agents, closed ones too."""
    _threads: dict[int, int] = field(default_factory=dict, init=False)
    """The agent of each thread."""
    _codes: dict[int, ExitCode] = field(default_factory=dict, init=False)
    """Of the agents that have ended, though what they used may still be open."""

    def run(self) -> ExitCode:
        """Run all agents to the end of the run. The exit code is that of the first agent, in order, that failed."""
        with telling_of_waits(self._tell_of_wait), ThreadPoolExecutor(len(self.agents), "agent") as threads:
            futures = [threads.submit(self._run_one, options) for options in self.agents]
            # Python's signal handlers run in the main thread, when it wakes; and the system may hand the signal to
            # another thread, which does not wake it.
            while wait(futures, timeout=WAKE_EVERY_S).not_done:
                if self.stop.is_set():
                    for channel in list(self._channels):
                        channel.interrupt()
            for future in futures:
                future.result()
        return self.code

    @property
    def is_over(self) -> bool:
        """Whether every agent has ended, so that the process has nothing left to do but to close what they used."""
        return bool(self.agents) and len(self._codes) == len(self.agents)

    @property
    def code(self) -> ExitCode:
        """That of the first agent, in order, that failed; OK while none has."""
        codes = [self._codes.get(options.index, ExitCode.OK) for options in self.agents]
        return next((code for code in codes if code != ExitCode.OK), ExitCode.OK)

    def _tell_of_wait(self, thread: int, waiting: Waiting | None) -> None:
        """Say in the log, and to whoever watches, that an agent's environment or attack does not return, or has."""
        agent = self._threads.get(thread)
        if agent is None:
            return
        if waiting is None:
            log.info("agent %d: that has returned", agent)
        else:
            log.warning("agent %d: %s", agent, waiting)
        self.on_fate(Waits(agent, str(waiting or "")))

    def _run_one(self, options: AgentOptions) -> None:
        self._threads[threading.get_ident()] = options.index
        fate: Ended | None = None
        try:
            with ExitStack() as resources:
                fate = self._take_part(options, resources)
                self._codes[options.index] = fate.code
                self.on_fate(fate)
        except BaseException as error:  # in closing what it used: how the agent fared is told already
            if fate is None:
                raise
            log.warning("agent %d: could not clean up: %s: %s", options.index, type(error).__name__, error)

    def _take_part(self, options: AgentOptions, resources: ExitStack) -> Ended:
        """From Join to Leave. What the agent used is still open on return, and closed with `resources`."""
        index = options.index
        try:
            attacker = build_reported(options.attack)
            caller = self._caller(options.server, index)
            line = FederationCalls(
                index,
                caller,
                options.tls,
                options.connect_patience_s,
                options.patience_s,
                partial(self._open_channel, use_proxy=options.use_proxy),
            )
            resources.callback(line.close)
            calls = attacker.attack.calls(line, Target(index, options.server, options.tls))
            if calls is not line:
                resources.callback(calls.close)
            make_worker = partial(self._make_worker, options, attacker, resources.enter_context(ExitStack()))
            Agent(index, calls, make_worker, time.monotonic, self.on_fate).run()
        except StoppedError:
            log.info("agent %d: stopped", index)
            return Ended(index, ExitCode.TERMINATED, "it was told to stop")
        except FedPGError as error:
            log.error("agent %d: %s", index, error)
            return Ended(index, error.exit_code, str(error))
        except wire.WireError as error:
            log.error("agent %d: the other end does not keep to the contract: %s", index, error)
            return Ended(index, ExitCode.REFUSED, f"the other end does not keep to the contract: {error}")
        except (SystemExit, KeyboardInterrupt) as error:  # nothing of ours raises these in an agent's thread
            sentence = f"the environment asked the process to end ({error!r})"
            log.error("agent %d: %s", index, sentence)
            return Ended(index, ExitCode.ENVIRONMENT, sentence)
        except Exception as error:
            log.exception("agent %d: unexpected failure", index)
            return Ended(index, ExitCode.BUG, f"an unexpected {type(error).__name__}: {error}")
        return Ended(index, ExitCode.OK)

    def _open_channel(
        self, address: str, message_bytes: int, tls: TlsFiles | None, use_proxy: bool
    ) -> InterruptibleChannel:
        channel = InterruptibleChannel(partial(open_channel, address, message_bytes, tls, use_proxy))
        self._channels.append(channel)
        return channel

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
        check_trusted(task, options.allow)
        task = options.world.of(replace(task, module_folder=options.module_folder))
        environments = make_environments(task, GlobalRandom(joined.seed, Role.AGENT, options.index))
        resources.callback(environments.close)
        environments.share_helpers(self._helpers)
        environments.use_threads(options.threads)
        policy = make_policy(task, environments.observation_size, environments.action_space)
        check_fit(task, policy.spec, wire.spec_from_messages(list(joined.parameters)))
        if attacker.attack.knowledge >= Knowledge.COLLUDERS:
            attacker = self._colluding(options, attacker, resources, joined, policy.spec.size)
        speed = options.speed.over(Speed(joined.trajectories, joined.min_trajectories))
        return Worker(options.index, joined.agents, joined.seed, task, policy, environments, attacker, speed)

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
            searches=self._searches,
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


def check_fit(task: Task, own: ParameterSpec, servers: ParameterSpec) -> None:
    """Raise RefusedError if the policy for this agent's environment is not the server's."""
    if own == servers:
        return
    mine, theirs = (spec.tensors[0].shape[-1] for spec in (own, servers))
    names = [tensor.name for tensor in own.tensors] == [tensor.name for tensor in servers.tensors]
    if mine != theirs:
        what = f"its environment is observed as {mine} numbers, the server's as {theirs}"
    elif names and own.tensors[:-2] == servers.tensors[:-2]:
        what = "its environment takes other actions than the server's"
    else:
        what = "this version lays it out in another way: update both"
    raise RefusedError(f"this agent's policy for {task.name} is not laid out like the server's: {what}")
