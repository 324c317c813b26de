"""The agent: fetch the parameters, sample, submit, until the run ends."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
from fedpg.v1 import federation_pb2 as pb
from fedpg_common.errors import FedPGError, RefusedError
from fedpg_common.transport import wire
from fedpg_common.transport.verdicts import Verdict

from fedpg_client.calls import Calls
from fedpg_client.fates import OnFate, Refused, tell_nobody
from fedpg_client.pace import Budget, Pace
from fedpg_client.retry import ServerRefusedError, StoppedError
from fedpg_client.worker import Update, Worker

COMPLAIN_EVERY_S = 60.0
NO_VOTE = (Verdict.WRONG_SHAPE, Verdict.NOT_FINITE, Verdict.TOO_LARGE, Verdict.WRONG_PARAMETERS, Verdict.DAMAGED)
"""Verdicts after which the agent has no vote in the round, and the others may wait for it."""

log = logging.getLogger(__name__)


class Agent:
    """One agent of the federation. `run` does it all; `step` does one round, for whoever wants to go by hand."""

    def __init__(
        self,
        index: int,
        calls: Calls,
        make_worker: Callable[[pb.JoinReply], Worker],
        clock: Callable[[], float],
        on_fate: OnFate = tell_nobody,
    ) -> None:
        """`make_worker` builds what computes from what the server says at Join; `clock` gives seconds.

        `on_fate` is told of every round in which the agent has no vote because its gradient was refused.
        """
        self.index = index
        self._calls = calls
        self._make_worker = make_worker
        self._clock = clock
        self._pace = Pace(clock)
        self._on_fate = on_fate
        self._waits_since_s: float | None = None
        self._complained_s = 0.0
        self._worker: Worker | None = None
        self._done_round = 0

    def run(self) -> None:
        """Take part until the run ends.

        Raises UnreachableError, RefusedError, or StoppedError when the process is to end earlier.
        """
        try:
            while self.step():
                pass
        except BaseException as error:
            self._calls.leave(*farewell(error))
            raise
        self._calls.leave()
        if self._done_round:
            log.info("agent %d: the run has ended after round %d", self.index, self._done_round)
        else:
            log.info("agent %d: the run had ended already, before its first round here", self.index)

    def step(self) -> bool:
        """Wait for a round at most one long poll and do its work. False when the run has ended."""
        if self._worker is None:
            self._join()
        try:
            reply = self._calls.await_round(self._done_round)
        except ServerRefusedError as refusal:
            if refusal.code is not grpc.StatusCode.NOT_FOUND:
                raise
            log.warning("agent %d: another run is served now: joining again", self.index)
            self._worker = None
            return True
        if reply.state == pb.AwaitRoundReply.STATE_OPEN:
            self._waits_since_s = None
            self._do_round(reply.round, reply.time_left_s if reply.HasField("time_left_s") else None)
        elif reply.state == pb.AwaitRoundReply.STATE_NOT_YET:
            self._complain()
        return reply.state != pb.AwaitRoundReply.STATE_ENDED

    def _complain(self) -> None:
        """Say, a line a minute at most, that there is no round to work for, and why."""
        now_s = self._clock()
        if self._waits_since_s is None:
            self._waits_since_s = self._complained_s = now_s
        elif now_s - self._complained_s >= COMPLAIN_EVERY_S:
            self._complained_s = now_s
            why = self._calls.ask_why()
            log.info("agent %d: no new round for %.0f s%s", self.index, now_s - self._waits_since_s,
                     f": {why}" if why else "; the server does not say why")  # fmt: skip

    def _join(self) -> None:
        joined = self._calls.join()
        self._worker = self._make_worker(joined)
        self._done_round = 0
        log.info(
            "agent %d joined run %s: %s with %d agents", self.index, joined.run_id, joined.task.name, joined.agents
        )

    def _do_round(self, round_: pb.Round, time_left_s: float | None) -> None:
        assert self._worker is not None
        started_s = self._clock()
        if not is_whole(round_):
            log.warning("agent %d round %d: the parameters came damaged: fetching again", self.index, round_.number)
            return
        budget = None
        if time_left_s is not None and self._worker.speed.min_trajectories:
            budget = self._pace.budget(started_s, time_left_s)
        update = self._compute(self._worker, round_, budget)
        report = make_report(update, self._clock() - started_s)
        reply = self._calls.submit(round_, wire.vector_to_tensor(update.gradient), report)
        if budget is not None:
            self._pace.submitted(budget)
        verdict = _known(reply.verdict)
        level = logging.DEBUG if verdict in (Verdict.ACCEPTED, Verdict.DUPLICATE) else logging.WARNING
        log.log(
            level, "agent %d round %d: return %.1f, %d steps in %.2f s: %s",
            self.index, round_.number, update.mean_return, update.environment_steps, report.seconds, verdict.label,
        )  # fmt: skip
        if verdict in NO_VOTE:
            reason = why_refused(verdict, update, (self._worker.policy.spec.size,))
            log.warning("agent %d round %d: no vote: %s", self.index, round_.number, reason)
            self._on_fate(Refused(self.index, round_.number, verdict, reason))
        self._after(verdict, round_.number)

    def _compute(self, worker: Worker, round_: pb.Round, budget: Budget | None) -> Update:
        size = worker.policy.spec.size
        theta = wire.tensor_to_vector(round_.parameters, size)
        beside: dict[str, Any] = {}
        if round_.HasField("recursion"):
            beside["recursion"] = wire.recursion_from_message(round_.recursion, size)
        if budget is not None:
            beside["budget"] = budget
        update = worker.work(round_.number, round_.batch_size, theta, **beside)
        most = worker.speed.most(round_.batch_size)
        if update.trajectories < most:
            log.info("agent %d round %d: %d of %d trajectories before the deadline",
                     self.index, round_.number, update.trajectories, most)  # fmt: skip
        return update

    def _after(self, verdict: Verdict, round_number: int) -> None:
        """Whatever the verdict, the round is done with; what to do next depends on it."""
        if verdict is Verdict.NOT_A_MEMBER:
            raise RefusedError(f"the server refused: {verdict.sentence}")
        if verdict is Verdict.WRONG_RUN:
            self._worker = None
        self._done_round = round_number


def is_whole(round_: pb.Round) -> bool:
    """Whether a round's vectors are those that the server sent."""
    if wire.tensor_digest(round_.parameters) != round_.parameters_digest:
        return False
    return not round_.HasField("recursion") or wire.recursion_digest(round_.recursion) == round_.recursion.digest


