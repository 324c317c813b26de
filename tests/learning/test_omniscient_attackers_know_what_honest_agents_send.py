"""Omniscient attackers recompute every honest gradient of the round, bit for bit, whoever of them is missing."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedpg_client.attacks import Attack, Attacker, Context, Knowledge, Pool
from fedpg_client.attacks.omniscience import contribution_size, shares
from fedpg_client.attacks.schedule import Schedule
from fedpg_client.cli import parse_rule
from fedpg_client.collusion.channel import PoolClient, PoolServer
from fedpg_client.retry import Caller
from fedpg_client.worker import Worker
from fedpg_common.choices import Choice
from fedpg_common.derived_seeds import agent_seed
from fedpg_common.environments import make_environments
from fedpg_common.errors import UsageError
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.policies import make_policy
from fedpg_common.tasks import find_task
from fedpg_lab.local.agent_setup import agent_options
from support.attacks import SPEC, context
from support.lab import digests, run_federation, small_federation
from support.protocol import CALL_TIMEOUT_S

RUN_SEED, AGENTS, BATCH_SIZE, ROUND = 31, 7, 3, 4
ATTACKERS = (2, 3, 5)
PATIENT_S, IMPATIENT_S = 300.0, 0.2


class Witness(Attack):
    """Notes what it is given."""

    knowledge = Knowledge.OMNISCIENT

    def __init__(self) -> None:
        """Nothing yet."""
        self.seen: list[dict[int, Vector]] = []

    def collude(self, pooled: Mapping[int, Vector], context: Context) -> Vector:
        """Every gradient, by agent."""
        assert list(pooled) == list(context.attackers)
        assert not set(pooled) & set(context.honest)
        self.seen.append({**pooled, **context.honest})
        return pooled[context.agent]


class Theatre:
    """Workers of one federation, in one process, with environments for each."""

    def __init__(self) -> None:
        """CartPole with short episodes."""
        self.task = dataclasses.replace(find_task("CartPole-v1"), horizon=60)
        self.resources = ExitStack()
        self.theta = self.worker(1, Attacker()).policy.initial_parameters(np.random.default_rng(0))

    def worker(self, agent: int, attacker: Attacker) -> Worker:
        """As `fedpg_client.process` makes it."""
        environments = make_environments(self.task)
        self.resources.callback(environments.close)
        policy = make_policy(self.task, environments.observation_size, environments.action_space)
        return Worker(agent, AGENTS, agent_seed(RUN_SEED, agent), self.task, policy, environments, attacker)

    def sent(self, agent: int, attacker: Attacker | None = None) -> Vector:
        """What the agent submits."""
        return self.worker(agent, attacker or Attacker()).work(ROUND, BATCH_SIZE, self.theta).gradient

    def witness(self, pool: Pool | None = None, attackers: tuple[int, ...] = ATTACKERS) -> tuple[Witness, Attacker]:
        """An omniscient attacker."""
        attack = Witness()
        return attack, Attacker(attack, attackers=attackers, pool=pool, run_seed=RUN_SEED)


@pytest.fixture(scope="module")
def theatre() -> Iterator[Theatre]:
    made = Theatre()
    with made.resources:
        yield made


@pytest.fixture(scope="module")
def honest(theatre: Theatre) -> dict[int, bytes]:
    """What each agent submits in a federation without attackers."""
    return {agent: theatre.sent(agent).tobytes() for agent in range(1, AGENTS + 1)}


def as_bytes(seen: Mapping[int, Vector]) -> dict[int, bytes]:
    return {agent: vector.tobytes() for agent, vector in sorted(seen.items())}


def test_a_lone_attacker_recomputes_everybody_bit_for_bit(theatre: Theatre, honest: dict[int, bytes]) -> None:
    attack, attacker = theatre.witness(attackers=(4,))
    theatre.sent(4, attacker)
    assert [as_bytes(seen) for seen in attack.seen] == [honest]
    assert len(set(honest.values())) == AGENTS


@pytest.mark.parametrize("present", [ATTACKERS, (2, 5), (3,)])
def test_attackers_pool_their_shares_and_do_without_who_is_missing(
    theatre: Theatre, honest: dict[int, bytes], present: tuple[int, ...]
) -> None:
    size = contribution_size(ATTACKERS, AGENTS, theatre.theta.size)
    server = PoolServer(ATTACKERS, size, "hush")
    wait_s = PATIENT_S if present == ATTACKERS else IMPATIENT_S
    with ExitStack() as resources, ThreadPoolExecutor(len(present)) as threads:
        resources.callback(server.close)
        address = server.listen("127.0.0.1:0")
        witnesses, submitted = [], []
        for agent in present:
            caller = Caller(address, np.random.default_rng(agent), threading.Event())
            client = PoolClient(agent, "run-1", size, caller, wait_s, "hush")
            resources.callback(client.close)
            attack, attacker = theatre.witness(client)
            witnesses.append(attack)
            submitted.append(threads.submit(theatre.sent, agent, attacker))
        assert {call.result(CALL_TIMEOUT_S).tobytes() for call in submitted} == {honest[agent] for agent in present}
    assert [[as_bytes(seen) for seen in attack.seen] for attack in witnesses] == [[honest]] * len(present)


def test_a_large_share_fits_through_the_attackers_channel() -> None:
    size = 3_000_000  # 256 of them are more bytes than gRPC can be told
    server = PoolServer((1, 2), size)
    caller = Caller(server.listen("127.0.0.1:0"), np.random.default_rng(1), threading.Event())
    client = PoolClient(1, "run-1", size, caller, IMPATIENT_S)
    try:
        assert list(client.exchange(1, np.ones(size, np.float32))) == [1]
    finally:
        client.close()
        server.close()


class CountedPool:
    """Everybody else's contribution is there."""

    def __init__(self, contributions: Mapping[int, Vector]) -> None:
        """By attacker."""
        self.contributions = contributions
        self.exchanged: list[Vector] = []
        self.contributed: list[int] = []

    def exchange(self, round_number: int, gradient: Vector) -> Mapping[int, Vector]:
        """See `Pool`."""
        self.exchanged.append(gradient)
        return self.contributions

    def contribute(self, round_number: int, gradient: Vector) -> None:
        """See `Pool`."""
        self.contributed.append(round_number)


