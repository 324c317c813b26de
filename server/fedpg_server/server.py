"""The server process: binds, restores or starts a run, serves it, and ends cleanly."""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grpc
from fedpg.v1 import federation_pb2, federation_pb2_grpc
from fedpg_common import wire
from fedpg_common.channels import TlsFiles, is_loopback, server_credentials, server_options
from fedpg_common.environments import make_environments
from fedpg_common.errors import AddressError, ExitCode, StorageError, UsageError
from fedpg_common.federation import Federation, federation_from_toml, federation_to_toml
from fedpg_common.parameters import ParameterSpec
from fedpg_common.policies import make_policy
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from fedpg_server.checkpointing import CheckpointExporter
from fedpg_server.gate import ARRIVAL_MAX_S, Gate
from fedpg_server.learner import Learner
from fedpg_server.run import Run
from fedpg_server.service import STOPS, FederationService
from fedpg_server.store import STORE_NAME, Store
from fedpg_server.telemetry import Observer, TensorBoard

CONFIG_NAME = "config.toml"
GRACE_S = 1.0
SERVICE_NAME = federation_pb2.DESCRIPTOR.services_by_name["Federation"].full_name

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
    tls: TlsFiles | None = None
    insecure: bool = False
    """Whether to listen beyond loopback without TLS."""
    tensorboard: bool = True
    checkpoint_every_rounds: int = 50


class HealthMonitor(Protocol):
    """The asyncio servicer of the standard health service."""

    async def set(self, service: str, status: int) -> None:
        """Say how a service is."""

    async def enter_graceful_shutdown(self) -> None:
        """Say NOT_SERVING from now on."""


def check_options(options: ServerOptions) -> None:
    """Raise UsageError or AddressError for options that must not be served."""
    if options.tls is None and not options.insecure and not is_loopback(options.address):
        raise UsageError(
            f"without TLS anyone who reaches {options.address} could vote: give --tls, "
            "listen on 127.0.0.1, or accept that with --insecure"
        )


async def serve(options: ServerOptions, on_bound: Callable[[str], None]) -> ExitCode:
    """Serve one run to its end. `on_bound` learns the address once calls can reach it.

    Returns OK when the run has ended, INTERRUPTED or TERMINATED after SIGINT or SIGTERM; all that was answered is
    stored by then. Raises FedPGError.
    """
    check_options(options)
    signalled = _watch_signals()
    federation = options.federation or _stored_federation(options.folder)
    environments = make_environments(federation.task)
    policy = make_policy(federation.task, environments.observation_size, environments.action_space)
    learner = Learner(federation, environments, policy)
    service = FederationService(authenticated=options.tls is not None)
    server, monitor, address = await start_listening(
        options.address, options.tls, service, wire.message_bytes_max(policy.spec.size), federation.agents
    )
    try:
        on_bound(address)
        store = await asyncio.to_thread(_open_store, options, learner)
        try:
            observers = _observers(options, federation, policy.spec, store)
            run = Run(federation, policy.spec, store, learner, observers, time.monotonic)
            service.serve(run)
            await monitor.set(SERVICE_NAME, health_pb2.HealthCheckResponse.SERVING)
            log.info("run %s at %s: %s, %d agents, from round %d of %s", run.run_id, address,
                     federation.task.name, federation.agents, len(run.records) + 1, options.folder)  # fmt: skip
            return await _serve_until(run, signalled)
        finally:
            service.withdraw(STOPS)
            await monitor.enter_graceful_shutdown()
            await server.stop(GRACE_S)
            store.close()
    finally:
        await server.stop(None)
        environments.close()


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


async def start_listening(
    address: str,
    tls: TlsFiles | None,
    service: FederationService,
    message_bytes: int,
    agents: int,
    arrival_max_s: float = ARRIVAL_MAX_S,
) -> tuple[grpc.aio.Server, HealthMonitor, str]:
    """A started server, its health monitor (NOT_SERVING for now) and the address bound. Raises AddressError."""
    gate = Gate(SERVICE_NAME, service.count_unreadable, arrival_max_s)
    read_bytes = wire.OVERSIZE_FACTOR * message_bytes
    server = grpc.aio.server(
        interceptors=[gate], options=server_options(read_bytes, wire.status_bytes_max(agents), agents)
    )
    federation_pb2_grpc.add_FederationServicer_to_server(service, server)
    monitor: HealthMonitor = health.aio.HealthServicer()  # type: ignore[attr-defined]  # unknown to the type stubs
    await monitor.set(SERVICE_NAME, health_pb2.HealthCheckResponse.NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(monitor, server)
    reflection.enable_server_reflection((SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        if tls is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, server_credentials(tls))
    except RuntimeError as error:
        raise AddressError(f"cannot listen on {address}: is the port in use, or not yours to open?") from error
    await server.start()
    return server, monitor, f"{address.rpartition(':')[0]}:{port}"


def _stored_federation(folder: Path) -> Federation:
    """The description of the run in a folder. Raises StorageError if there is none."""
    store = Store.read(folder / STORE_NAME)
    try:
        return federation_from_toml(store.description, f"the store {store.path}")
    finally:
        store.close()


def _open_store(options: ServerOptions, learner: Learner) -> Store:
    """The run's store: restored and checked, or new. Raises StorageError."""
    path = options.folder / STORE_NAME
    if options.federation is None:
        return Store.open(path)
    description = federation_to_toml(options.federation)
    try:
        options.folder.mkdir(parents=True, exist_ok=True)
        store = Store.create(path, secrets.token_hex(8), description, learner.initial_state())
        (options.folder / CONFIG_NAME).write_text(description, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write in {options.folder}: {error.strerror}") from error
    return store


def _observers(options: ServerOptions, federation: Federation, spec: ParameterSpec, store: Store) -> list[Observer]:
    """What looks on: checkpoints, TensorBoard."""
    records = store.records()
    best = max((record.evaluation_return for record in records), default=None)
    observers: list[Observer] = [
        CheckpointExporter(options.folder / "checkpoints", federation.task, spec, options.checkpoint_every_rounds, best)
    ]
    if options.tensorboard:
        observers.append(TensorBoard(options.folder / "tensorboard", federation, records))
    return observers