def farewell(error: BaseException) -> tuple[pb.LeaveRequest.Reason.ValueType, str]:
    """The reason to leave with, and the sentence to say with it."""
    if isinstance(error, StoppedError):
        return pb.LeaveRequest.REASON_STOPPED, ""
    if isinstance(error, FedPGError | wire.WireError):
        return pb.LeaveRequest.REASON_FAILED, str(error)
    return pb.LeaveRequest.REASON_FAILED, f"an unexpected {type(error).__name__}: {error}"


def why_refused(verdict: Verdict, update: Update, shape: tuple[int, ...]) -> str:
    """Why the server refused a gradient, as far as the agent that computed it can tell; `shape` is what it expects."""
    sentence = f"gradient refused, {verdict.label}"
    if verdict is Verdict.WRONG_SHAPE and update.gradient.shape != shape:
        return f"{sentence}: {update.gradient.shape}, not {shape}"
    if verdict is not Verdict.NOT_FINITE or np.isfinite(update.gradient).all():
        return sentence
    if update.spoilt_by_attack:
        return f"{sentence}: its attack has made it so"
    if not math.isfinite(update.mean_return):
        return f"{sentence}: the environment's rewards add up to {update.mean_return}"
    return f"{sentence}: rewards are finite, so observations, or a step in float32, are not"


def _known(verdict: int) -> Verdict:
    try:
        return Verdict(verdict)
    except ValueError:
        raise wire.WireError(f"verdict {verdict} is not one that this version knows") from None


def make_report(update: Update, seconds: float) -> pb.WorkReport:
    """What the agent says of its work."""
    return pb.WorkReport(
        trajectories=update.trajectories,
        environment_steps=update.environment_steps,
        mean_return=update.mean_return,
        mean_length=update.mean_length,
        loss=update.loss,
        seconds=seconds,
    )
