"""What stands before the service: requests have to arrive whole, in time, and be messages.

gRPC gives a unary handler its request only when it has arrived, so that nobody hears of a call whose request never
does, or is too large to be read. The gate therefore takes the calls as streams of one message, which looks the same to
the caller.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import defaultdict
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Collection
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from fedpg_server.serving.identity import common_name

STOPS = "the server stops; try again when it is back"
ARRIVAL_MAX_S = 20.0
"""A request that takes longer to arrive is given up. The agents' own deadline for a call is shorter."""

READ_MAX_S = 20.0
"""A large reply that its caller has not read by then is given up."""
UNREAD_REPLIES_MAX = 4
"""Large replies that one caller may have coming, as many as it may hold polls; with more, the oldest is given up."""
UNREAD_BYTES = 64 * 1024
"""Up to this size gRPC takes a reply off the handler's hands at once: it is bounded by the calls on a connection."""

Context = grpc.aio.ServicerContext[Any, Any]


class Gate(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic to the type stubs alone
    """Guards the unary calls of all services on a port. Streams (reflection, a watch on health) are only noted."""

    def __init__(
        self,
        service_name: str,
        on_unreadable: Callable[[], None],
        on_call: Callable[[str, str | None], None],
        arrival_max_s: float,
        large_replies: Collection[str] = (),
        close_connection: Callable[[str], None] = lambda _peer: None,
    ) -> None:
        """`on_unreadable` is told of every request to the service that does not arrive whole in time or is none.

        Among them are those that gRPC does not read because they are too large. `on_call` is told of every call's peer,
        as gRPC writes it, and of the common name of its certificate, None without one. `large_replies` are the methods
        ("Join") whose replies are too large for a caller to let them lie: the server keeps few of them, and not long.
        """
        self._prefix = f"/{service_name}/"
        self._on_unreadable = on_unreadable
        self._on_call = on_call
        self._large_replies = frozenset(f"{self._prefix}{method}" for method in large_replies)
        self._close_connection = close_connection
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
        answer, parse = handler.unary_unary, handler.request_deserializer
        if answer is None or parse is None:
            return self._noted(handler)
        is_ours = handler_call_details.method.startswith(self._prefix)

        async def guarded(requests: AsyncIterable[bytes], context: Any) -> object:
            self._note(context)
            return await answer(await self._take(requests, parse, context, is_ours), context)

        async def guarded_to_the_end(requests: AsyncIterable[bytes], context: Any) -> None:
            self._note(context)
            request = await self._take(requests, parse, context, is_ours)
            await self._send(await answer(request, context), _caller(request, context), context)

        if handler_call_details.method not in self._large_replies:
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

    def _give_up(self, peer: str) -> None:
        self._on_unreadable()
        self._close_connection(peer)

    def _noted(self, handler: Any) -> Any:
        """A handler of streams that notes who calls."""
        kind = "stream_stream" if handler.request_streaming else "unary_stream"
        answer = getattr(handler, kind)
        if answer is None:
            return handler
        if inspect.isasyncgenfunction(answer):

            async def generate(requests: Any, context: Any) -> AsyncIterator[Any]:
                self._note(context)
                async for response in answer(requests, context):
                    yield response

            return handler._replace(**{kind: generate})

        async def write(requests: Any, context: Any) -> Any:
            self._note(context)
            return await answer(requests, context)

        return handler._replace(**{kind: write})

    def _note(self, context: Context) -> None:
        self._on_call(context.peer(), common_name(context))

    async def _take(
        self, requests: AsyncIterable[bytes], parse: Callable[[bytes], Any], context: Context, is_ours: bool
    ) -> object:
        """The call's one request."""
        request = None
        try:
            data = await self._arrival(requests)
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

    async def _arrival(self, requests: AsyncIterable[bytes]) -> bytes | None:
        """The request's bytes; None if the caller is done without any. Raises TimeoutError."""
        async with asyncio.timeout(0 if self._is_closed else self._arrival_max_s) as limit:
            self._arriving.add(limit)
            try:
                return await anext(aiter(requests), None)
            finally:
                self._arriving.discard(limit)


def _caller(request: object, context: Context) -> str:
    """Who calls: the certificate's name; without TLS the agent that the request names, or else the connection."""
    agent = getattr(request, "agent", 0)
    return common_name(context) or (f"agent-{agent}" if agent else context.peer())
