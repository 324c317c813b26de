"""The conformance kit for aggregators: whether one keeps the promises that the rest of the system leans on."""

from __future__ import annotations

import math
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from fedpg_common.choices import Choice
from fedpg_common.errors import UsageError
from fedpg_common.learning.aggregators import (
    Aggregate,
    Aggregator,
    Memory,
    RoundPlan,
    Votes,
    build_aggregator,
    check_federation,
)
from fedpg_common.learning.parameters import Vector
from fedpg_common.tasks import CARTPOLE
from fedpg_server.learning.algorithms.adam import fresh
from fedpg_server.learning.answers import checked_aggregate
from fedpg_server.learning.state import AGGREGATOR, State, digest_of
from fedpg_server.storage.store import Store
from numpy.typing import NDArray

from fedpg_lab.check.attacks import Check

AGENTS, SIZE = 10, 40
SPREAD = 0.01
"""How far honest votes lie from each other: within the radius of CartPole's published σ."""
ROUNDS = 4
HUGE = (1e2, 1e6, 1e20, 3e38)
"""Sizes of an attacker's entries."""
BOUND = 10.0
"""How many times the honest votes' own spread the result may lie from their mean, whatever attackers send."""
TOLERANCE = 1e-3
"""For what is equal but for rounding, as a part of the spread."""
FULL, QUICK = (1000, 10_000), (100, 1000)
SECONDS_MAX, MEMORY_MAX_MB = 20.0, 2000.0
"""What a round may take with 1,000 agents and 10,000 numbers each."""

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Bench:
    """An aggregator as the server would call it."""

    choice: Choice

    def build(self) -> Aggregator:
        """A new one, as after a restart."""
        return build_aggregator(self.choice)

    def once(self, rows: Mapping[int, Rows], memory: Memory | None = None, K: int = AGENTS) -> Aggregate:
        """One round of a new one. Raises UsageError, as the server would, where it breaks a promise."""
        return run(self.build(), votes_of(rows, K), memory or {})


def run(aggregator: Aggregator, votes: Votes, memory: Memory) -> Aggregate:
    """One round, its answer checked as the server checks it."""
    return checked_aggregate(lambda: aggregator.aggregate(votes, memory), votes, "")


def votes_of(rows: Mapping[int, Rows], K: int = AGENTS, round_number: int = 1) -> Votes:
    """Votes by agent, read-only, in the order of the agents."""
    agents = tuple(sorted(rows))
    matrix = np.stack([rows[agent] for agent in agents])
    matrix.flags.writeable = False
    task = replace(CARTPOLE, alpha=0.4)
    # An algorithm may hand in the server's own gradient: here it is an honest vote's.
    return Votes(agents, matrix, K, RoundPlan(round_number, 16, 3), task, server_gradient=centre(round_number))


def centre(round_number: int, size: int = SIZE) -> Vector:
    """What honest votes scatter about in a round, shape (d,)."""
    rng = np.random.default_rng([7, round_number])
    return (0.02 * rng.standard_normal(size)).astype(np.float32)


def honest(count: int = AGENTS, round_number: int = 1, seed: int = 0) -> dict[int, Rows]:
    """Honest votes of agents 1 to `count`."""
    rng = np.random.default_rng([seed, round_number])
    noise = rng.standard_normal((count, SIZE)) * SPREAD / math.sqrt(SIZE)
    return {agent: (centre(round_number) + row).astype(np.float32) for agent, row in enumerate(noise, start=1)}


