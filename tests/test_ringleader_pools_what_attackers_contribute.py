"""Over a channel of their own, all attackers get the same gradients in the same order, or attack alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from unittest.mock import MagicMock

import grpc
import numpy as np
import pytest
from fedpg.v1 import collusion_pb2 as pb
from fedpg.v1 import collusion_pb2_grpc, federation_pb2
from fedpg_client import collusion
from fedpg_client.collusion import Alone, PoolClient, Ringleader
from fedpg_client.retry import Caller, ServerRefusedError, StoppedError
from fedpg_common import wire
from fedpg_common.errors import AddressError
from fedpg_common.parameters import Vector
from support import CALL_TIMEOUT_S, SIZE

PATIENT_S, IMPATIENT_S = 60.0, 0.2


@contextmanager
def ring(attackers: Sequence[int]) -> Iterator[str]:
    """A ringleader on a port of its own."""
    ringleader = Ringleader(attackers)
    try:
        yield ringleader.listen("127.0.0.1:0", wire.message_bytes_max(SIZE))
    finally:
        ringleader.close()


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


def gradient_of(agent: int, round_number: int = 1) -> Vector:
    return np.full(SIZE, agent + 100 * round_number, np.float32)


def values(pooled: Sequence[Vector]) -> list[float]:
    assert all(vector.shape == (SIZE,) and len(set(vector.tolist())) == 1 for vector in pooled)
    return [float(vector[0]) for vector in pooled]


@pytest.mark.parametrize("order", [(2, 5, 7), (7, 5, 2), (5, 7, 2)])
def test_all_get_the_same_gradients_in_the_order_of_the_agents(order: tuple[int, ...]) -> None:
    with (
        ring((2, 5, 7)) as address, ThreadPoolExecutor(3) as threads,
        attacker(2, address) as two, attacker(5, address) as five, attacker(7, address) as seven,
    ):  # fmt: skip
        clients = {2: two, 5: five, 7: seven}
        for round_number in (1, 2, 3, 4, 5, 6):
            pools = [
                threads.submit(clients[agent].pool, round_number, gradient_of(agent, round_number)) for agent in order
            ]
            base = 100.0 * round_number
            assert [values(pool.result(CALL_TIMEOUT_S)) for pool in pools] == [[base + 2, base + 5, base + 7]] * 3


def test_an_attacker_whose_accomplice_does_not_show_up_attacks_alone() -> None:
    with ring((1, 2)) as address, attacker(1, address, IMPATIENT_S) as one:
        assert values(one.pool(1, gradient_of(1))) == [101.0]


def test_an_attacker_whose_ringleader_does_not_show_up_attacks_alone() -> None:
    with ring((1, 2)) as address:
        pass
    with attacker(1, address, IMPATIENT_S) as one:
        assert values(one.pool(1, gradient_of(1))) == [101.0]


def test_a_late_accomplice_still_gets_all() -> None:
    with ring((1, 2)) as address, attacker(1, address, IMPATIENT_S) as one, attacker(2, address) as two:
        assert values(one.pool(1, gradient_of(1))) == [101.0]
        assert values(two.pool(1, gradient_of(2))) == [101.0, 102.0]


def test_the_first_contribution_stands() -> None:
    with ring((1, 2)) as address, attacker(1, address, IMPATIENT_S) as one, attacker(2, address) as two:
        one.pool(1, gradient_of(1))
        one.pool(1, gradient_of(9))
        assert values(two.pool(1, gradient_of(2))) == [101.0, 102.0]
        assert values(one.pool(1, gradient_of(9))) == [101.0, 102.0], "and it is what the others have, too"


def test_runs_and_rounds_are_not_mixed() -> None:
    with (
        ring((1, 2)) as address, attacker(1, address, IMPATIENT_S) as one, attacker(2, address, IMPATIENT_S) as two,
        attacker(2, address, IMPATIENT_S, run_id="run-2") as elsewhere,
    ):  # fmt: skip
        one.pool(1, gradient_of(1))
        assert values(elsewhere.pool(1, gradient_of(2))) == [102.0]
        assert values(two.pool(2, gradient_of(2))) == [102.0]
        assert values(two.pool(1, gradient_of(2))) == [101.0, 102.0]


def test_who_is_no_attacker_is_refused() -> None:
    with ring((1, 2)) as address, attacker(3, address) as stranger:
        with pytest.raises(ServerRefusedError, match="agent 3 is not an attacker") as caught:
            stranger.pool(1, gradient_of(3))
        assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "tensor",
    [
        wire.vector_to_tensor(np.array([1.0, np.nan], np.float32)),
        federation_pb2.Tensor(),
        federation_pb2.Tensor(dtype=federation_pb2.DTYPE_FLOAT32, shape=[2**60], data=b""),
        federation_pb2.Tensor(dtype=federation_pb2.DTYPE_FLOAT32, shape=[2, 2], data=bytes(16)),
    ],
)
def test_what_is_no_gradient_is_refused_and_spoils_nothing(tensor: federation_pb2.Tensor) -> None:
    with ring((1, 2)) as address, grpc.insecure_channel(address) as channel:
        stub = collusion_pb2_grpc.CollusionStub(channel)
        request = pb.PoolRequest(run_id="run-1", agent=1, round=1, gradient=tensor, wait_s=0.0)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Pool(request, timeout=CALL_TIMEOUT_S)
        assert isinstance(caught.value, grpc.Call)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with attacker(1, address, IMPATIENT_S) as one:
            assert values(one.pool(1, gradient_of(1))) == [101.0]


def test_stop_ends_the_wait_for_accomplices() -> None:
    stop = threading.Event()
    with (
        ring((1, 2)) as address, ThreadPoolExecutor(1) as threads,
        attacker(1, address, stop=stop) as one, attacker(2, address, IMPATIENT_S) as two,
    ):  # fmt: skip
        waiting = threads.submit(one.pool, 1, gradient_of(1))
        assert values(two.pool(2, gradient_of(2))) == [102.0], "the ring is up"
        stop.set()
        with pytest.raises(StoppedError):
            waiting.result(CALL_TIMEOUT_S)


def test_two_rings_cannot_share_an_address() -> None:
    with ring((1, 2)) as address, pytest.raises(AddressError, match="attackers' channel"):
        Ringleader((1, 2)).listen(address, 1000)


def test_a_lone_attacker_needs_no_channel() -> None:
    assert values(Alone().pool(1, gradient_of(4))) == [104.0]


def test_a_ringleader_that_ends_keeps_no_one_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collusion, "POOL_WAIT_S", 3600.0)
    ringleader = Ringleader((1, 2))
    request = pb.PoolRequest(
        run_id="run-1", agent=1, round=1, gradient=wire.vector_to_tensor(gradient_of(1)), wait_s=3600.0
    )
    replies: list[pb.PoolReply] = []
    waiting = threading.Thread(target=lambda: replies.append(ringleader.Pool(request, MagicMock())), daemon=True)
    waiting.start()
    ringleader.close()
    waiting.join(CALL_TIMEOUT_S)
    assert [reply.complete for reply in replies] == [False]
