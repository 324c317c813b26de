"""Calls that fail on the way are repeated with capped full-jitter backoff; refusals and the end of patience end it."""

from __future__ import annotations

import threading

import grpc
import numpy as np
import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg_client.retry import (
    BACKOFF_CAP_S,
    BACKOFF_FIRST_S,
    REFUSALS,
    Caller,
    ServerRefusedError,
    StoppedError,
    backoff_bound_s,
    describe,
)
from fedpg_common.errors import ExitCode, UnreachableError
from fedpg_common.transport import wire
from hypothesis import given
from hypothesis import strategies as st
from support.agent_stubs import ScriptedServer, make_calls, open_reply, scripted
from support.failed_call import CallFailedError

RETRIED = [code for code in grpc.StatusCode if code not in REFUSALS and code is not grpc.StatusCode.OK]
REFUSED = [code for code in grpc.StatusCode if code in REFUSALS]


class Pending:
    """A call under way that ends at once as told, or never."""

    def __init__(self, outcome: str | Exception | None) -> None:
        self.outcome = outcome
        self.cancelled = False

    def result(self, timeout: float | None = None) -> str:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        if self.outcome is None:
            raise grpc.FutureTimeoutError
        return self.outcome

    def cancel(self) -> None:
        self.cancelled = True


class Network:
    """A virtual clock, sleeps that pass on it, and a method whose outcomes are scripted."""

    def __init__(self, *outcomes: str | Exception | None, seed: int = 0, call_takes_s: float = 0.0) -> None:
        self.now_s = 0.0
        self.sleeps_s: list[float] = []
        self.deadlines_s: list[float | None] = []
        self.pending: list[Pending] = []
        self.outcomes = list(outcomes)
        self.call_takes_s = call_takes_s
        self.stop = StopOnVirtualClock(self)
        self.caller = Caller("somewhere:1", np.random.default_rng(seed), self.stop, lambda: self.now_s)

    def future(self, request: str, timeout: float | None = None) -> Pending:
        assert request == "request"
        self.now_s += self.call_takes_s
        self.deadlines_s.append(timeout)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        self.pending.append(Pending(outcome))
        return self.pending[-1]

    def call(self, patience_s: float | None = 600.0) -> str:
        return self.caller.call(self, "request", timeout_s=7.0, patience_s=patience_s)


