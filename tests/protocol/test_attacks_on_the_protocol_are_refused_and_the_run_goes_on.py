"""An agent that breaks the protocol is refused and counted, and the others' parameters are what they would have been.

Three agents, two of whom are a quorum. Where the hostile one casts its honest vote too, each round has the parameters
of a run in which it is honest; where it does not, those of a run in which it is not there.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg_client.agent import Agent
from fedpg_client.attacks import Target, build_attacker
from fedpg_client.attacks.protocol import AttackerCalls, ProtocolAttack
from fedpg_client.calls import Calls, FederationCalls
from fedpg_client.retry import Caller
from fedpg_client.worker import Update, Worker
from fedpg_common.choices import Choice
from fedpg_common.errors import UsageError
from fedpg_common.learning.aggregators import RoundPlan
from fedpg_common.learning.parameters import Vector, digest
from fedpg_common.transport.channels import TlsFiles
from fedpg_common.transport.verdicts import Verdict
from fedpg_lab.local.status import fetch_status, render
from fedpg_server.serving.request_guard import ARRIVAL_MAX_S
from rich.console import Console
from support.agent_stubs import StubWorker
from support.attacks import ON_THE_PROTOCOL
from support.protocol import CALL_TIMEOUT_S, Door, IdleLearner, idle_federation, initial_state, serving, wait_until
from support.tls_files import client_credentials, make_identity, write_files

ROUNDS = 4
AGENTS = 3
HOSTILE = 3
LORIS_ARRIVAL_MAX_S = 2.0
QUORUM_SOON_S = 0.05
"""A deadline that has passed by the time the two honest votes are in."""

AUTHORITY = make_identity("authority")
NAMES = ("server", "operator", "agent-1", "agent-2", "agent-3")
IDENTITIES = {name: make_identity(name, AUTHORITY) for name in NAMES}


def attack_called(name: str) -> ProtocolAttack:
    """The attack on the protocol of that name."""
    attack = build_attacker(Choice(name)).attack
    assert isinstance(attack, ProtocolAttack)
    return attack


class OwnWorker(StubWorker):
    """Each agent's gradient is another, so that it shows in the parameters whose votes have counted."""

    def __init__(self, index: int, before_work: Callable[[int], None] = lambda _: None) -> None:
        """`before_work` is given the round's number."""
        super().__init__()
        self._index = index
        self._before_work = before_work

    def work(self, round_number: int, batch_size: int, theta: Vector) -> Update:
        """As the stub's, of θ + the agent's index."""
        self._before_work(round_number)
        return super().work(round_number, batch_size, theta + np.float32(self._index))


@dataclass
class Story:
    """A run with one hostile agent, as the tests look at it."""

    digests: list[str]
    accepted: set[tuple[int, ...]]
    status: pb.GetStatusReply
    """Taken in the last round, before the first agent's vote."""

    @property
    def verdicts(self) -> dict[Verdict, int]:
        """Of the hostile agent, in the status."""
        return {Verdict(entry.verdict): entry.count for entry in self.status.agents[HOSTILE - 1].verdicts}

    @property
    def shown(self) -> str:
        """What `fedpg status` shows."""
        console = Console(width=200, color_system=None)
        with console.capture() as capture:
            console.print(render(self.status))
        return capture.get()


Evidence = Callable[[Door, AttackerCalls], int]
"""How many attacks have been noticed."""


