"""A failed call as gRPC shows it to a client, for tests without a network."""

from __future__ import annotations

from collections.abc import Callable

import grpc


class CallFailedError(grpc.RpcError, grpc.Call):  # gRPC's own errors are both, too
    """How a failed call looks to the client."""

    def __init__(self, code: grpc.StatusCode, details: str = "the network is down") -> None:
        super().__init__(details)
        self._code = code
        self._details = details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def initial_metadata(self) -> tuple[()]:
        return ()

    def trailing_metadata(self) -> tuple[()]:
        return ()

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> float:
        return 0.0

    def cancel(self) -> bool:
        return False

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return False
