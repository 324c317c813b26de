"""What stands before the service: requests have to arrive whole, in time, and be messages.

gRPC gives a unary handler its request only when it has arrived, so that nobody hears of a call whose request never
does, or is too large to be read. The gate therefore takes the calls as streams of one message, which looks the same to
the caller.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from fedpg_server.serving.call_limits import Places, SharedLimit
from fedpg_server.serving.identity import certificate_pem, name_in

STOPS = "the server stops; try again when it is back"
REVOKED = "the certificate has been revoked: ask the operator for another one"
ARRIVAL_MAX_S = 20.0
"""A request that takes longer to arrive is given up. The agents' own deadline for a call is shorter."""

ARRIVING_MAX = 4
"""Requests of one caller that are read at a time; the others' bytes wait at the caller's end."""
STREAMS_MAX = 4
"""Calls of one caller that are streams, at a time."""

READ_MAX_S = 20.0
"""A large reply that its caller has not read by then is given up."""
UNREAD_REPLIES_MAX = 4
"""Large replies that one caller may have coming, as many as it may hold polls; with more, the oldest is given up.

Small ones gRPC takes off the handler's hands at once: they are bounded by the calls on a connection."""

Context = grpc.aio.ServicerContext[Any, Any]


class Gate(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic to the type stubs alone
    """Guards all calls on a port. Of streams (reflection, a watch on health), a caller has few at a time."""

    def __init__(
        self,
        service_name: str,
        on_unreadable: Callable[[], None],
        on_call: Callable[[str, str | None], None],
        arrival_max_s: float,
        large_replies: Collection[str] = (),
        close_connection: Callable[[str], None] = lambda _peer: None,
        parsers: Mapping[str, Callable[[bytes], Message]] | None = None,
        is_revoked: Callable[[bytes], bool] = lambda _certificate: False,
        on_revoked: Callable[[Context], None] = lambda _context: None,
        has_certificates: bool = True,
    ) -> None:
        """`on_unreadable` is told of every request to the service that does not arrive whole in time or is none.

        Among them are those that gRPC does not read because they are too large. `on_call` is told of every call's peer,
        as gRPC writes it, and of the common name of its certificate, None without one. `large_replies` are the methods
        ("Join") whose replies are too large for a caller to let them lie: the server keeps few of them, and not long.
        `parsers` are the methods whose requests are large, and how these are read. Such a request keeps its place among
        those that are read at a time until it is answered. Who has a certificate, in PEM, that `is_revoked` is refused,
        and `on_revoked` is told of the call. Without `has_certificates`, as on a port without
        TLS, nobody is asked for one.
        """
        self._prefix = f"/{service_name}/"
        self._on_unreadable = on_unreadable
        self._on_call = on_call
        self._large_replies = frozenset(f"{self._prefix}{method}" for method in large_replies)
        self._close_connection = close_connection
        self._parsers = {f"{self._prefix}{method}": parser for method, parser in (parsers or {}).items()}
        self._is_revoked, self._on_revoked = is_revoked, on_revoked
        self._has_certificates = has_certificates
        self._places = Places(ARRIVING_MAX)
        self._streams: Counter[str] = Counter()
        """By caller, the streams that are open."""
        self._sending: defaultdict[str, list[str]] = defaultdict(list)
        """By caller, the peers to which a large reply is under way."""
        self._arrival_max_s = arrival_max_s
        self._in_time = SharedLimit(arrival_max_s)
        self._is_closed = False
        self._guarded: dict[str, Any] = {}
        """The handlers behind the gate, by method."""

    def close(self) -> None:
        """The server stops: send away everyone whose request has not arrived."""
        self._is_closed = True
        self._in_time.end_all()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler of a call that begins, behind the gate."""
        method = handler_call_details.method
        if (known := self._guarded.get(method)) is not None:
            return known
        handler = await continuation(handler_call_details)
        if handler is not None:  # there are as many as the services have methods, whatever callers ask for
            self._guarded[method] = handler = self._guard(method, handler)
        return handler

    def _guard(self, method: str, handler: grpc.RpcMethodHandler[Any, Any]) -> Any:
        is_ours, answer = method.startswith(self._prefix), handler.unary_unary
        parse = self._parsers.get(method, handler.request_deserializer)
        if answer is None or parse is None:
            return self._guarded_stream(handler)

        is_large = method in self._parsers

        async def guarded(_requests: object, context: Any) -> object:
            name, peer = await self._admit(context)
            caller = name or peer
            request = await self._take(parse, context, caller, is_ours)
            if name is None or not is_large:  # many agents may share a connection
                self._places.give_back(caller)
                return await answer(request, context)
            try:
                return await answer(request, context)
            finally:
                self._places.give_back(caller)

        async def guarded_to_the_end(_requests: object, context: Any) -> None:
            name, peer = await self._admit(context)
            caller = name or peer
            request = await self._take(parse, context, caller, is_ours)
            self._places.give_back(caller)
            await self._send(await answer(request, context), name or _unnamed(request, context), context)

        if method not in self._large_replies:
            return grpc.stream_unary_rpc_method_handler(guarded, None, handler.response_serializer)

        return grpc.stream_stream_rpc_method_handler(guarded_to_the_end, None, handler.response_serializer)

    async def _send(self, reply: object, caller: str, context: Context) -> None:
        """See a reply off. The connection of a caller that does not read is closed: gRPC knows no other way."""
        peer = context.peer()
        sending = self._sending[caller]
        if len(sending) == UNREAD_REPLIES_MAX:
            self._give_up(sending.pop(0))
        timer = asyncio.get_running_loop().call_later(READ_MAX_S, self._give_up, peer)
        sending.append(peer)
        try:
            await context.write(reply)
        except grpc.aio.InternalError as error:  # the connection is gone
            raise asyncio.CancelledError from error
        finally:
            timer.cancel()
            if peer in sending:
                sending.remove(peer)
            if not sending:
                self._sending.pop(caller, None)

    def _give_up(self, peer: str) -> None:
        self._on_unreadable()
        self._close_connection(peer)

    def _guarded_stream(self, handler: Any) -> Any:
        """A handler of streams (reflection, a watch on the health) that notes who calls, and takes few at a time."""
        is_stream = handler.request_streaming
        answer = handler.stream_stream if is_stream else handler.unary_stream
        if answer is None or handler.request_deserializer is None:
            return handler

        async def guarded(requests: Any, context: Any) -> None:
            name, peer = await self._admit(context)
            caller = name or peer
            if self._streams[caller] == STREAMS_MAX:
                why = f"a caller may have {STREAMS_MAX} calls of this kind at a time: end one"
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, why)
            self._streams[caller] += 1
            try:
                given = requests
                if not is_stream:
                    given = await self._take(handler.request_deserializer, context, caller, False)
                    self._places.give_back(caller)
                if not inspect.isasyncgenfunction(answer):
                    await answer(given, context)
                    return
                async for response in answer(given, context):
                    await context.write(response)
            finally:
                self._streams[caller] -= 1
                if not self._streams[caller]:
                    del self._streams[caller]

        parse = handler.request_deserializer if is_stream else None
        return grpc.stream_stream_rpc_method_handler(guarded, parse, handler.response_serializer)

    async def _admit(self, context: Context) -> tuple[str | None, str]:
        """Let a caller in, unless its certificate has been revoked: that is like having made no call.

        Returns the certificate's common name, None without one, and the other end as gRPC writes it.
        """
        certificate = certificate_pem(context) if self._has_certificates else None
        if certificate is not None and self._is_revoked(certificate):
            self._on_revoked(context)
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, REVOKED)
        name = None if certificate is None else name_in(certificate)
        peer = context.peer()
        self._on_call(peer, name)
        return name, peer

    async def _take(self, parse: Callable[[bytes], Any], context: Context, caller: str, is_ours: bool) -> object:
        """The call's one request. It was read in a place of the caller's, which is to be given back."""
        request = None
        try:
            request = await self._arrival(context, caller, parse)
        except TimeoutError:
            if self._is_closed:
                await context.abort(grpc.StatusCode.UNAVAILABLE, STOPS)
            why = f"the request has not arrived within {self._arrival_max_s:.0f} s"
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, why)
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request is not the message that this call takes")
        finally:
            if request is None and is_ours and not self._is_closed:  # also when the caller gives up meanwhile
                self._on_unreadable()
        if request is None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request did not arrive whole")
        return request

    async def _arrival(self, context: Context, caller: str, parse: Callable[[bytes], Any]) -> object | None:
        """The request, and a place of the caller's with it; None, and no place, if the caller is done without any.

        Raises TimeoutError, DecodeError.
        """
        return await self._in_time(self._read(context, caller, parse))

    async def _read(self, context: Context, caller: str, parse: Callable[[bytes], Any]) -> object | None:
        if not self._places.take_at_once(caller):
            await self._places.take(caller)
        request = None
        try:
            data = await context.read()
            if isinstance(data, bytes):  # and not grpc.aio.EOF
                request = parse(data)
        finally:
            if request is None:
                self._places.give_back(caller)
        return request


def _unnamed(request: object, context: Context) -> str:
    """Who calls without a certificate: the agent that the request names, or else the connection."""
    agent = getattr(request, "agent", 0)
    return f"agent-{agent}" if agent else context.peer()
