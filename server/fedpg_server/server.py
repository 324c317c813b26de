"""The server process: binds, restores or starts a run, serves it, and ends cleanly."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fedpg_common.choices import Choice
from fedpg_common.environments import GlobalRandom, make_environments
from fedpg_common.environments.helpers import HelperPool
from fedpg_common.environments.waits import Waiting, telling_of_waits
from fedpg_common.errors import ExitCode, FedPGError, UsageError
from fedpg_common.federation import Federation
from fedpg_common.learning.parameters import ParameterSpec
from fedpg_common.learning.policies import make_policy
from fedpg_common.machine import cores
from fedpg_common.rounds import why_no_worlds
from fedpg_common.transport import wire
from fedpg_common.transport.channels import TlsFiles, is_loopback
from grpc_health.v1 import health_pb2

from fedpg_server.carried_adam import check_carried
from fedpg_server.farewell import describe_end
from fedpg_server.learning.learner import Learner
from fedpg_server.learning.worlds import Worlds, check_worlds
from fedpg_server.observers.base import Observed, build_observers
from fedpg_server.opening import create_store, leave_summary, restore_store, take_up
from fedpg_server.run import Run
from fedpg_server.serving.grpc_server import SERVICE_NAME, start_listening
from fedpg_server.serving.request_guard import STOPS
from fedpg_server.serving.service import FederationService
from fedpg_server.storage.store import Store
from fedpg_server.threads import run_in

SHIPPED_OBSERVERS = (Choice("checkpoints"), Choice("tensorboard"))
GRACE_S = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerOptions:
    """What a server process is told."""

    folder: Path
    """The run folder."""
    address: str = "127.0.0.1:50051"
    """HOST:PORT to listen on; port 0 picks a free one."""
    federation: Federation | None = None
    """None resumes the run in the folder."""
    trajectories: int | None = None
    """Where a resumed run is to end from now on; None leaves it where its description says."""
    tls: TlsFiles | None = None
    insecure: bool = False
    """Whether to listen beyond loopback without TLS."""
    observers: tuple[Choice, ...] = SHIPPED_OBSERVERS
    """What looks on."""
    copy_hint: str | None = None
    """The command that copies the run to where the user is, with {folder} for its place; said at the end."""
    threads: int | None = None
    """How many share the server's episodes, where the environment lets them; None for the cores of this process."""
    adam_from: Path | None = None
    """The run folder of the federation's predecessor, where it has one: a new run starts with its Adam state."""
    keep_parameters: int | None = None
    """Of how many latest rounds the store keeps the parameters; None for as many as fit in 64 MiB."""


def check_options(options: ServerOptions) -> None:
    """Raise UsageError or AddressError for options that must not be served."""
    if options.tls is None and not options.insecure and not is_loopback(options.address):
        raise UsageError(
            f"without TLS anyone who reaches {options.address} could vote: give --tls, "
            "listen on 127.0.0.1, or accept that with --insecure"
        )
    if options.federation is not None:
        check_carried(options.federation, options.adam_from)


async def serve(
    options: ServerOptions, on_bound: Callable[[str], None], on_wait: Callable[[str], None] = lambda _what: None
) -> ExitCode:
    """Serve one run to its end. `on_bound` learns the address once calls can reach it.

    `on_wait` learns, in a thread of its own, what the server's environment keeps it waiting for; "" once it returns.

    Returns OK when the run has ended, INTERRUPTED or TERMINATED after SIGINT or SIGTERM; all that was answered is
    stored by then. Raises FedPGError.
    """
    check_options(options)
    signalled = _watch_signals()
    federation = take_up(options.federation, options.folder, options.trajectories)

    def tell_of_wait(_thread: int, waiting: Waiting | None) -> None:
        if waiting is None:
            log.info("the environment has returned")
        else:
            log.warning("%s", waiting)
        on_wait(str(waiting or ""))

    # Environments may be bound to a thread: they are made, stepped and closed in this one.
    with telling_of_waits(tell_of_wait), ThreadPoolExecutor(1, "learner") as thread:
        environments = await run_in(thread, make_environments, federation.task, GlobalRandom(federation.seed))
        try:
            threads, helpers = options.threads or cores(), HelperPool()
            await run_in(thread, environments.share_helpers, helpers)
            await run_in(thread, environments.use_threads, threads)
            policy = make_policy(federation.task, environments.observation_size, environments.action_space)
            await run_in(thread, check_worlds, federation, policy)
            if rarely := why_no_worlds(federation):
                log.warning(rarely)
            worlds = None
            if federation.worlds_every:
                worlds = await run_in(thread, Worlds, federation, policy, threads, helpers)
            try:
                learner = Learner(federation, environments, policy, worlds)
                return await _serve_learner(options, federation, learner, policy.spec, thread, signalled, on_bound)
            finally:
                if worlds is not None:
                    await run_in(thread, worlds.close)
        finally:
            await run_in(thread, environments.close)


