"""What a simulated run has promised, and whether it kept it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fedpg.v1 import federation_pb2 as pb
from fedpg_common.learning.parameters import digest
from fedpg_common.transport.verdicts import Verdict
from fedpg_server.learning.records import RoundRecord
from fedpg_server.learning.state import State
from fedpg_server.storage.store import Store
from support.protocol import digest_of_vector, initial_state
from support.simulated_work import SimulatedLearner, gradient_of

if TYPE_CHECKING:
    from support.simulated_federation import Simulation

VOTE_STANDS = (Verdict.ACCEPTED, Verdict.DUPLICATE)


class History:
    """The answers that left the server, and a trace for people."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._trace: list[tuple[float, str, tuple[object, ...]]] = []
        self.votes: dict[tuple[int, int], bytes] = {}
        """Digest of each vote that an answer has confirmed, by (round, agent)."""
        self.parameters: dict[int, bytes] = {}
        """Digest of the parameters handed out for each round."""
        self.refusals: dict[int, int] = {}
        """How many submissions of each agent were answered with another verdict."""
        self.failures: list[str] = []

    def note(self, text: str, *values: object) -> None:
        """Add a line to the trace."""
        self._trace.append((self._clock(), text, values))

    def fail(self, text: str) -> None:
        """A promise is broken."""
        self.note("FAILURE: {}", text)
        self.failures.append(text)

    def answered(self, path: str, request: Any, reply: Any) -> None:
        """An answer leaves the server."""
        method = path.rpartition("/")[2]
        if method == "AwaitRound" and reply.state == pb.AwaitRoundReply.STATE_OPEN:
            self.note("agent-{} is given round {}", request.agent, reply.round.number)
            known = self.parameters.setdefault(reply.round.number, reply.round.parameters_digest)
            if known != reply.round.parameters_digest:
                self.fail(f"round {reply.round.number} was handed out with two different parameters")
        elif method == "SubmitUpdate":
            verdict = Verdict(reply.verdict)
            self.note("agent-{} is told of its vote in round {}: {}", request.agent, request.round, verdict.label)
            if verdict in VOTE_STANDS:
                self._confirmed((request.round, request.agent), request.gradient_digest)
            else:
                self.refusals[request.agent] = self.refusals.get(request.agent, 0) + 1
                was_late = verdict in (Verdict.STALE_ROUND, Verdict.RUN_ENDED)
                if not was_late or (request.round, request.agent) in self.votes:
                    self.fail(f"agent {request.agent}, which is honest, was told: {verdict.label}")

    def _confirmed(self, vote: tuple[int, int], gradient: bytes) -> None:
        if self.votes.setdefault(vote, gradient) != gradient:
            self.fail(f"two different votes of agent {vote[1]} in round {vote[0]} were confirmed")

    def check_remembered(self, store: Store) -> None:
        """Nothing that was answered is forgotten."""
        for (round_number, agent), gradient in self.votes.items():
            if store.vote_digest(round_number, agent) != gradient:
                self.fail(f"the confirmed vote of agent {agent} in round {round_number} is forgotten")

    def lines(self) -> list[str]:
        """The trace."""
        return [f"{time_s:9.3f} s  {text.format(*values)}" for time_s, text, values in self._trace]


def check(simulation: Simulation) -> list[str]:
    """Everything that a run, once ended, must have kept; the sentences name what it has not."""
    history = simulation.history
    if not simulation.has_ended and not history.failures:
        history.fail("the run has not ended")
    store = Store.read(simulation.path)
    try:
        history.check_remembered(store)
        records = store.records()
        for broken in (*_rounds(simulation, records), *_votes(simulation, store, records), *_counts(history, store)):
            history.fail(broken)
        for broken in _parameters(simulation, records):
            history.fail(broken)
    finally:
        store.close()
    return history.failures


def _rounds(simulation: Simulation, records: list[RoundRecord]) -> list[str]:
    broken = []
    if [record.round_number for record in records] != list(range(1, simulation.schedule.rounds + 1)):
        broken.append(f"the rounds are {[record.round_number for record in records]}")
    for record in records:
        voters = len(record.accepted) + len(record.filtered)
        if voters < simulation.federation.quorum:
            broken.append(f"round {record.round_number} closed below the quorum, with {voters} votes")
        if voters < simulation.schedule.agents and simulation.schedule.round_timeout_s > 1e4:
            broken.append(f"round {record.round_number} closed before its deadline, with {voters} votes")
    return broken


def _votes(simulation: Simulation, store: Store, records: list[RoundRecord]) -> list[str]:
    """A confirmed vote counts in its round, and a vote that counts is in the store."""
    broken = []
    voters = {record.round_number: {*record.accepted, *record.filtered} for record in records}
    for round_number, agent in simulation.history.votes:
        if agent not in voters.get(round_number, ()):
            broken.append(f"the confirmed vote of agent {agent} did not count in round {round_number}")
    for round_number, agents in voters.items():
        missing = [agent for agent in agents if store.vote_digest(round_number, agent) is None]
        if missing:
            broken.append(f"agents {missing} counted in round {round_number} without a vote")
    return broken


def _counts(history: History, store: Store) -> list[str]:
    """Every refusal that was answered is counted."""
    counts = store.verdict_counts()
    return [
        f"agent {agent} was refused {refusals} times, but {counted} are counted"
        for agent, refusals in history.refusals.items()
        if (counted := sum(counts.get(agent, {}).values()) - counts.get(agent, {}).get(Verdict.ACCEPTED, 0)) < refusals
    ]


def _parameters(simulation: Simulation, records: list[RoundRecord]) -> list[str]:
    """The parameters are, bit for bit, what the voters of each round make of them, computed again without a network."""
    voters = {record.round_number: {*record.accepted, *record.filtered} for record in records}
    states = replay(simulation, voters)
    expected = {number: digest(state.theta) for number, state in states.items()}
    evaluate = SimulatedLearner(simulation.federation).evaluate
    found = {record.round_number: record.parameters_digest for record in records}
    handed_out = simulation.history.parameters
    before = {1: digest_of_vector(initial_state().theta).hex()} | {number + 1: theta for number, theta in found.items()}
    return [
        *(f"the evaluation of round {record.round_number} is not that of its parameters" for record in records
          if record.evaluation_returns != evaluate(states[record.round_number].theta, record.round_number).returns),
        *(f"the parameters after round {number} are not those of its votes" for number in found
          if found[number] != expected[number]),
        *(f"round {number} was handed out with other parameters than round {number - 1} ended with"
          for number in handed_out if handed_out[number].hex() != before.get(number)),
    ]  # fmt: skip


def replay(simulation: Simulation, voters: Mapping[int, set[int]]) -> dict[int, State]:
    """The state after each round, computed in order from who voted in it."""
    learner = SimulatedLearner(simulation.federation)
    state: State = initial_state()
    states = {}
    for number in sorted(voters):
        updates = {agent: gradient_of(agent, number, state.theta) for agent in sorted(voters[number])}
        state = learner.improve(state, learner.plan(number), updates).state
        states[number] = state
    return states


def digests(simulation: Simulation) -> list[str]:
    """The parameters' digest after each round of a run that kept its promises."""
    return [record.parameters_digest for record in records_of(simulation)]


def records_of(simulation: Simulation) -> list[RoundRecord]:
    """The records of a run that kept its promises, without the time that they took."""
    assert check(simulation) == []
    store = Store.read(simulation.path)
    try:
        return [replace(record, seconds=0.0) for record in store.records()]
    finally:
        store.close()
