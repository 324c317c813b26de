"""The server's judgements of a submission: the contract's enum, with a sentence each."""

from __future__ import annotations

from enum import IntEnum

from fedpg.v1 import federation_pb2 as pb


class Verdict(IntEnum):
    """As `Verdict` in federation.proto, with its numbers."""

    ACCEPTED = pb.VERDICT_ACCEPTED
    DUPLICATE = pb.VERDICT_DUPLICATE
    CONFLICT = pb.VERDICT_CONFLICT
    STALE_ROUND = pb.VERDICT_STALE_ROUND
    UNKNOWN_ROUND = pb.VERDICT_UNKNOWN_ROUND
    WRONG_SHAPE = pb.VERDICT_WRONG_SHAPE
    NOT_FINITE = pb.VERDICT_NOT_FINITE
    WRONG_PARAMETERS = pb.VERDICT_WRONG_PARAMETERS
    NOT_A_MEMBER = pb.VERDICT_NOT_A_MEMBER
    WRONG_RUN = pb.VERDICT_WRONG_RUN
    RUN_ENDED = pb.VERDICT_RUN_ENDED
    DAMAGED = pb.VERDICT_DAMAGED
    TOO_LARGE = pb.VERDICT_TOO_LARGE

    @property
    def label(self) -> str:
        """The name as people read it, for example "stale round"."""
        return self.name.lower().replace("_", " ")

    @property
    def sentence(self) -> str:
        """What it means for the sender, in one sentence."""
        return SENTENCES[self]


SENTENCES = {
    Verdict.ACCEPTED: "The submission is this agent's vote for the round.",
    Verdict.DUPLICATE: "The same bytes had been accepted before; they count once.",
    Verdict.CONFLICT: "Another submission of this agent for the round had been accepted before; the first one stands.",
    Verdict.STALE_ROUND: "The round is closed; await the next one.",
    Verdict.UNKNOWN_ROUND: "The round has not been opened yet.",
    Verdict.WRONG_SHAPE: "The gradient does not have the type and shape agreed at Join.",
    Verdict.NOT_FINITE: "The gradient has a NaN or an infinity.",
    Verdict.WRONG_PARAMETERS: "The gradient was computed from other parameters than the round's.",
    Verdict.NOT_A_MEMBER: "The agent is not one of the federation's.",
    Verdict.WRONG_RUN: "The submission is for another run; join again.",
    Verdict.RUN_ENDED: "The run has ended.",
    Verdict.DAMAGED: "The gradient was damaged on the way; submit it again.",
    Verdict.TOO_LARGE: "The message is larger than the run's limit, which the server tells at Join.",
}
