"""Calling over a network that fails: deadlines, capped full-jitter backoff, and a way to stop in between."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import grpc
import numpy as np
from fedpg_common.errors import RefusedError, UnreachableError
from fedpg_common.transport.channels import why_untrusted

Request = TypeVar("Request", contravariant=True)
Reply = TypeVar("Reply")
Reply_co = TypeVar("Reply_co", covariant=True)

BACKOFF_FIRST_S = 0.1
BACKOFF_CAP_S = 5.0
COMPLAIN_EVERY_S = 30.0
_POLL_S = 0.5

REFUSALS = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.NOT_FOUND,
    }
)
"""The server understood and will not have it: the same call again gets the same answer. All else is retried."""

log = logging.getLogger(__name__)


class StoppedError(Exception):
    """The process was asked to stop while a call was under way."""


class ServerRefusedError(RefusedError):
    """A refusal with its status code."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        """Keep the code for callers that can do something about it."""
        super().__init__(f"the server refused: {details} ({code.name})")
        self.code = code


class UntrustedServerError(ServerRefusedError):
    """It is this end that refuses: what answers there does not prove to be the server."""

    def __init__(self, code: grpc.StatusCode, details: str, address: str) -> None:
        """Say it in a sentence; the library's own words, which nest several causes, go to the log."""
        super().__init__(code, details)
        log.debug("no trust in %s: %s", address, details)
        self.args = (f"the certificate of the server at {address} {why_untrusted(details)}",)


class Pending(Protocol[Reply_co]):
    """A call under way."""

    def result(self, timeout: float | None = None) -> Reply_co:
        """The reply; raises FutureTimeoutError if it takes longer, RpcError if the call failed."""

    def cancel(self) -> object:
        """Give the call up."""


class Method(Protocol[Request, Reply_co]):
    """A unary method of a stub."""

    def future(self, request: Request, timeout: float | None = None) -> Pending[Reply_co]:
        """Start the call."""


@dataclass
class Caller:
    """Makes calls and repeats them until they get through, are refused, or patience ends."""

    address: str
    jitter: np.random.Generator
    """For the backoff alone; no result depends on it."""
    stop: threading.Event
    clock: Callable[[], float] = field(default=time.monotonic)

    def call(
        self, method: Method[Request, Reply], request: Request, *, timeout_s: float, patience_s: float | None
    ) -> Reply:
        """The reply. Each attempt has the deadline `timeout_s`; `patience_s` bounds all attempts (None: no bound).

        Raises UnreachableError when patience ends, ServerRefusedError when the server refuses, StoppedError on `stop`.
        """
        started_s = self.clock()
        complained_s = started_s
        attempt = 0
        while True:
            try:
                return self._attempt(method, request, timeout_s)
            except grpc.RpcError as error:
                code, details = describe(error)
            if why_untrusted(details):
                raise UntrustedServerError(code, details, self.address)
            if code in REFUSALS:
                raise ServerRefusedError(code, details)
            now_s = self.clock()
            if patience_s is not None and now_s - started_s >= patience_s:
                raise UnreachableError(
                    f"no answer from a FedPG server at {self.address} for {patience_s:.0f} s: {details} ({code.name})"
                )
            if now_s - complained_s >= COMPLAIN_EVERY_S:
                complained_s = now_s
                bound = "" if patience_s is None else f" of {patience_s:.0f}"
                log.warning("still no answer from %s after %.0f%s s: %s",
                            self.address, now_s - started_s, bound, details)  # fmt: skip
            attempt += 1
            self.back_off(attempt)

    def _attempt(self, method: Method[Request, Reply], request: Request, timeout_s: float) -> Reply:
        pending = method.future(request, timeout=timeout_s)
        while True:
            if self.stop.is_set():
                pending.cancel()
                raise StoppedError
            try:
                return pending.result(timeout=_POLL_S)
            except grpc.FutureTimeoutError:
                continue
            except grpc.FutureCancelledError:
                raise StoppedError from None

    def back_off(self, attempt: int) -> None:
        """Sleep before attempt `attempt` + 1. Raises StoppedError on `stop`."""
        if self.stop.wait(self.jitter.uniform(0.0, backoff_bound_s(attempt))):
            raise StoppedError


def backoff_bound_s(attempt: int) -> float:
    """The longest sleep before attempt `attempt` + 1, in seconds: doubling, capped."""
    return min(BACKOFF_CAP_S, BACKOFF_FIRST_S * 2.0 ** min(attempt - 1, 30))


def describe(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    """Status code and text of a failed call."""
    if isinstance(error, grpc.Call):
        return error.code(), error.details() or "no details"
    return grpc.StatusCode.UNKNOWN, str(error)
