"""Calls made by the thread that waits for them, and a way for another thread to end that wait.

gRPC's own futures start a thread for each call where none is under way, and pass every reply through it. An agent makes
one call at a time, twice a round, and would spend as much on these threads as on its work.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import grpc


class InterruptibleChannel(grpc.Channel):
    """A channel whose calls begin when somebody waits for them.

    `interrupt` ends those that were begun with `future`, now and later. Calls made at once still get through: a
    goodbye is said after an interruption.
    """

    def __init__(self, open_channel: Callable[[], grpc.Channel]) -> None:
        """`open_channel` opens a channel, and another one if something is still to be said after an interruption."""
        self._open_channel = open_channel
        self._channel = open_channel()
        self._lock = threading.Lock()
        self._last_words: grpc.Channel | None = None
        self.is_interrupted = False
        """Whether calls with `future` are cancelled."""

    def interrupt(self) -> None:
        """Cancel what is waited for. May be called again, from any thread."""
        with self._lock:
            self.is_interrupted = True
        self._channel.close()

    def open_for_now(self) -> grpc.Channel:
        """The channel for a call that is made at once."""
        with self._lock:
            if not self.is_interrupted:
                return self._channel
            if self._last_words is None:
                self._last_words = self._open_channel()
            return self._last_words

    def unary_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, *_: Any, **__: Any
    ) -> Any:
        """A method of a stub."""
        return _Method(self, self._channel, method, request_serializer, response_deserializer)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()
        if self._last_words is not None:
            self._last_words.close()

    def _unused(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("the contract has unary calls alone")

    subscribe = unsubscribe = unary_stream = stream_unary = stream_stream = _unused
    __enter__ = __exit__ = _unused


class _Method:
    def __init__(self, owner: InterruptibleChannel, channel: grpc.Channel, path: str, *codec: Any) -> None:
        self._owner = owner
        self._channel = channel
        self._path = path
        self._codec = codec
        self._call = channel.unary_unary(path, *codec)

    def __call__(self, request: Any, timeout: float | None = None) -> Any:
        channel = self._owner.open_for_now()
        call = self._call if channel is self._channel else channel.unary_unary(self._path, *self._codec)
        return call(request, timeout=timeout)

    def future(self, request: Any, timeout: float | None = None) -> _Pending:
        return _Pending(self._owner, self._call, request, timeout)


class _Pending:
    """A call that is made when its result is asked for."""

    def __init__(self, owner: InterruptibleChannel, call: Any, request: Any, timeout_s: float | None) -> None:
        self._owner = owner
        self._call = call
        self._request = request
        self._timeout_s = timeout_s

    def result(self, timeout: float | None = None) -> Any:
        """The reply, however long it takes within the call's deadline. Raises RpcError, FutureCancelledError."""
        try:
            return self._call(self._request, timeout=self._timeout_s)
        except (grpc.RpcError, ValueError) as error:  # the latter: the channel has been closed before the call began
            if self._owner.is_interrupted:
                raise grpc.FutureCancelledError from error
            raise

    def cancel(self) -> None:
        """It has not begun."""
