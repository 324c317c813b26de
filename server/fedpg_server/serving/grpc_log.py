"""What gRPC itself logs while it serves: callers can cause it, so it is bounded like everything that they cause."""

from __future__ import annotations

import logging
from collections import Counter

from fedpg_server.sparse_log import ALL_UP_TO, KEYS_MAX, OTHERS

GRPC_LOGGERS = ("grpc", "grpc._cython", "grpc._cython.cygrpc", "grpc.aio", "grpc._common")
"""Those that exist once gRPC has been imported. A filter is asked for a logger's own lines alone."""
HUNG_UP = ("ExecuteBatchError", "InternalError")
"""Exceptions of gRPC's own when a connection breaks while a reply is under way, which is nobody's fault."""


class SparseGrpcLog(logging.Filter):
    """Lets through nothing of callers that hang up, and of everything else the first lines and then fewer and fewer."""

    def __init__(self) -> None:
        """Nothing is filtered before `start`."""
        super().__init__()
        self._counts: Counter[str] = Counter()

    def start(self) -> None:
        """Filter what gRPC logs in this process from now on."""
        for name in GRPC_LOGGERS:
            logging.getLogger(name).addFilter(self)

    def stop(self) -> None:
        """Filter no more. May be called again."""
        for name in GRPC_LOGGERS:
            logging.getLogger(name).removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log it."""
        error = record.exc_info[0] if record.exc_info else None
        kind = str(record.msg) if error is None else error.__name__
        if kind in HUNG_UP:
            return False
        if kind not in self._counts and len(self._counts) >= KEYS_MAX:
            kind = OTHERS
        self._counts[kind] += 1
        count = self._counts[kind]
        return count <= ALL_UP_TO or count & (count - 1) == 0