async def _serve_learner(
    options: ServerOptions,
    federation: Federation,
    learner: Learner,
    spec: ParameterSpec,
    thread: ThreadPoolExecutor,
    signalled: asyncio.Future[ExitCode],
    on_bound: Callable[[str], None],
) -> ExitCode:
    """Bind, restore or start the run, and serve it; the learner works in `thread`."""
    service = FederationService(authenticated=options.tls is not None)
    message_bytes = wire.message_bytes_max(spec.size, learner.round_vectors)
    endpoint = await start_listening(options.address, options.tls, service, message_bytes, federation.agents)
    try:
        on_bound(endpoint.address)
        store = await asyncio.to_thread(_open_store, options, federation, learner)
        try:
            store.keep_parameters = options.keep_parameters
            records = store.records()
            observed = Observed(options.folder, federation, spec, tuple(records), store.parameters_if_kept)
            observers = build_observers(options.observers, observed)
            run = Run(federation, spec, store, learner, observers, time.monotonic, thread, records=records)
            service.serve(run.calls)
            await endpoint.monitor.set(SERVICE_NAME, health_pb2.HealthCheckResponse.SERVING)
            log.info("run %s at %s: %s, %d agents, from round %d of %s", run.run_id, endpoint.address,
                     federation.task.name, federation.agents, len(run.records) + 1, options.folder)  # fmt: skip
            code = await _serve_and_summarize(run, signalled, options.folder)
            if code is ExitCode.OK:
                for line in describe_end(federation, run.records, options.folder, options.copy_hint):
                    log.info(line)
            return code
        finally:
            service.withdraw(STOPS)
            await endpoint.monitor.enter_graceful_shutdown()
            await endpoint.stop(GRACE_S)
            store.close()
    finally:
        await endpoint.stop(None)


async def _serve_and_summarize(run: Run, signalled: asyncio.Future[ExitCode], folder: Path) -> ExitCode:
    """Serve the run, and leave a summary however it ends."""
    failure = None
    try:
        return await _serve_until(run, signalled)
    except FedPGError as error:
        failure = str(error)
        raise
    finally:
        leave_summary(folder, run.federation, run.records, failure)


async def _serve_until(run: Run, signalled: asyncio.Future[ExitCode]) -> ExitCode:
    """Serve the run until it ends or a signal arrives."""
    rounds = asyncio.create_task(run.serve())
    await asyncio.wait((rounds, signalled), return_when=asyncio.FIRST_COMPLETED)
    if rounds.done():
        rounds.result()
        return ExitCode.OK
    log.warning("stopping before the run has ended; resume it with --resume")
    rounds.cancel()
    await asyncio.gather(rounds, return_exceptions=True)
    return signalled.result()


def _watch_signals() -> asyncio.Future[ExitCode]:
    """A future that SIGINT or SIGTERM resolves to the process's exit code."""
    loop = asyncio.get_running_loop()
    signalled: asyncio.Future[ExitCode] = loop.create_future()

    def resolve(code: ExitCode) -> None:
        if not signalled.done():
            signalled.set_result(code)

    loop.add_signal_handler(signal.SIGINT, resolve, ExitCode.INTERRUPTED)
    loop.add_signal_handler(signal.SIGTERM, resolve, ExitCode.TERMINATED)
    return signalled


def _open_store(options: ServerOptions, federation: Federation, learner: Learner) -> Store:
    """The run's store: restored and checked, or new. Raises StorageError."""
    if options.federation is None:
        return restore_store(options.folder, federation)
    return create_store(options.folder, federation, learner.initial_state(), options.adam_from)
