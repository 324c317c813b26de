"""A network without sockets: gRPC calls as bytes that are delayed, lost, repeated and overtaken, from a seed.

A client gets a `grpc.Channel`, and the server's methods are those that the generated code registers, so that everything
above gRPC itself is the real code: stubs, messages, service.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NoReturn

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from fedpg.v1 import federation_pb2_grpc
from fedpg_server.serving.service import FederationService
from support.failed_call import CallFailedError
from support.simulated_clock import BlockingProcess, Process, VirtualLoop

HOST: ContextVar[Host] = ContextVar("host")
"""The server process whose code runs."""
NOTICED_S = 0.01
"""After which a caller hears of what was dropped on purpose."""
CONNECTION_LOST_S = 1.0
"""Until when a caller at the latest hears that its connection broke, if it hears of it at all."""


@dataclass(frozen=True)
class Weather:
    """How the network is. Each message and each response draws its own fate."""

    lost: float = 0.0
    """Probability that it does not arrive."""
    repeated: float = 0.0
    """Probability that it arrives a second time, later."""
    noticed: float = 0.5
    """Probability that the caller hears of a loss (UNAVAILABLE), instead of waiting until its deadline."""
    delay_s: float = 0.001
    """Mean delay; exponential, so that messages overtake each other."""


CALM = Weather()


class Aborted(Exception):  # noqa: N818 (what gRPC's own abort raises is no error either)
    """The handler has ended its call with a status."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


class Context:
    """As much of a call's context as the service looks at. The caller's certificate names it."""

    def __init__(self, caller: str) -> None:
        self._caller = caller

    async def abort(self, code: grpc.StatusCode, details: str = "") -> NoReturn:
        raise Aborted(code, details)

    def peer(self) -> str:
        return self._caller

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_pem_cert": [certificate_of(self._caller)]}


@lru_cache
def certificate_of(caller: str) -> bytes:
    """A certificate that names the caller; nobody checks who signed it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, caller)])
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), begin, begin)
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)


class _Methods:
    """Takes the service's methods from the generated code, in place of a gRPC server."""

    def __init__(self) -> None:
        self.handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def add_generic_rpc_handlers(self, _handlers: object) -> None:
        pass

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        self.handlers.update({f"/{service}/{name}": handler for name, handler in handlers.items()})


