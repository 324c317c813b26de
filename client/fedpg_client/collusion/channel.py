"""The attackers' own channel: they pool their gradients with one of them, over the network, never via the server."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
from fedpg.v1 import collusion_pb2 as pb
from fedpg.v1 import collusion_pb2_grpc
from fedpg_common.errors import AddressError, RefusedError, UnreachableError
from fedpg_common.learning.parameters import Vector
from fedpg_common.transport import wire
from fedpg_common.transport.channels import open_channel, server_options

from fedpg_client.collusion.tls import HOST, pool_client_credentials, pool_server_credentials
from fedpg_client.retry import Caller, ServerRefusedError

POOL_WAIT_S = 10.0
POOL_SLACK_S = 5.0
ROUNDS_KEPT = 4
ATTACKERS_MAX = 256
"""Each attacker that waits holds a thread of the one that serves the pool."""

MESSAGE_BYTES_MAX = 2**31 - 1
"""gRPC takes no larger limit."""

log = logging.getLogger(__name__)


class PoolServer(collusion_pb2_grpc.CollusionServicer):
    """Collects one gradient per attacker and round, and hands out all of them. One of the attackers serves it."""

    def __init__(self, attackers: Sequence[int], size: int, secret: str = "") -> None:
        """`attackers` are the agent indices of those that collude; `size` is d.

        With a `secret`, only who has it can read the channel and call; without, it is plain text.
        """
        self._secret = secret
        self._attackers = frozenset(attackers)
        self._size = size
        self._pools: OrderedDict[tuple[str, int], dict[int, pb.Contribution]] = OrderedDict()
        self._completed = threading.Condition()
        self._is_closing = False
        self._server: grpc.Server | None = None

    def listen(self, address: str) -> str:
        """Serve on `address`; returns the address bound (port 0 picks one). Raises AddressError."""
        message_bytes = wire.message_bytes_max(self._size)
        reply_bytes = min(message_bytes * len(self._attackers), MESSAGE_BYTES_MAX)
        options = server_options(message_bytes, reply_bytes)
        server = grpc.server(ThreadPoolExecutor(len(self._attackers) + 2), options=options)
        collusion_pb2_grpc.add_CollusionServicer_to_server(self, server)
        try:
            if self._secret:
                port = server.add_secure_port(address, pool_server_credentials(self._secret))
            else:
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
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"agent {request.agent} is not one of the attackers")
        try:
            wire.tensor_to_vector(request.gradient, self._size)
        except wire.WireError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"agent {request.agent}: {error}")
        key = (request.run_id, request.round)
        with self._completed:
            pool = self._pools.setdefault(key, {})
            pool.setdefault(request.agent, pb.Contribution(agent=request.agent, gradient=request.gradient))
            while len(self._pools) > ROUNDS_KEPT:
                self._pools.popitem(last=False)
            self._completed.notify_all()
            wait_s = min(max(request.wait_s, 0.0), POOL_WAIT_S)
            self._completed.wait_for(lambda: self._is_closing or len(pool) == len(self._attackers), wait_s)
            return pb.PoolReply(
                complete=len(pool) == len(self._attackers), contributions=[pool[agent] for agent in sorted(pool)]
            )


@dataclass
class PoolClient:
    """An attacker's line to the one that serves the pool; see `fedpg_client.attacks.Pool`.

    Its calls raise ServerRefusedError if the pool is not this attacker's, and StoppedError.
    """

    agent: int
    run_id: str
    size: int
    """d."""
    caller: Caller
    wait_s: float
    """How long to wait for the others in a round before attacking with those that have come."""
    secret: str = ""
    """The attackers'; see `PoolServer`."""

    def __post_init__(self) -> None:
        """Open a channel; nothing is sent yet."""
        limit = min(wire.message_bytes_max(self.size, vectors=ATTACKERS_MAX), MESSAGE_BYTES_MAX)
        if self.secret:
            credentials = pool_client_credentials(self.secret)
            self._channel = open_channel(self.caller.address, limit, credentials, server_name=HOST)
        else:
            self._channel = open_channel(self.caller.address, limit, tls=None)
        self._stub = collusion_pb2_grpc.CollusionStub(self._channel)

    def exchange(self, round_number: int, gradient: Vector) -> Mapping[int, Vector]:
        """The attackers' gradients (d,) by agent, ascending: all of them, or those that have come when patience ends.

        This attacker's own is always among them.
        """
        request = self._request(round_number, gradient, min(POOL_WAIT_S, self.wait_s))
        timeout_s = request.wait_s + POOL_SLACK_S
        deadline_s = self.caller.clock() + self.wait_s
        pooled = {self.agent: gradient}
        why = "they did not pool in time"
        while (left_s := deadline_s - self.caller.clock()) > 0:
            try:
                reply = self._call(request, timeout_s, left_s)
            except UnreachableError as error:
                why = str(error)
                break
            pooled |= self._read(round_number, reply)
            if reply.complete:
                return dict(sorted(pooled.items()))
        log.warning("round %d: attacking without some of the attackers: %s", round_number, why)
        return dict(sorted(pooled.items()))

    def contribute(self, round_number: int, gradient: Vector) -> None:
        """Let the others have this attacker's gradient (d,), and wait for nobody."""
        request = self._request(round_number, gradient, 0.0)
        try:
            self._call(request, POOL_SLACK_S, 0.0)
        except UnreachableError as error:
            log.warning("round %d: the other attackers have to do without this one: %s", round_number, error)

    def _call(self, request: pb.PoolRequest, timeout_s: float, patience_s: float) -> pb.PoolReply:
        try:
            return self.caller.call(self._stub.Pool, request, timeout_s=timeout_s, patience_s=patience_s)
        except ServerRefusedError as error:
            if error.code is grpc.StatusCode.UNAVAILABLE:  # its certificate is not of this secret
                raise RefusedError(
                    f"the attackers' channel at {self.caller.address} has another secret: "
                    "give --attackers-secret the same text on all attackers"
                ) from error
            raise

    def _request(self, round_number: int, gradient: Vector, wait_s: float) -> pb.PoolRequest:
        return pb.PoolRequest(
            run_id=self.run_id,
            agent=self.agent,
            round=round_number,
            gradient=wire.vector_to_tensor(gradient),
            wait_s=wait_s,
        )

    def _read(self, round_number: int, reply: pb.PoolReply) -> dict[int, Vector]:
        """The contributions that are gradients of this run: what another process sends must not end this one."""
        pooled = {}
        for entry in reply.contributions:
            try:
                pooled[entry.agent] = wire.tensor_to_vector(entry.gradient, self.size)
            except wire.WireError as error:
                log.warning("round %d: attacker %d pooled what is not a gradient: %s", round_number, entry.agent, error)
        return pooled

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()
