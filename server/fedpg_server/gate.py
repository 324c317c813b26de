"""What stands before the service: requests have to arrive whole, in time, and be messages.

gRPC gives a unary handler its request only when it has arrived, so that nobody hears of a call whose request never
does, or is too large to be read. The gate therefore takes the calls as streams of one message, which looks the same to
the caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

STOPS = "the server stops; try again when it is back"
ARRIVAL_MAX_S = 20.0
"""A request that takes longer to arrive is given up. The agents' own deadline for a call is shorter."""

Context = grpc.aio.ServicerContext[Any, Any]


class Gate(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic to the type stubs alone
    """Guards the unary calls of one service. Other services on the same port pass it by."""

    def __init__(self, service_name: str, on_unreadable: Callable[[], None], arrival_max_s: float) -> None:
        """`on_unreadable` is told of every request that does not arrive whole within `arrival_max_s` or is none.

        Among them are those that gRPC does not read because they are too large.
        """
        self._prefix = f"/{service_name}/"
        self._on_unreadable = on_unreadable
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
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """The handler of a call that begins, behind the gate."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(self._prefix):
            return handler
        answer, parse = handler.unary_unary, handler.request_deserializer
        if answer is None or parse is None:
            return handler

        async def guarded(requests: AsyncIterable[bytes], context: Any) -> object:
            return await answer(await self._take(requests, parse, context), context)

        return grpc.stream_unary_rpc_method_handler(guarded, None, handler.response_serializer)

    async def _take(self, requests: AsyncIterable[bytes], parse: Callable[[bytes], Any], context: Context) -> object:
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
            if request is None and not self._is_closed:  # also when the caller gives up meanwhile
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