@dataclass
class Play:
    """A federation of real agents with stubs for their work, one of them hostile, against a real server."""

    folder: Path
    attack: str
    evidence: Evidence
    needed: Callable[[int], int]
    """How much evidence there must be before the first agent votes in a round."""
    secure: bool

    async def run(self) -> Story:
        """The run from its first round to its last."""
        voting = attack_called(self.attack).casts_vote
        federation = idle_federation(AGENTS, ROUNDS, 1000.0 if voting else QUORUM_SOON_S)
        arrival_max_s = LORIS_ARRIVAL_MAX_S if self.attack == "slow-loris" else ARRIVAL_MAX_S
        server, client = None, None
        if self.secure:
            server, client = self._files("server"), client_credentials(AUTHORITY, IDENTITIES["agent-1"])
        async with serving(self.folder, federation, server, client, arrival_max_s=arrival_max_s) as door:
            await asyncio.to_thread(self._take_part, door)
            assert door.rounds is not None
            await door.rounds
            records = door.run.records
            return Story([record.parameters_digest for record in records], {r.accepted for r in records}, self._status)

    def _take_part(self, door: Door) -> None:
        """Run all agents to their end."""
        lines = {index: self._line(door, index) for index in range(1, AGENTS + 1)}
        tls = self._tls.get(HOSTILE)
        operator = self._files("operator") if self.secure else None
        hostile = attack_called(self.attack).calls(lines[HOSTILE], Target(HOSTILE, door.address, tls))

        def wait_for_evidence(round_number: int) -> None:
            wait_until(lambda: self.evidence(door, hostile) >= self.needed(round_number))
            if round_number == ROUNDS:
                self._status = fetch_status(door.address, operator, CALL_TIMEOUT_S)

        calls: dict[int, Calls] = {**lines, HOSTILE: hostile}
        workers = {index: OwnWorker(index, wait_for_evidence if index == 1 else lambda _: None) for index in calls}
        agents = [
            Agent(index, calls[index], lambda _, index=index: cast(Worker, workers[index]), lambda: 0.0)  # type: ignore[misc]
            for index in calls
        ]
        with ThreadPoolExecutor(AGENTS) as threads:
            running = [threads.submit(agent.run) for agent in agents]
            wait(running, return_when=FIRST_EXCEPTION)
            self._stop.set()  # the rest of them, should one have failed
        hostile.close()
        for line in lines.values():
            line.close()
        for agent in running:
            agent.result()

    def _line(self, door: Door, index: int) -> FederationCalls:
        tls = self._tls[index] = self._files(f"agent-{index}") if self.secure else None
        caller = Caller(door.address, np.random.default_rng(index), self._stop)
        return FederationCalls(index, caller, tls, connect_patience_s=CALL_TIMEOUT_S, patience_s=CALL_TIMEOUT_S)

    def _files(self, name: str) -> TlsFiles:
        return write_files(self.folder / name, AUTHORITY, IDENTITIES[name])

    def __post_init__(self) -> None:
        """Nobody is there yet."""
        self._tls: dict[int, TlsFiles | None] = {}
        self._status = pb.GetStatusReply()
        self._stop = threading.Event()


@cache
def expected_digests(voters: tuple[int, ...]) -> list[str]:
    """What the same rounds come to without any network: θ moves by the mean of what the voters' workers give."""
    state, digests = initial_state(), []
    for number in range(1, ROUNDS + 1):
        updates = {agent: OwnWorker(agent).work(number, 1, state.theta).gradient for agent in voters}
        state = IdleLearner().improve(state, RoundPlan(number, 1, 0), updates).state
        digests.append(digest(state.theta))
    return digests


def play(folder: Path, attack: str, evidence: Evidence, needed: Callable[[int], int], secure: bool = False) -> Story:
    """The run, of which everything has been checked that holds for every behaviour."""
    story = asyncio.run(Play(folder, attack, evidence, needed, secure).run())
    voters = (1, 2, 3) if attack_called(attack).casts_vote else (1, 2)
    assert story.accepted == {voters}
    assert story.digests == expected_digests(voters)
    return story


def verdict_count(*verdicts: Verdict) -> Evidence:
    """How many submissions of the hostile agent got one of these."""
    return lambda door, _: sum(door.run.coordinator.members[HOSTILE].verdicts[verdict] for verdict in verdicts)


def each_round(count: int) -> Callable[[int], int]:
    return lambda round_number: count * round_number


secure_or_not = pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])