class Host(Process):
    """The server's process as the network sees it: methods, and tasks that die with it."""

    def __init__(self, name: str, loop: VirtualLoop, service: FederationService) -> None:
        super().__init__(name, loop)
        methods = _Methods()
        federation_pb2_grpc.add_FederationServicer_to_server(service, methods)  # type: ignore[arg-type]
        self.methods = methods.handlers
        self.tasks: dict[asyncio.Task[Any], None] = {}
        """In the order in which they began: a set's order would differ from run to run."""
        self.cut_off: list[Callable[[], None]] = []
        """Called when it dies, by the calls under way."""

    def begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine of this process."""
        context = copy_context()
        context.run(HOST.set, self)
        task = self.loop.create_task(work, context=context)
        self.tasks[task] = None
        task.add_done_callback(self.tasks.pop)
        return task

    def kill(self) -> None:
        super().kill()
        for task in list(self.tasks):
            task.cancel()
        for tell in self.cut_off:
            tell()


@dataclass
class Network:
    """Between the agents and whatever server there is."""

    loop: VirtualLoop
    rng: random.Random
    on_answer: Callable[[str, Any, Any], None]
    """Told method, request and reply of every answer that leaves the server, whether it arrives or not."""
    on_failure: Callable[[str], None]
    """Told what the service raised that it should not have."""
    note: Callable[..., None]
    weather: Weather = CALM
    server: Host | None = None
    is_cut: set[str] = field(default_factory=set)
    """Callers whose messages do not pass, in either direction."""
    drop_request: Callable[[str, str], bool] = lambda _caller, _path: False
    """Whether this request, of a caller for a method, is to be lost, whatever the weather."""
    drop_response: Callable[[str, str], bool] = lambda _caller, _path: False
    """Likewise of responses."""

    def call(self, client: Process, path: str, request: bytes, timeout_s: float | None) -> _Call:
        """Begin a call."""
        call = _Call(self, client, path, request)
        if timeout_s is not None:
            self.loop.plan(timeout_s, call.end, CallFailedError(grpc.StatusCode.DEADLINE_EXCEEDED, "deadline"))
        if self.drop_request(client.name, path):
            self._lose(call)
        else:
            self._send(client.name, path, call.arrive, call.lose)
        return call

    def _lose(self, call: _Call) -> None:
        self.note("dropped on purpose: {} {}", call.client.name, call.path)
        self.loop.plan(NOTICED_S, call.lose)

    def _send(self, client: str, what: str, deliver: Callable[[], None], lose: Callable[[], None]) -> None:
        weather = self.weather
        if client in self.is_cut or self.rng.random() < weather.lost:
            self.note("lost: {} {}", client, what)
            if self.rng.random() < weather.noticed:
                self.loop.plan(self.rng.uniform(0.0, CONNECTION_LOST_S), lose)
            return
        self.loop.plan(self._delay_s(), deliver)
        if self.rng.random() < weather.repeated:
            self.loop.plan(self._delay_s(), deliver)

    def _delay_s(self) -> float:
        return self.rng.expovariate(1.0 / self.weather.delay_s)

    def respond(self, call: _Call, outcome: bytes | CallFailedError) -> None:
        """Send a response on its way."""
        if self.drop_response(call.client.name, call.path):
            self._lose(call)
            return
        self._send(call.client.name, "response to " + call.path, lambda: call.end(outcome), call.lose)


class _Call:
    """One call under way. Satisfies what the agent's retries ask of gRPC's future."""

    def __init__(self, network: Network, client: Process, path: str, request: bytes) -> None:
        self._network = network
        self.client = client
        self.path = path
        self._request = request
        self._outcome: bytes | CallFailedError | None = None
        self._wake: Callable[[Any], None] | None = None

    # The client's side

    def wait(self) -> bytes:
        """Block until the call has ended. Raises CallFailedError."""
        if self._outcome is None:
            assert isinstance(self.client, BlockingProcess)
            self.client.wait(self._wait_for)
        if isinstance(self._outcome, CallFailedError):
            raise self._outcome
        assert self._outcome is not None
        return self._outcome

    def _wait_for(self, wake: Callable[[Any], None]) -> None:
        self._wake = wake

    def end(self, outcome: bytes | CallFailedError) -> None:
        """The first outcome counts."""
        if self._outcome is None:
            self._outcome = outcome
            if self._wake is not None:
                self._wake(None)

    def lose(self) -> None:
        """The connection is gone."""
        self.end(CallFailedError(grpc.StatusCode.UNAVAILABLE, "the connection is lost"))

    # The server's side

    def arrive(self) -> None:
        """The request is there."""
        server = self._network.server
        if server is None or not server.is_alive:
            self.end(CallFailedError(grpc.StatusCode.UNAVAILABLE, "connection refused"))
            return
        if self._network.rng.random() < self._network.weather.noticed:
            server.cut_off.append(self.lose)
        server.do(lambda: server.begin(self._serve(server)))

    async def _serve(self, server: Host) -> None:
        handler = server.methods[self.path]
        assert handler.unary_unary is not None
        assert handler.request_deserializer is not None
        assert handler.response_serializer is not None
        request = handler.request_deserializer(self._request)
        try:
            reply = await handler.unary_unary(request, Context(self.client.name))  # type: ignore[arg-type]
        except Aborted as aborted:
            failure = CallFailedError(aborted.code, aborted.details)
            server.do(self._network.respond, self, failure)
        except Exception as error:
            self._network.on_failure(f"{self.path} raised {error!r}")
            raise
        else:
            data = handler.response_serializer(reply)
            server.do(self._answer, request, reply, data)

    def _answer(self, request: Any, reply: Any, data: bytes) -> None:
        self._network.on_answer(self.path, request, reply)
        self._network.respond(self, data)


class Channel(grpc.Channel):
    """A client's connection, for the generated stubs."""

    def __init__(self, network: Network, client: Process) -> None:
        self._network = network
        self._client = client

    def unary_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, *_: Any, **__: Any
    ) -> Any:
        return _Method(self._network, self._client, method, request_serializer, response_deserializer)

    def close(self) -> None:
        pass

    def _unused(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("the contract has unary calls only")

    subscribe = unsubscribe = unary_stream = stream_unary = stream_stream = _unused
    __enter__ = __exit__ = _unused


@dataclass(frozen=True)
class _Method:
    network: Network
    client: Process
    path: str
    serialize: Callable[[Any], bytes]
    deserialize: Callable[[bytes], Any]

    def future(self, request: Any, timeout: float | None = None) -> _Pending:
        return _Pending(self.network.call(self.client, self.path, self.serialize(request), timeout), self.deserialize)

    def __call__(self, request: Any, timeout: float | None = None) -> Any:
        if not self.client.is_alive:  # it is being killed: nothing that it still says is heard
            raise CallFailedError(grpc.StatusCode.CANCELLED, "the process is gone")
        return self.future(request, timeout).result()


@dataclass(frozen=True)
class _Pending:
    call: _Call
    deserialize: Callable[[bytes], Any]

    def result(self, timeout: float | None = None) -> Any:
        """The reply. It does not wake up in between to look whether it is to stop: a kill reaches it anyway."""
        return self.deserialize(self.call.wait())

    def cancel(self) -> None:
        self.call.lose()
