"""The attackers' own channel: they pool their gradients with a ringleader, over the network, never via the server."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
from fedpg.v1 import collusion_pb2 as pb
from fedpg.v1 import collusion_pb2_grpc
from fedpg_common import wire
from fedpg_common.channels import open_channel, server_options
from fedpg_common.errors import AddressError, UnreachableError
from fedpg_common.parameters import Vector

from fedpg_client.retry import Caller

POOL_WAIT_S = 10.0
POOL_SLACK_S = 5.0
ROUNDS_KEPT = 4
ATTACKERS_MAX = 256
"""Each attacker that waits holds a thread of the ringleader."""

log = logging.getLogger(__name__)


class Ringleader(collusion_pb2_grpc.CollusionServicer):
    """Collects one gradient an attacker and round, and hands out all of them when they are complete."""

    def __init__(self, attackers: Sequence[int]) -> None:
        """`attackers` are the agent indices that belong to the ring."""
        self._attackers = frozenset(attackers)
        self._pools: OrderedDict[tuple[str, int], dict[int, pb.Contribution]] = OrderedDict()
        self._completed = threading.Condition()
        self._is_closing = False
        self._server: grpc.Server | None = None

    def listen(self, address: str, message_bytes: int) -> str:
        """Serve on `address`; returns the address bound (port 0 picks one). Raises AddressError."""
        options = server_options(message_bytes * len(self._attackers))
        server = grpc.server(ThreadPoolExecutor(len(self._attackers) + 2), options=options)
        collusion_pb2_grpc.add_CollusionServicer_to_server(self, server)
        try:
            port = server.add_insecure_port(address)
        except RuntimeError as error:
            raise AddressError(f"the attackers' channel cannot listen on {address}: is the port in use?") from error
        server.start()
        self._server = server
        return f"{address.rpartition(':')[0]}:{port}"

    def close(self) -> None:
        """Stop serving. Calls that wait for the others' contributions end at once."""
        with self._completed:
            self._is_closing = True
            self._completed.notify_all()
        if self._server is not None:
            self._server.stop(grace=None).wait()

    def Pool(  # noqa: N802 (gRPC's name)
        self, request: pb.PoolRequest, context: grpc.ServicerContext
    ) -> pb.PoolReply:
        """See collusion.proto."""
        if request.agent not in self._attackers:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"agent {request.agent} is not an attacker")
        try:
            wire.tensor_to_vector(request.gradient, int(request.gradient.shape[0]) if request.gradient.shape else 0)
        except wire.WireError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        key = (request.run_id, request.round)
        with self._completed:
            pool = self._pools.setdefault(key, {})
            pool.setdefault(request.agent, pb.Contribution(agent=request.agent, gradient=request.gradient))
            while len(self._pools) > ROUNDS_KEPT:
                self._pools.popitem(last=False)
            self._completed.notify_all()
            wait_s = min(max(request.wait_s, 0.0), POOL_WAIT_S)
            self._completed.wait_for(lambda: self._is_closing or len(pool) == len(self._attackers), wait_s)
            if len(pool) < len(self._attackers):
                return pb.PoolReply(complete=False)
            return pb.PoolReply(complete=True, contributions=[pool[agent] for agent in sorted(pool)])


@dataclass
class PoolClient:
    """An attacker's line to the ringleader."""

    agent: int
    run_id: str
    size: int
    """d."""
    caller: Caller
    wait_s: float
    """How long to wait for the others in a round before attacking alone."""

    def __post_init__(self) -> None:
        """Open a channel; nothing is sent yet."""
        limit = wire.message_bytes_max(self.size, vectors=ATTACKERS_MAX)
        self._channel = open_channel(self.caller.address, limit, tls=None)
        self._stub = collusion_pb2_grpc.CollusionStub(self._channel)

    def pool(self, round_number: int, gradient: Vector) -> Sequence[Vector]:
        """All attackers' gradients (d,) in order of agent index; this attacker's alone if the others do not show up."""
        request = pb.PoolRequest(
            run_id=self.run_id,
            agent=self.agent,
            round=round_number,
            gradient=wire.vector_to_tensor(gradient),
            wait_s=min(POOL_WAIT_S, self.wait_s),
        )
        timeout_s = request.wait_s + POOL_SLACK_S
        deadline_s = self.caller.clock() + self.wait_s
        while (left_s := deadline_s - self.caller.clock()) > 0:
            try:
                reply = self.caller.call(self._stub.Pool, request, timeout_s=timeout_s, patience_s=left_s)
            except UnreachableError as error:
                log.warning("round %d: attacking alone: %s", round_number, error)
                return [gradient]
            if reply.complete:
                return [wire.tensor_to_vector(entry.gradient, self.size) for entry in reply.contributions]
        log.warning("round %d: attacking alone: the other attackers did not pool in time", round_number)
        return [gradient]

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


class Alone:
    """The pool of an attacker without accomplices."""

    def pool(self, round_number: int, gradient: Vector) -> Sequence[Vector]:
        """The own gradient."""
        return [gradient]

    def close(self) -> None:
        """Nothing to close."""
