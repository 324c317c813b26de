"""Whatever agents send in whatever order, and wherever the server is killed, the protocol's promises hold.

Hypothesis plays the network, the agents and the operator against the coordinator on a virtual clock.
"""

from __future__ import annotations

from fedpg_common.transport.verdicts import Verdict
from fedpg_server.protocol.coordinator import Coordinator, Phase, Rules
from fedpg_server.protocol.events import Failed, Joined, Left, RunEnded, Seen, Tick
from fedpg_server.protocol.membership import OPEN
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.coordinator_driver import QUORUM, ROUND_TIMEOUT_S, Driver, K, digest_of, parameters_of

AGENTS = st.integers(0, K + 1)
MEMBERS = st.integers(1, K)
CONTENTS = st.sampled_from(["a", "b", "c"])
DEFECTS = st.sampled_from([Verdict.WRONG_SHAPE, Verdict.NOT_FINITE, Verdict.WRONG_RUN, Verdict.DAMAGED])


class Federation(RuleBasedStateMachine):
    """A run of rounds with everything that can happen to it."""

    @initialize()
    def start(self) -> None:
        self.driver = Driver(joined=False)
        self.rounds = 1
        self.opened_s = 0.0
        self.votes_of_closed: dict[int, tuple[int, ...]] = {}
        self.driver.open(1)

    @property
    def coordinator(self) -> Coordinator:
        return self.driver.coordinator

    # What agents do, the honest and the others --------------------------------------------------------------------

    @rule(agent=MEMBERS, content=CONTENTS)
    def vote(self, agent: int, content: str) -> None:
        before = dict(self.driver.stored)
        verdict = self.driver.submit(agent, self.rounds, content)
        earlier = before.get((self.rounds, agent))
        if earlier is not None:
            assert verdict is (Verdict.DUPLICATE if earlier == digest_of(content) else Verdict.CONFLICT)
        else:
            assert verdict in (Verdict.ACCEPTED, Verdict.STALE_ROUND, Verdict.RUN_ENDED)

    @rule(agent=AGENTS, content=CONTENTS, round_number=st.integers(0, 8), parameters_round=st.integers(0, 8))
    def submit_anything(self, agent: int, content: str, round_number: int, parameters_round: int) -> None:
        self.driver.submit(agent, round_number, content, parameters_of(parameters_round))

    @rule(agent=AGENTS, content=CONTENTS, round_number=st.integers(0, 2**64 - 1), defect=DEFECTS)
    def submit_defective(self, agent: int, content: str, round_number: int, defect: Verdict) -> None:
        before = dict(self.driver.stored)
        assert self.driver.submit(agent, round_number, content, defect=defect) is not Verdict.ACCEPTED
        assert self.driver.stored == before

    @rule(agent=AGENTS, kind=st.sampled_from([Joined, Seen, Left]))
    def come_or_go(self, agent: int, kind: type[Joined] | type[Seen] | type[Left]) -> None:
        self.driver.step(kind(agent))

    @rule(agent=AGENTS, why=st.text())
    def fail(self, agent: int, why: str) -> None:
        self.driver.step(Failed(agent, why))

    # What time and the operator do --------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.0, 1.0, 29.0, 59.5, ROUND_TIMEOUT_S, 1000.0]))
    def wait(self, seconds: float) -> None:
        self.driver.pass_time(seconds)

    @rule()
    def tick_at_any_time(self) -> None:
        self.driver.step(Tick())

    @precondition(lambda self: self.coordinator.phase is Phase.IMPROVING)
    @rule()
    def improve_and_open_the_next(self) -> None:
        self.driver.improve(self.rounds)
        self.rounds += 1
        self.opened_s = self.driver.now_s
        self.driver.open(self.rounds)

    @rule()
    def kill_and_resume(self) -> None:
        if self.coordinator.phase is Phase.ENDED:
            return
        old = self.coordinator
        votes = {agent: digest for (number, agent), digest in self.driver.stored.items() if number == self.rounds}
        self.driver.coordinator = Coordinator(
            Rules(K, QUORUM, ROUND_TIMEOUT_S), round_number=self.rounds - 1, intrusions=old.intrusions
        )
        self.driver.wake_at_s = None
        self.opened_s = self.driver.now_s
        self.driver.open(self.rounds, votes, closed=self.rounds in self.driver.closed)

    @precondition(lambda self: self.coordinator.phase is Phase.IMPROVING)
    @rule()
    def end(self) -> None:
        self.driver.step(RunEnded())

    # The promises; Driver asserts some at every step ---------------------------------------

    @invariant()
    def no_round_closed_below_the_quorum_or_without_cause(self) -> None:
        for round_number, voters in self.driver.closed.items():
            if round_number in self.votes_of_closed:
                assert voters == self.votes_of_closed[round_number]
                continue
            self.votes_of_closed[round_number] = voters
            assert len(voters) >= QUORUM
            assert len(voters) == K or self.driver.now_s >= self.opened_s + ROUND_TIMEOUT_S

    @invariant()
    def a_closed_round_has_the_votes_it_was_closed_with(self) -> None:
        for round_number, voters in self.driver.closed.items():
            assert voters == tuple(sorted(agent for number, agent in self.driver.stored if number == round_number))

    @invariant()
    def what_counts_is_what_is_stored(self) -> None:
        stored = {agent: digest for (number, agent), digest in self.driver.stored.items() if number == self.rounds}
        assert self.coordinator.votes == stored

    @invariant()
    def an_open_round_that_may_close_has_closed(self) -> None:
        if self.coordinator.phase in OPEN:
            assert len(self.coordinator.votes) < K
        if self.coordinator.phase is Phase.BELOW_QUORUM:
            assert len(self.coordinator.votes) < QUORUM

    @invariant()
    def an_open_round_has_a_timer(self) -> None:
        if self.coordinator.phase is Phase.COLLECTING:
            assert self.driver.wake_at_s == self.coordinator.deadline_s >= self.opened_s + ROUND_TIMEOUT_S
        if self.coordinator.phase in (Phase.JOINING, Phase.BELOW_QUORUM):
            assert self.driver.wake_at_s is not None, "it says every so often that it waits"

    @invariant()
    def nobody_else_became_a_member(self) -> None:
        assert sorted(self.coordinator.members) == list(range(1, K + 1))
        assert set(self.coordinator.votes) <= set(self.coordinator.members)


TestFederation = Federation.TestCase
TestFederation.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
