"""What stands before the service: requests have to arrive whole, in time, and be messages.

gRPC gives a unary handler its request only when it has arrived, so that nobody hears of a call whose request never
does, or is too large to be read. The gate therefore takes the calls as streams of one message, which looks the same to
the caller.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter, defaultdict
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from fedpg_server.serving.identity import certificate_pem, common_name

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
"""Large replies that one caller may have coming, as many as it may hold polls; with more, the oldest is given up."""
UNREAD_BYTES = 64 * 1024
"""Up to this size gRPC takes a reply off the handler's hands at once: it is bounded by the calls on a connection."""

Context = grpc.aio.ServicerContext[Any, Any]


class _Places:
    """A few places for each caller. A caller that has none left waits, and nobody else does."""

    def __init__(self, each: int) -> None:
        """Nobody has one."""
        self._each = each
        self._free: dict[str, asyncio.Semaphore] = {}
        self._callers: Counter[str] = Counter()

    @asynccontextmanager
    async def take(self, caller: str) -> AsyncIterator[None]:
        """Have a place, once there is one."""
        self._callers[caller] += 1
        try:
            async with self._free.setdefault(caller, asyncio.Semaphore(self._each)):
                yield
        finally:
            self._callers[caller] -= 1
            if not self._callers[caller]:
                del self._callers[caller], self._free[caller]


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
    ) -> None:
        """`on_unreadable` is told of every request to the service that does not arrive whole in time or is none.

        Among them are those that gRPC does not read because they are too large. `on_call` is told of every call's peer,
        as gRPC writes it, and of the common name of its certificate, None without one. `large_replies` are the methods
        ("Join") whose replies are too large for a caller to let them lie: the server keeps few of them, and not long.
        `parsers` are the methods whose requests are large, and how these are read. Such a request keeps its place among
        those that are read at a time until it is answered. Who has a certificate, in PEM, that `is_revoked` is refused,
        and `on_revoked` is told of the call.
        """
        self._prefix = f"/{service_name}/"
        self._on_unreadable = on_unreadable
        self._on_call = on_call
        self._large_replies = frozenset(f"{self._prefix}{method}" for method in large_replies)
        self._close_connection = close_connection
        self._parsers = {f"{self._prefix}{method}": parser for method, parser in (parsers or {}).items()}
        self._is_revoked, self._on_revoked = is_revoked, on_revoked
        self._places = _Places(ARRIVING_MAX)
        self._streams: Counter[str] = Counter()
        """By caller, the streams that are open."""
        self._sending: defaultdict[str, list[str]] = defaultdict(list)
        """By caller, the peers to which a large reply is under way."""
        self._arrival_max_s = arrival_max_s
        self._arriving: set[asyncio.Timeout] = set()
        self._is_closed = False

    def close(self) -> None:
        """The server stops: send away everyone whose request has not arrived."""
        self._is_closed = True
        for limit in self._arriving:
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler of a call that begins, behind the gate."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        method = handler_call_details.method
        is_ours, answer = method.startswith(self._prefix), handler.unary_unary
        parse = self._parsers.get(method, handler.request_deserializer)
        if answer is None or parse is None:
            return self._guarded_stream(handler)

        async def guarded(requests: AsyncIterable[bytes], context: Any) -> object:
            await self._admit(context)
            async with AsyncExitStack() as place:
                request = await self._take(requests, parse, context, is_ours, place)
                if method not in self._parsers or common_name(context) is None:  # many agents may share a connection
                    await place.aclose()
                return await answer(request, context)

        async def guarded_to_the_end(requests: AsyncIterable[bytes], context: Any) -> None:
            await self._admit(context)
            async with AsyncExitStack() as place:
                request = await self._take(requests, parse, context, is_ours, place)
            await self._send(await answer(request, context), _caller(request, context), context)

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
            await self._admit(context)
            caller = common_name(context) or context.peer()
            if self._streams[caller] == STREAMS_MAX:
                why = f"a caller may have {STREAMS_MAX} calls of this kind at a time: end one"
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, why)
            self._streams[caller] += 1
            try:
                given = requests
                if not is_stream:
                    async with AsyncExitStack() as place:
                        given = await self._take(requests, handler.request_deserializer, context, False, place)
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

    async def _admit(self, context: Context) -> None:
        """Let a caller in, unless its certificate has been revoked: that is like having made no call."""
        certificate = certificate_pem(context)
        if certificate is not None and self._is_revoked(certificate):
            self._on_revoked(context)
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, REVOKED)
        self._on_call(context.peer(), common_name(context))

    async def _take(
        self,
        requests: AsyncIterable[bytes],
        parse: Callable[[bytes], Any],
        context: Context,
        is_ours: bool,
        place: AsyncExitStack,
    ) -> object:
        """The call's one request, read in a place that the caller has until `place` is closed."""
        request = None
        try:
            data = await self._arrival(requests, common_name(context) or context.peer(), place)
            if data is not None:
                request = parse(data)
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

    async def _arrival(self, requests: AsyncIterable[bytes], caller: str, place: AsyncExitStack) -> bytes | None:
        """The request's bytes; None if the caller is done without any. Raises TimeoutError."""
        async with asyncio.timeout(0 if self._is_closed else self._arrival_max_s) as limit:
            self._arriving.add(limit)
            try:
                await place.enter_async_context(self._places.take(caller))
                return await anext(aiter(requests), None)
            finally:
                self._arriving.discard(limit)


def _caller(request: object, context: Context) -> str:
    """Who calls: the certificate's name; without TLS the agent that the request names, or else the connection."""
    agent = getattr(request, "agent", 0)
    return common_name(context) or (f"agent-{agent}" if agent else context.peer())