def check_aggregator(choice: Choice, quick: bool = False) -> list[Check]:
    """Put an aggregator to the test. Raises UsageError for a name or a setting that is wrong."""
    bench = Bench(choice)
    aggregator = bench.build()
    claims = tuple(getattr(aggregator, "equivariant", ()))
    tests: list[tuple[str, Callable[[], Iterator[str]]]] = [
        ("answers honest votes with a vector", lambda: _answers(bench)),
        ("gives the same bits for the same votes", lambda: _deterministic(bench)),
        ("keeps nothing but its memory", lambda: _stateless(bench)),
        ("leaves what it is given as it is", lambda: _unchanged(bench)),
        ("does with one vote, identical votes, and any agent absent", lambda: _few(bench)),
        ("stays finite whatever the size of a vote", lambda: _finite(bench)),
        ("memory survives a restart", lambda: _restarts(bench)),
    ]
    if getattr(aggregator, "symmetric", True):
        tests.append(("treats all agents alike", lambda: _symmetric(bench)))
    if getattr(aggregator, "resists", True):
        tests.append(("is not moved far by ⌊αK⌋ votes of any size", lambda: _resists(bench)))
    if "shift" in claims:
        tests.append(("moves with its votes (claimed: shift)", lambda: _shifts(bench)))
    if "scale" in claims:
        tests.append(("grows with its votes (claimed: scale)", lambda: _scales(bench)))
    checks = [_check(promise, test) for promise, test in tests]
    agents, size = QUICK if quick else FULL
    return [*checks, _cost(bench, agents, size)]


def _check(promise: str, test: Callable[[], Iterator[str]]) -> Check:
    """A check of which the first complaint is kept. Whatever the aggregator raises is a complaint."""
    try:
        complaint = next(test(), "")
    except UsageError as error:
        complaint = str(error).partition("failed: ")[2] or str(error)
    except Exception as error:  # an aggregator of somebody's own may raise anything
        complaint = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return Check(promise, not complaint, complaint)


def _answers(bench: Bench) -> Iterator[str]:
    result = bench.once(honest())
    if result.vector is None:
        yield f"no vote survives among {AGENTS} honest ones that agree: rule {result.rule!r}"
        return
    mean = np.mean(list(honest().values()), axis=0)
    away = float(np.linalg.norm(result.vector - mean))
    if away > BOUND * SPREAD:
        yield f"its answer lies {away:.3g} from the mean of honest votes that lie {SPREAD:g} apart"


def _deterministic(bench: Bench) -> Iterator[str]:
    for votes in (honest(), _attacked(2, 1.0)):
        if _bits(bench.once(votes)) != _bits(bench.once(votes)):
            yield "two calls with the same votes answer differently"


def _stateless(bench: Bench) -> Iterator[str]:
    """A round that is computed again after others, on the same object, has the same bits."""
    lasting = bench.build()
    first = run(lasting, votes_of(honest()), {})
    run(lasting, votes_of(_attacked(3, 5.0), round_number=2), first.memory)
    again = run(lasting, votes_of(honest()), {})
    if _bits(first) != _bits(again):
        yield "a round that is repeated answers differently: what it keeps must be in its memory"


def _unchanged(bench: Bench) -> Iterator[str]:
    memory = {name: vector.copy() for name, vector in bench.once(honest()).memory.items()}
    votes = votes_of(_attacked(3, 5.0), round_number=2)
    open_to_change = replace(votes, matrix=votes.matrix.copy())
    before = open_to_change.matrix.tobytes(), {name: vector.tobytes() for name, vector in memory.items()}
    run(bench.build(), open_to_change, memory)
    if (open_to_change.matrix.tobytes(), {name: vector.tobytes() for name, vector in memory.items()}) != before:
        yield "it changes the votes or the memory that it is given"


def _symmetric(bench: Bench) -> Iterator[str]:
    for votes in (honest(), _attacked(2, 3.0), {agent: row for agent, row in honest().items() if agent != 3}):
        names = np.random.default_rng(3).permutation(len(votes))
        renamed = {agent: list(votes.values())[place] for agent, place in zip(votes, names, strict=True)}
        one, other = bench.once(votes), bench.once(renamed)
        if (one.vector is None) != (other.vector is None):
            yield "whether any vote survives depends on which agent sent which"
        elif one.vector is not None and other.vector is not None and not _near(one.vector, other.vector, SPREAD):
            yield f"its answer moves by {_distance(one.vector, other.vector):.3g} when agents change places"


