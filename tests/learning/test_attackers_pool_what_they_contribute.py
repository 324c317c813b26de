"""Over a channel of their own, all attackers get the same gradients by agent, or those that have come in time."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from unittest.mock import MagicMock

import grpc
import numpy as np
import pytest
from fedpg.v1 import collusion_pb2 as pb
from fedpg.v1 import collusion_pb2_grpc, federation_pb2
from fedpg_client.collusion import channel as collusion
from fedpg_client.collusion.channel import PoolClient, PoolServer
from fedpg_client.retry import Caller, ServerRefusedError, StoppedError
from fedpg_common.errors import AddressError, RefusedError
from fedpg_common.learning.parameters import Vector
from fedpg_common.transport import wire
from fedpg_common.transport.channels import parse_address
from support.protocol import CALL_TIMEOUT_S, SIZE

PATIENT_S, IMPATIENT_S = 300.0, 0.2
SOON_S = 2.0
"""Time enough for two to meet."""


@contextmanager
def pool_of(attackers: Sequence[int], secret: str = "") -> Iterator[str]:
    """A pool on a port of its own."""
    server = PoolServer(attackers, SIZE, secret)
    try:
        yield server.listen("127.0.0.1:0")
    finally:
        server.close()


@contextmanager
def attacker(
    agent: int, address: str, wait_s: float = PATIENT_S, run_id: str = "run-1", stop: threading.Event | None = None
) -> Iterator[PoolClient]:
    caller = Caller(address, np.random.default_rng(agent), stop or threading.Event())
    client = PoolClient(agent, run_id, SIZE, caller, wait_s)
    try:
        yield client
    finally:
        client.close()


class Tap:
    """A wire between an attacker and the pool on which somebody listens to what is sent."""

    def __init__(self, address: str) -> None:
        """`address` is the pool's."""
        self._pool = parse_address(address)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.heard = b""

    def __enter__(self) -> Tap:
        """Begin to listen."""
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()
        return self

    def __exit__(self, *_exception: object) -> None:
        """Stop."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(CALL_TIMEOUT_S)

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._pool)
            for source, sink, listens in ((near, far, True), (far, near, False)):
                thread = threading.Thread(target=self._carry, args=(source, sink, listens))
                self._threads.append(thread)
                thread.start()

    def _carry(self, source: socket.socket, sink: socket.socket, listens: bool) -> None:
        try:
            while data := source.recv(65536):
                if listens:
                    self.heard += data
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def gradient_of(agent: int, round_number: int = 1) -> Vector:
    return np.full(SIZE, agent + 100 * round_number, np.float32)


def values(pooled: Mapping[int, Vector]) -> list[float]:
    """The gradients, each of which has one value, in the order of their agents."""
    assert all(vector.shape == (SIZE,) and len(set(vector.tolist())) == 1 for vector in pooled.values())
    assert list(pooled) == sorted(pooled)
    return [float(vector[0]) for vector in pooled.values()]


@pytest.mark.parametrize("order", [(2, 5, 7), (7, 5, 2), (5, 7, 2)])
def test_all_get_the_same_gradients_in_the_order_of_the_agents(order: tuple[int, ...]) -> None:
    with (
        pool_of((2, 5, 7)) as address, ThreadPoolExecutor(3) as threads,
        attacker(2, address) as two, attacker(5, address) as five, attacker(7, address) as seven,
    ):  # fmt: skip
        clients = {2: two, 5: five, 7: seven}
        for round_number in (1, 2, 3, 4, 5, 6):
            pools = [
                threads.submit(clients[agent].exchange, round_number, gradient_of(agent, round_number))
                for agent in order
            ]
            base = 100.0 * round_number
            assert [values(pool.result(CALL_TIMEOUT_S)) for pool in pools] == [[base + 2, base + 5, base + 7]] * 3


def test_an_attacker_whose_only_accomplice_does_not_show_up_attacks_alone() -> None:
    with pool_of((1, 2)) as address, attacker(1, address, IMPATIENT_S) as one:
        assert values(one.exchange(1, gradient_of(1))) == [101.0]


def test_an_attacker_who_finds_no_pool_attacks_alone() -> None:
    with pool_of((1, 2)) as address:
        pass
    with attacker(1, address, IMPATIENT_S) as one:
        assert values(one.exchange(1, gradient_of(1))) == [101.0]


def test_those_who_have_come_attack_without_those_who_have_not() -> None:
    with (
        pool_of((1, 2, 3)) as address, ThreadPoolExecutor(2) as threads,
        attacker(1, address, SOON_S) as one, attacker(3, address, SOON_S) as three,
    ):  # fmt: skip
        pools = [threads.submit(client.exchange, 1, gradient_of(client.agent)) for client in (one, three)]
        assert [values(pool.result(CALL_TIMEOUT_S)) for pool in pools] == [[101.0, 103.0]] * 2


def test_who_does_not_attack_in_a_round_contributes_and_waits_for_nobody() -> None:
    with pool_of((1, 2)) as address, attacker(1, address) as one, attacker(2, address) as two:
        one.contribute(1, gradient_of(1))
        assert values(two.exchange(1, gradient_of(2))) == [101.0, 102.0]
    with attacker(1, address) as one:
        one.contribute(2, gradient_of(1))  # nobody is there: no harm is done


def test_what_another_sends_that_is_not_a_gradient_does_not_end_an_attacker(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(self: PoolServer, request: pb.PoolRequest, context: grpc.ServicerContext) -> pb.PoolReply:
        bad = wire.vector_to_tensor(np.ones(SIZE + 1, np.float32))
        mine = pb.Contribution(agent=1, gradient=request.gradient)
        return pb.PoolReply(complete=True, contributions=[mine, pb.Contribution(agent=2, gradient=bad)])

    monkeypatch.setattr(PoolServer, "Pool", careless)
    with pool_of((1, 2)) as address, attacker(1, address) as one:
        assert values(one.exchange(1, gradient_of(1))) == [101.0]


def test_a_late_accomplice_still_gets_all() -> None:
    with pool_of((1, 2)) as address, attacker(1, address, IMPATIENT_S) as one, attacker(2, address) as two:
        assert values(one.exchange(1, gradient_of(1))) == [101.0]
        assert values(two.exchange(1, gradient_of(2))) == [101.0, 102.0]


def test_the_first_contribution_stands() -> None:
    with pool_of((1, 2)) as address, attacker(1, address, IMPATIENT_S) as one, attacker(2, address) as two:
        one.exchange(1, gradient_of(1))
        one.exchange(1, gradient_of(9))
        assert values(two.exchange(1, gradient_of(2))) == [101.0, 102.0]
        assert values(one.exchange(1, gradient_of(9))) == [101.0, 102.0], "and it is what the others have, too"


def test_runs_and_rounds_are_not_mixed() -> None:
    with (
        pool_of((1, 2)) as address, attacker(1, address, IMPATIENT_S) as one, attacker(2, address, IMPATIENT_S) as two,
        attacker(2, address, IMPATIENT_S, run_id="run-2") as elsewhere,
    ):  # fmt: skip
        one.exchange(1, gradient_of(1))
        assert values(elsewhere.exchange(1, gradient_of(2))) == [102.0]
        assert values(two.exchange(2, gradient_of(2))) == [102.0]
        assert values(two.exchange(1, gradient_of(2))) == [101.0, 102.0]


def test_who_is_no_attacker_is_refused() -> None:
    with pool_of((1, 2)) as address, attacker(3, address) as stranger:
        with pytest.raises(ServerRefusedError, match="agent 3 is not one of the attackers") as caught:
            stranger.exchange(1, gradient_of(3))
        assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "tensor",
    [
        wire.vector_to_tensor(np.array([1.0, np.nan], np.float32)),
        federation_pb2.Tensor(),
        federation_pb2.Tensor(dtype=federation_pb2.DTYPE_FLOAT32, shape=[2**60], data=b""),
        federation_pb2.Tensor(dtype=federation_pb2.DTYPE_FLOAT32, shape=[2, 2], data=bytes(16)),
        wire.vector_to_tensor(np.ones(SIZE - 1, np.float32)),
        wire.vector_to_tensor(np.ones(SIZE + 1, np.float32)),
        wire.vector_to_tensor(np.ones(0, np.float32)),
        federation_pb2.Tensor(dtype=federation_pb2.DTYPE_FLOAT32, shape=[1, SIZE], data=bytes(4 * SIZE)),
    ],
)
def test_what_is_no_gradient_is_refused_and_spoils_nothing(tensor: federation_pb2.Tensor) -> None:
    with pool_of((1, 2)) as address, grpc.insecure_channel(address) as channel:
        stub = collusion_pb2_grpc.CollusionStub(channel)
        request = pb.PoolRequest(run_id="run-1", agent=1, round=1, gradient=tensor, wait_s=0.0)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Pool(request, timeout=CALL_TIMEOUT_S)
        assert isinstance(caught.value, grpc.Call)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with attacker(1, address, IMPATIENT_S) as one:
            assert values(one.exchange(1, gradient_of(1))) == [101.0]


def keeping(agent: int, address: str, secret: str) -> PoolClient:
    """An attacker with a secret."""
    caller = Caller(address, np.random.default_rng(agent), threading.Event())
    return PoolClient(agent, "run-1", SIZE, caller, IMPATIENT_S, secret)


def test_attackers_with_a_secret_meet_in_private() -> None:
    with pool_of((1, 2), "hush") as address:
        one, two = keeping(1, address, "hush"), keeping(2, address, "hush")
        one.contribute(1, gradient_of(1))
        assert values(two.exchange(1, gradient_of(2))) == [101.0, 102.0]
        with pytest.raises(RefusedError, match="has another secret: give --attackers-secret the same text"):
            keeping(1, address, "other").exchange(1, gradient_of(9))
        assert values(keeping(1, address, "").exchange(2, gradient_of(1, 2))) == [201.0], "plain text gets nowhere"
        one.close()
        two.close()


def test_nothing_that_attackers_with_a_secret_pool_crosses_the_network_in_plain_text() -> None:
    marker = np.full(SIZE, 3.14159, np.float32)
    for secret, is_read in (("", True), ("hush", False)):
        with pool_of((1, 2), secret) as address, Tap(address) as tap:
            client = keeping(1, tap.address, secret)
            client.contribute(1, marker)
            client.close()
        assert (marker.tobytes() in tap.heard) is is_read


def test_stop_ends_the_wait_for_accomplices() -> None:
    stop = threading.Event()
    with (
        pool_of((1, 2)) as address, ThreadPoolExecutor(1) as threads,
        attacker(1, address, stop=stop) as one, attacker(2, address, IMPATIENT_S) as two,
    ):  # fmt: skip
        waiting = threads.submit(one.exchange, 1, gradient_of(1))
        assert values(two.exchange(2, gradient_of(2))) == [102.0], "the pool is up"
        stop.set()
        with pytest.raises(StoppedError):
            waiting.result(CALL_TIMEOUT_S)


def test_two_pools_cannot_share_an_address() -> None:
    with pool_of((1, 2)) as address, pytest.raises(AddressError, match="attackers' channel"):
        PoolServer((1, 2), SIZE).listen(address)


def test_a_pool_that_ends_keeps_no_one_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collusion, "POOL_WAIT_S", 3600.0)
    server = PoolServer((1, 2), SIZE)
    request = pb.PoolRequest(
        run_id="run-1", agent=1, round=1, gradient=wire.vector_to_tensor(gradient_of(1)), wait_s=3600.0
    )
    replies: list[pb.PoolReply] = []
    waiting = threading.Thread(target=lambda: replies.append(server.Pool(request, MagicMock())), daemon=True)
    waiting.start()
    server.close()
    waiting.join(CALL_TIMEOUT_S)
    assert [reply.complete for reply in replies] == [False]