@secure_or_not
@pytest.mark.parametrize(
    ("attack", "verdict"),
    [
        ("equivocation", Verdict.CONFLICT),
        ("stale-round", Verdict.STALE_ROUND),
        ("wrong-shape", Verdict.WRONG_SHAPE),
        ("not-finite", Verdict.NOT_FINITE),
        ("oversized", Verdict.TOO_LARGE),
    ],
)
def test_what_is_submitted_gets_its_verdict(tmp_path: Path, attack: str, verdict: Verdict, secure: bool) -> None:
    story = play(tmp_path, attack, verdict_count(verdict), each_round(1), secure)
    assert story.verdicts[verdict] == ROUNDS
    refused = ROUNDS
    hostile_row = next(line for line in story.shown.splitlines() if line.startswith(f"    {HOSTILE} "))
    assert hostile_row.split()[-1] == str(refused)


def test_a_replay_counts_once_whatever_it_is_labelled(tmp_path: Path) -> None:
    needed = [0, 0, 2, 6, 12]  # by the end of each round: two for each of the earlier rounds
    story = play(tmp_path, "replay", verdict_count(Verdict.DUPLICATE, Verdict.CONFLICT), lambda number: needed[number])
    assert story.verdicts == {Verdict.ACCEPTED: 4, Verdict.DUPLICATE: 6, Verdict.CONFLICT: 6}


def test_nobody_votes_in_anothers_name(tmp_path: Path) -> None:
    story = play(tmp_path, "impersonation", lambda door, _: door.run.coordinator.intrusions, each_round(2), secure=True)
    assert story.status.intrusions == 2 * ROUNDS
    assert f"{2 * ROUNDS} calls from strangers or with another's identity were refused" in story.shown


@secure_or_not
def test_messages_too_large_to_be_read_are_counted(tmp_path: Path, secure: bool) -> None:
    story = play(tmp_path, "oversized", lambda door, _: door.run.coordinator.unreadable, each_round(1), secure)
    assert story.status.unreadable >= ROUNDS
    assert "did not arrive whole, in time, or" in story.shown


@secure_or_not
def test_calls_whose_message_never_comes_are_given_up_and_counted(tmp_path: Path, secure: bool) -> None:
    story = play(tmp_path, "slow-loris", lambda door, _: door.run.coordinator.unreadable, each_round(10), secure)
    assert story.status.unreadable >= 10 * ROUNDS
    assert "did not arrive whole, in time, or" in story.shown


@secure_or_not
def test_a_flood_of_polls_is_bounded_and_counted(tmp_path: Path, secure: bool) -> None:
    story = play(
        tmp_path, "flood", lambda door, _: door.run.coordinator.members[HOSTILE].polls_cut, each_round(25),
        secure,
    )  # fmt: skip
    assert story.status.agents[HOSTILE - 1].polls_cut >= 25 * ROUNDS
    assert f"agent {HOSTILE} held too many polls" in story.shown
    assert all(agent.polls_cut == 0 for agent in story.status.agents[:2])


def test_silence_is_absence(tmp_path: Path) -> None:
    story = play(tmp_path, "silence", lambda *_: 0, each_round(0))
    assert list(story.status.latest.absent) == [HOSTILE]
    assert not story.verdicts


@secure_or_not
def test_garbage_on_the_port_is_dropped(tmp_path: Path, caplog: pytest.LogCaptureFixture, secure: bool) -> None:
    with caplog.at_level(logging.ERROR):
        play(tmp_path, "garbage", lambda _, hostile: hostile.attempts, each_round(5), secure)
    assert not caplog.records


@pytest.mark.parametrize("name", ON_THE_PROTOCOL)
def test_every_attack_on_the_protocol_overrides_one_method(name: str) -> None:
    own = {"on_submit", "background_task"} & set(vars(type(attack_called(name))))
    assert len(own) == (name != "silence")


@pytest.mark.parametrize("setting", ["starts_at", "ends_at", "on", "off"])
def test_an_attack_on_the_protocol_has_no_schedule(setting: str) -> None:
    schedule = {"on": 1, "off": 1} if setting in ("on", "off") else {setting: 3}
    with pytest.raises(UsageError, match="attack replay: it is on the protocol and has no rounds"):
        build_attacker(Choice("replay", schedule))