def _few(bench: Bench) -> Iterator[str]:
    cases = {
        "one vote of one agent": (honest(1), 1),
        "one vote of ten": (honest(1), AGENTS),
        "two votes": (honest(2), 2),
        "three votes of three": (honest(3), 3),
        "identical votes": (dict.fromkeys(range(1, AGENTS + 1), honest()[1]), AGENTS),
        "zeros": (dict.fromkeys(range(1, AGENTS + 1), np.zeros(SIZE, np.float32)), AGENTS),
    }
    for absent in range(1, AGENTS + 1):
        present = {agent: row for agent, row in honest().items() if agent != absent}
        cases[f"agent {absent} absent"] = (present, AGENTS)
    for name, (votes, K) in cases.items():
        try:
            bench.once(votes, K=K)
        except UsageError as error:
            yield f"{name}: {str(error).partition('failed: ')[2]}"
    same = bench.once(cases["identical votes"][0]).vector
    is_unanimous = getattr(bench.build(), "unanimous", True)
    if is_unanimous and same is not None and not _near(same, honest()[1], SPREAD):
        yield "identical votes have another answer than themselves"


def _finite(bench: Bench) -> Iterator[str]:
    for size in HUGE:
        for count in (1, 4, AGENTS):
            memory = bench.once(_attacked(count, size)).memory
            broken = [name for name, vector in memory.items() if not np.isfinite(vector).all()]
            if broken:
                yield f"votes of size {size:g} leave {broken[0]!r} in its memory that is not finite"
            after = bench.once(honest(round_number=2), memory)
            if after.vector is not None and not np.isfinite(after.vector).all():
                yield f"after votes of size {size:g} its answer is not finite"


def _resists(bench: Bench) -> Iterator[str]:
    """The result stays about the honest votes, in a first round and in those that follow."""
    for size in (SPREAD, 1.0, *HUGE):
        for kind in ("together", "apart", "opposite"):
            memory: Memory = {}
            aggregator = bench.build()
            for number in range(1, ROUNDS + 1):
                votes = _attacked(4, size, kind, number)
                result = run(aggregator, votes_of(votes, round_number=number), memory)
                memory = result.memory
                if result.vector is None:
                    continue
                good = np.stack([row for agent, row in votes.items() if agent > 4]).astype(np.float64)
                away = float(np.linalg.norm(result.vector - good.mean(axis=0)))
                allowed = BOUND * (SPREAD + float(np.linalg.norm(centre(number) - centre(1))))
                if not away <= allowed:
                    yield (
                        f"4 of {AGENTS} attackers, {kind}, with entries of {size:g}, move it {away:.3g} from the mean "
                        f"of the honest in round {number}, who lie {SPREAD:g} apart"
                    )


def _shifts(bench: Bench) -> Iterator[str]:
    by = np.float32(0.125)
    for votes in (honest(), _attacked(3, 1.0)):
        one, other = bench.once(votes).vector, bench.once({agent: row + by for agent, row in votes.items()}).vector
        if one is None or other is None:
            if one is not other:
                yield "whether any vote survives changes when all votes are shifted"
        elif not _near(one + by, other, 1.0):
            yield f"when all votes are shifted alike, its answer is {_distance(one + by, other):.3g} from there"


def _scales(bench: Bench) -> Iterator[str]:
    for votes in (honest(), _attacked(3, 1.0)):
        for by in (np.float32(0.25), np.float32(8.0)):
            one, other = bench.once(votes).vector, bench.once({agent: row * by for agent, row in votes.items()}).vector
            if one is None or other is None:
                if one is not other:
                    yield f"whether any vote survives changes when all votes are scaled by {by:g}"
            elif not _near(one * by, other, float(by)):
                yield f"when all votes are scaled by {by:g}, its answer is {_distance(one * by, other):.3g} from there"


