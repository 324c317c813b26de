"""The server process: binds, restores or starts a run, serves it, and ends cleanly."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import ParamSpec, TypeVar

from fedpg_common.choices import Choice
from fedpg_common.environments import GlobalRandom, make_environments
from fedpg_common.environments.helpers import HelperPool
from fedpg_common.errors import ExitCode, FedPGError, UsageError
from fedpg_common.federation import Federation
from fedpg_common.learning.parameters import ParameterSpec
from fedpg_common.learning.policies import make_policy
from fedpg_common.machine import cores
from fedpg_common.rounds import why_no_worlds
from fedpg_common.transport import wire
from fedpg_common.transport.channels import TlsFiles, is_loopback
from fedpg_common.waits import Waiting, telling_of_waits
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
from fedpg_server.threads import LoneThread, run_in

SHIPPED_OBSERVERS = (Choice("checkpoints"), Choice("tensorboard"))
GRACE_S = 1.0
STOP_PATIENCE_S = 3.0
"""How long a server that is told to stop, and has stored all, waits for its environment: for what it works on, which
counts no more, and to be closed."""
CLOSE_PATIENCE_S = 15.0
"""How long one that ends otherwise waits for it to be closed: by then it has been said where it is."""

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)


class _StoppedError(Exception):
    """A signal has come."""


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
    options: ServerOptions,
    on_bound: Callable[[str], None],
    on_wait: Callable[[str], None] = lambda _what: None,
    signals: list[int] | None = None,
) -> ExitCode:
    """Serve one run to its end. `on_bound` learns the address once calls can reach it.

    `on_wait` learns, in a thread of its own, what somebody's own code keeps the server waiting for; "" once it returns.
    `signals` is given the number of each signal as it comes, also while an observer holds up all else.

    Returns OK when the run has ended, INTERRUPTED or TERMINATED after SIGINT or SIGTERM; all that was answered is
    stored by then, though an environment may still be in a call that does not return. Raises FedPGError.
    """
    check_options(options)
    signalled = _watch_signals([] if signals is None else signals)
    federation = take_up(options.federation, options.folder, options.trajectories)

    def tell_of_wait(_thread: int, waiting: Waiting | None) -> None:
        if waiting is None:
            log.info("that has returned")
        else:
            log.warning("%s", waiting)
        on_wait(str(waiting or ""))

    thread = LoneThread("learner")
    with telling_of_waits(tell_of_wait):
        try:
            return await _serve_in(thread, options, federation, signalled, on_bound)
        except _StoppedError:
            log.warning("stopping before the run has begun")
            return signalled.result()
        finally:
            thread.shutdown(wait=False)


async def _serve_in(
    thread: LoneThread,
    options: ServerOptions,
    federation: Federation,
    signalled: asyncio.Future[ExitCode],
    on_bound: Callable[[str], None],
) -> ExitCode:
    """As `serve`. Environments may be bound to a thread: they are made, stepped and closed in this one."""

    async def call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await _unless(signalled, run_in(thread, function, *args, **kwargs))

    with_environments = ExitStack()
    try:
        environments = await call(make_environments, federation.task, GlobalRandom(federation.seed))
        with_environments.callback(environments.close)
        threads, helpers = options.threads or cores(), HelperPool()
        await call(environments.share_helpers, helpers)
        await call(environments.use_threads, threads)
        policy = make_policy(federation.task, environments.observation_size, environments.action_space)
        await call(check_worlds, federation, policy)
        if rarely := why_no_worlds(federation):
            log.warning(rarely)
        worlds = None
        if federation.worlds_every:
            worlds = await call(Worlds, federation, policy, threads, helpers)
            with_environments.callback(worlds.close)
        learner = Learner(federation, environments, policy, worlds)
        return await _serve_learner(options, federation, learner, policy.spec, thread, signalled, on_bound)
    finally:
        await _close(thread, with_environments.close, signalled)


async def _unless(signalled: asyncio.Future[ExitCode], work: Awaitable[T]) -> T:
    """What the work gives. Raises _StoppedError if a signal comes first: nobody waits for the work any more."""
    working = asyncio.ensure_future(work)
    await asyncio.wait((working, signalled), return_when=asyncio.FIRST_COMPLETED)
    if not working.done():
        working.cancel()
        raise _StoppedError
    return working.result()


async def _close(thread: LoneThread, close: Callable[[], None], signalled: asyncio.Future[ExitCode]) -> None:
    """Close environments in their thread, unless one of them is in a call for too long, or hangs in closing."""
    closing = asyncio.ensure_future(run_in(thread, close))
    await asyncio.wait((closing, signalled), timeout=CLOSE_PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
    if signalled.done() and not closing.done():
        await asyncio.wait((closing,), timeout=STOP_PATIENCE_S)
    if closing.done():
        closing.result()
        return
    closing.cancel()
    log.warning("an environment, or another part of yours, does not return from the call that it is in: "
                "ending in the middle of it; what was answered is stored")  # fmt: skip


async def _serve_learner(
    options: ServerOptions,
    federation: Federation,
    learner: Learner,
    spec: ParameterSpec,
    thread: LoneThread,
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


def _watch_signals(signals: list[int]) -> asyncio.Future[ExitCode]:
    """A future that SIGINT or SIGTERM resolves to the process's exit code. `signals` is given each one's number.

    It is given it twice where the loop does not hear of it: an observer that holds it up is in its last call.
    """
    loop = asyncio.get_running_loop()
    signalled: asyncio.Future[ExitCode] = loop.create_future()

    def resolve(code: ExitCode) -> None:
        if not signalled.done():
            signalled.set_result(code)

    def note(number: int, _frame: FrameType | None) -> None:
        """Python calls this between two lines of whatever the main thread is in."""
        signals.append(number)
        insisting = threading.Timer(STOP_PATIENCE_S, insist, [number])
        insisting.daemon = True
        insisting.start()

    def insist(number: int) -> None:
        if not signalled.done():
            signals.append(number)

    for number, code in ((signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.TERMINATED)):
        loop.add_signal_handler(number, resolve, code)
        signal.signal(number, note)  # the loop hears of it by another way, when it comes to look
    return signalled


def _open_store(options: ServerOptions, federation: Federation, learner: Learner) -> Store:
    """The run's store: restored and checked, or new. Raises StorageError."""
    if options.federation is None:
        return restore_store(options.folder, federation)
    return create_store(options.folder, federation, learner.initial_state(), options.adam_from)