def test_each_attacker_does_its_share_of_the_work_and_no_more() -> None:
    assert shares((5, 2, 3), 7) == {2: (1, 7), 3: (4,), 5: (6,)}
    assert shares((1,), 3) == {1: (2, 3)}
    assert shares((1, 2), 2) == {1: (), 2: ()}
    assert [contribution_size(ATTACKERS, 7, 10), contribution_size((1, 2), 2, 10)] == [30, 10]

    def of(agent: int) -> Vector:
        return np.full(SPEC.size, agent, np.float32)

    recomputed: list[int] = []

    def recompute(agent: int) -> Vector:
        recomputed.append(agent)
        return of(agent)

    pool = CountedPool({3: np.concatenate([of(3), of(4), of(0)]), 5: np.concatenate([of(5), of(6), of(0)])})
    attack = Witness()
    Attacker(attack, attackers=ATTACKERS, pool=pool).agree(of(2), context(recompute=recompute))
    assert recomputed == [1, 7]
    assert pool.exchanged[0].tolist() == np.concatenate([of(2), of(1), of(7)]).tolist()
    assert {agent: vector[0] for agent, vector in sorted(attack.seen[0].items())} == {k: k for k in range(1, 8)}


def test_in_an_honest_round_nothing_is_recomputed_or_pooled() -> None:
    def recompute(agent: int) -> Vector:
        raise AssertionError

    pool, gradient = CountedPool({}), np.ones(SPEC.size, np.float32)
    sleeper = Attacker(Witness(), Schedule(starts_at=100), ATTACKERS, pool=pool)
    assert sleeper.agree(gradient, context(recompute=recompute)) is gradient
    assert (pool.exchanged, pool.contributed) == ([], [])


def test_without_the_runs_seed_nobody_is_omniscient(theatre: Theatre) -> None:
    attacker = dataclasses.replace(theatre.witness()[1], run_seed=None)
    with pytest.raises(UsageError, match="agent 2: an omniscient attack needs the run's seed"):
        theatre.sent(2, attacker)


# The server's rule ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({}, Choice("fedpg")),
        ({"algorithm": Choice("svrpg")}, Choice("mean")),
        ({"aggregator": Choice("krum", {"faulty": 1})}, Choice("krum", {"faulty": 1})),
    ],
)
def test_attackers_that_collude_are_told_the_rule(fields: dict[str, Any], rule: Choice) -> None:
    byzantine = {1: Choice("worst-down"), 2: Choice("sign-flipping"), 4: Choice("worst-down")}
    federation = dataclasses.replace(small_federation(5, 0), byzantine=byzantine, **fields)
    told = {options.index: options.aggregator for options in agent_options(federation, "127.0.0.1:1")}
    assert told == {1: rule, 2: None, 3: None, 4: rule, 5: None}


def test_the_agents_command_is_told_the_rule_like_the_server() -> None:
    settings = ["aggregator.faulty=2", "starts_at=3", "algorithm.steps=2"]
    assert parse_rule("krum", settings) == Choice("krum", {"faulty": 2})
    assert parse_rule("", settings) is None
    with pytest.raises(UsageError, match="did you mean krum"):
        parse_rule("crum", [])
    with pytest.raises(UsageError, match=r"aggregator krum: .* did you mean faulty\? Its settings are faulty"):
        parse_rule("krum", ["aggregator.fautly=2"])


# End to end -----------------------------------------------------------------------------------------------------------


def test_an_omniscient_attacker_trains_along_with_the_same_parameters_every_time(tmp_path: Path) -> None:
    federation = small_federation(agents=4, byzantine=1, attack="worst-down")
    run = run_federation(federation, tmp_path / "apart")
    assert len(run.records) > 2
    assert digests(run_federation(federation, tmp_path / "together", agents_per_process=4)) == digests(run)
    honest = run_federation(small_federation(agents=4, byzantine=0), tmp_path / "honest", agents_per_process=4)
    assert digests(run)[0] != digests(honest)[0]


def test_in_a_real_run_attackers_send_what_an_honest_agent_sends_at_the_same_time(tmp_path: Path) -> None:
    run = run_federation(small_federation(agents=5, byzantine=2, attack="mimic"), tmp_path / "run")
    assert len(run.records) > 2
    for record in run.records:
        assert record.distances["byzantine"] == 0.0
        assert record.centre_distances[1] == record.centre_distances[2] == record.centre_distances[3]
        assert record.centre_distances[3] != record.centre_distances[4]