class StopOnVirtualClock(threading.Event):
    """Waiting for it passes virtual time."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.network.sleeps_s.append(timeout)
        self.network.now_s += timeout
        return self.is_set()


def unavailable() -> CallFailedError:
    return CallFailedError(grpc.StatusCode.UNAVAILABLE)


def test_a_call_that_gets_through_is_made_once_with_its_deadline() -> None:
    network = Network("reply")
    assert network.call() == "reply"
    assert network.deadlines_s == [7.0]
    assert network.sleeps_s == []


@pytest.mark.parametrize("code", RETRIED, ids=[code.name for code in RETRIED])
def test_failures_on_the_way_are_retried(code: grpc.StatusCode) -> None:
    network = Network(CallFailedError(code), CallFailedError(code), "reply")
    assert network.call() == "reply"
    assert network.deadlines_s == [7.0] * 3
    assert len(network.sleeps_s) == 2


@pytest.mark.parametrize("code", REFUSED, ids=[code.name for code in REFUSED])
def test_refusals_fail_at_once_and_say_why(code: grpc.StatusCode) -> None:
    network = Network(CallFailedError(code, "agent 9 is not in this federation"))
    with pytest.raises(ServerRefusedError, match="agent 9 is not in this federation") as caught:
        network.call()
    assert caught.value.code is code
    assert caught.value.exit_code is ExitCode.REFUSED
    assert len(network.deadlines_s) == 1
    assert network.sleeps_s == []


def test_retries_and_refusals_are_what_the_contract_says() -> None:
    assert {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED} <= set(RETRIED)
    assert {
        grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.NOT_FOUND,
    } <= REFUSALS  # fmt: skip


@given(seed=st.integers(0, 2**32), failures=st.integers(1, 40))
def test_sleeps_are_drawn_from_zero_to_a_doubling_and_capped_bound(seed: int, failures: int) -> None:
    network = Network(*[unavailable()] * failures, "reply", seed=seed)
    assert network.call(patience_s=None) == "reply"
    assert len(network.sleeps_s) == failures
    for attempt, slept_s in enumerate(network.sleeps_s, start=1):
        assert 0.0 <= slept_s <= min(BACKOFF_CAP_S, BACKOFF_FIRST_S * 2 ** (attempt - 1))


def test_the_jitter_is_full_and_differs_between_agents() -> None:
    sleeps = np.array([Network(*[unavailable()] * 30, "reply", seed=seed) for seed in range(20)], dtype=object)
    for network in sleeps:
        network.call(patience_s=None)
    capped = np.array([network.sleeps_s[10:] for network in sleeps]) / BACKOFF_CAP_S
    assert capped.min() < 0.05
    assert capped.max() > 0.95
    assert len(np.unique(capped)) == capped.size


@given(st.integers(1, 10**9))
def test_the_bound_never_exceeds_its_cap(attempt: int) -> None:
    assert BACKOFF_FIRST_S <= backoff_bound_s(attempt) <= BACKOFF_CAP_S
    assert backoff_bound_s(attempt) <= backoff_bound_s(attempt + 1)


@given(seed=st.integers(0, 1000), patience_s=st.floats(0, 1000), call_takes_s=st.floats(0.01, 7))
def test_patience_ends_with_one_sentence_soon_after_its_time(seed: int, patience_s: float, call_takes_s: float) -> None:
    network = Network(unavailable(), seed=seed, call_takes_s=call_takes_s)
    with pytest.raises(UnreachableError, match="somewhere:1") as caught:
        network.call(patience_s)
    assert caught.value.exit_code is ExitCode.UNREACHABLE
    assert patience_s <= network.now_s <= patience_s + BACKOFF_CAP_S + call_takes_s + 1e-6


def test_without_a_bound_patience_does_not_end() -> None:
    network = Network(*[unavailable()] * 2000, "reply")
    assert network.call(patience_s=None) == "reply"
    assert network.now_s > 3600


def test_stop_ends_a_call_under_way_and_cancels_it() -> None:
    network = Network(None)
    network.stop.set()
    with pytest.raises(StoppedError):
        network.call()
    assert network.pending[0].cancelled


def test_stop_ends_a_backoff() -> None:
    network = Network("unused")
    network.stop.set()
    with pytest.raises(StoppedError):
        network.caller.back_off(1)


def test_a_call_cancelled_by_its_channel_ends_the_agent() -> None:
    with pytest.raises(StoppedError):
        Network(grpc.FutureCancelledError()).call()


def test_a_failure_without_a_status_is_unknown() -> None:
    assert describe(grpc.RpcError("odd")) == (grpc.StatusCode.UNKNOWN, "odd")


def test_a_gradient_that_was_damaged_on_the_way_is_submitted_again_with_the_same_bytes() -> None:
    server = ScriptedServer([pb.VERDICT_DAMAGED, pb.VERDICT_DAMAGED, pb.VERDICT_ACCEPTED])
    with scripted(server) as address:
        calls = make_calls(1, address)
        calls.join()
        gradient = wire.vector_to_tensor(np.ones(8, np.float32))
        reply = calls.submit(open_reply(4).round, gradient, pb.WorkReport(trajectories=4))
        calls.close()
    assert reply.verdict == pb.VERDICT_ACCEPTED
    assert len(server.submissions) == 3
    assert len(set(server.submissions)) == 1
    sent = pb.SubmitUpdateRequest.FromString(server.submissions[0])
    assert (sent.run_id, sent.agent, sent.round) == ("run-1", 1, 4)
    assert sent.gradient_digest == wire.tensor_digest(gradient)
    assert sent.parameters_digest == open_reply(4).round.parameters_digest