def _restarts(bench: Bench) -> Iterator[str]:
    """Each round by a new object whose memory comes out of a store, beside one that lives on."""
    lasting, memory = bench.build(), dict[str, Vector]()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, ROUNDS + 1):
            votes = votes_of(_attacked(2, 1.0, round_number=number), round_number=number)
            stayed = run(lasting, votes, memory)
            stored = _stored(Path(folder) / f"{number}.sqlite", memory)
            restarted = run(bench.build(), votes, stored)
            if _bits(stayed) != _bits(restarted):
                yield f"in round {number} a restarted server answers differently"
            memory = dict(stayed.memory)


def _stored(path: Path, memory: Memory) -> dict[str, Vector]:
    """The memory as it comes out of a run's store."""
    state = fresh(np.zeros(1, np.float32)).with_memory(AGGREGATOR, memory)
    Store.create(path, "check", "", state).close()
    with Store.read(path) as store:
        return store.latest_state()[1].memory(AGGREGATOR)


def _cost(bench: Bench, agents: int, size: int) -> Check:
    """Time and memory of a round; on a small one, of what the same at full size would be."""
    rng = np.random.default_rng(0)
    matrix = 0.01 * rng.standard_normal((agents, size), dtype=np.float32)
    task = replace(CARTPOLE, alpha=0.4)
    votes = Votes(tuple(range(1, agents + 1)), matrix, agents, RoundPlan(1, 16, 3), task, np.zeros(size, np.float32))
    promise = f"{agents:,} agents with {size:,} numbers: time and memory"
    try:
        check_federation(bench.build(), bench.choice, task, agents, has_server_gradient=True)
    except UsageError as error:
        return Check(promise, True, f"refused before a run: {str(error).partition(': ')[2]}")
    before_mb = _peak_mb()
    start_s = time.process_time()
    check = _check(promise, lambda: iter(_round(bench, votes)))
    if not check.kept:
        return check
    spent_s, grown_mb = time.process_time() - start_s, max(0.0, _peak_mb() - before_mb)
    detail = f"{spent_s:.2f} s of processor time, {grown_mb:,.0f} MB more"
    too_much = [f"more than {SECONDS_MAX:g} s"] * (spent_s > SECONDS_MAX)
    too_much += [f"more than {MEMORY_MAX_MB:,.0f} MB"] * (grown_mb > MEMORY_MAX_MB)
    return Check(check.promise, not too_much, ", ".join([detail, *too_much]))


def _round(bench: Bench, votes: Votes) -> list[str]:
    run(bench.build(), votes, {})
    return []


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _attacked(count: int, size: float, kind: str = "together", round_number: int = 1) -> dict[int, Rows]:
    """Votes of which the first `count` are an attacker's, with entries of about `size`."""
    votes = honest(round_number=round_number)
    direction = np.random.default_rng([11, round_number]).choice([-1.0, 1.0], SIZE)
    limit = float(np.finfo(np.float32).max)
    for agent in range(1, count + 1):
        own = np.random.default_rng([13, agent, round_number]).choice([-1.0, 1.0], SIZE)
        bad = {"together": direction, "apart": own, "opposite": direction * (-1) ** agent}[kind] * size
        votes[agent] = np.clip(bad + votes[agent], -limit, limit).astype(np.float32)
    return votes


def _bits(result: Aggregate) -> tuple[object, ...]:
    """All that an answer says, to the bit."""
    memory = State(dict(result.memory))
    vector = None if result.vector is None else result.vector.tobytes()
    weights = None if result.weights is None else sorted(result.weights.items())
    return vector, result.rule, weights, sorted(result.figures.items()), digest_of(memory), result.median_agent


def _distance(one: Vector, other: Vector) -> float:
    return float(np.linalg.norm(one.astype(np.float64) - other))


def _near(one: Vector, other: Vector, scale: float) -> bool:
    return _distance(one, other) <= TOLERANCE * scale
