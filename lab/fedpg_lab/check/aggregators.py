"""The conformance kit for aggregators: whether one keeps the promises that the rest of the system leans on."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from fedpg_common.choices import Choice
from fedpg_common.errors import UsageError
from fedpg_common.learning.aggregators import (
    Memory,
    RoundPlan,
    Votes,
    check_federation,
)
from fedpg_common.learning.parameters import Vector
from fedpg_common.tasks import CARTPOLE
from fedpg_server.learning.algorithms.adam import fresh
from fedpg_server.learning.state import AGGREGATOR
from fedpg_server.storage.store import Store

from fedpg_lab.check.attacks import Check, run_all, run_one
from fedpg_lab.check.bench import (
    AGENTS,
    BOUND,
    FULL,
    HUGE,
    MEMORY_MAX_MB,
    QUICK,
    ROUNDS,
    SECONDS_MAX,
    SIZE,
    SPREAD,
    Bench,
    attacked,
    bits,
    centre,
    distance,
    honest,
    near,
    peak_mb,
    run,
    votes_of,
)
from fedpg_lab.check.patience import AGGREGATOR_MAX_S, Patience


def check_aggregator(choice: Choice, quick: bool = False, patience: Patience | None = None) -> list[Check]:
    """Put an aggregator to the test. A test that does not end is the last.

    Raises UsageError for a name or a setting that is wrong.
    """
    patience = patience or Patience(AGGREGATOR_MAX_S)
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
    checks = run_all(tests, patience)
    if checks[-1].is_last:
        return checks
    agents, size = QUICK if quick else FULL
    return [*checks, _cost(bench, agents, size, patience)]


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
    for votes in (honest(), attacked(2, 1.0)):
        if bits(bench.once(votes)) != bits(bench.once(votes)):
            yield "two calls with the same votes answer differently"


def _stateless(bench: Bench) -> Iterator[str]:
    """A round that is computed again after others, on the same object, has the same bits."""
    lasting = bench.build()
    first = run(lasting, votes_of(honest()), {})
    run(lasting, votes_of(attacked(3, 5.0), round_number=2), first.memory)
    again = run(lasting, votes_of(honest()), {})
    if bits(first) != bits(again):
        yield "a round that is repeated answers differently: what it keeps must be in its memory"


def _unchanged(bench: Bench) -> Iterator[str]:
    memory = {name: vector.copy() for name, vector in bench.once(honest()).memory.items()}
    votes = votes_of(attacked(3, 5.0), round_number=2)
    open_to_change = replace(votes, matrix=votes.matrix.copy())
    before = open_to_change.matrix.tobytes(), {name: vector.tobytes() for name, vector in memory.items()}
    run(bench.build(), open_to_change, memory)
    if (open_to_change.matrix.tobytes(), {name: vector.tobytes() for name, vector in memory.items()}) != before:
        yield "it changes the votes or the memory that it is given"


def _symmetric(bench: Bench) -> Iterator[str]:
    for votes in (honest(), attacked(2, 3.0), {agent: row for agent, row in honest().items() if agent != 3}):
        names = np.random.default_rng(3).permutation(len(votes))
        renamed = {agent: list(votes.values())[place] for agent, place in zip(votes, names, strict=True)}
        one, other = bench.once(votes), bench.once(renamed)
        if (one.vector is None) != (other.vector is None):
            yield "whether any vote survives depends on which agent sent which"
        elif one.vector is not None and other.vector is not None and not near(one.vector, other.vector, SPREAD):
            yield f"its answer moves by {distance(one.vector, other.vector):.3g} when agents change places"


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
    if is_unanimous and same is not None and not near(same, honest()[1], SPREAD):
        yield "identical votes have another answer than themselves"


def _finite(bench: Bench) -> Iterator[str]:
    for size in HUGE:
        for count in (1, 4, AGENTS):
            memory = bench.once(attacked(count, size)).memory
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
                votes = attacked(4, size, kind, number)
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
    for votes in (honest(), attacked(3, 1.0)):
        one, other = bench.once(votes).vector, bench.once({agent: row + by for agent, row in votes.items()}).vector
        if one is None or other is None:
            if one is not other:
                yield "whether any vote survives changes when all votes are shifted"
        elif not near(one + by, other, 1.0):
            yield f"when all votes are shifted alike, its answer is {distance(one + by, other):.3g} from there"


def _scales(bench: Bench) -> Iterator[str]:
    for votes in (honest(), attacked(3, 1.0)):
        for by in (np.float32(0.25), np.float32(8.0)):
            one, other = bench.once(votes).vector, bench.once({agent: row * by for agent, row in votes.items()}).vector
            if one is None or other is None:
                if one is not other:
                    yield f"whether any vote survives changes when all votes are scaled by {by:g}"
            elif not near(one * by, other, float(by)):
                yield f"when all votes are scaled by {by:g}, its answer is {distance(one * by, other):.3g} from there"


def _restarts(bench: Bench) -> Iterator[str]:
    """Each round by a new object whose memory comes out of a store, beside one that lives on."""
    lasting, memory = bench.build(), dict[str, Vector]()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, ROUNDS + 1):
            votes = votes_of(attacked(2, 1.0, round_number=number), round_number=number)
            stayed = run(lasting, votes, memory)
            stored = _stored(Path(folder) / f"{number}.sqlite", memory)
            restarted = run(bench.build(), votes, stored)
            if bits(stayed) != bits(restarted):
                yield f"in round {number} a restarted server answers differently"
            memory = dict(stayed.memory)


def _stored(path: Path, memory: Memory) -> dict[str, Vector]:
    """The memory as it comes out of a run's store."""
    state = fresh(np.zeros(1, np.float32)).with_memory(AGGREGATOR, memory)
    Store.create(path, "check", "", state).close()
    with Store.read(path) as store:
        return store.latest_state()[1].memory(AGGREGATOR)


def _cost(bench: Bench, agents: int, size: int, patience: Patience) -> Check:
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
    before_mb = peak_mb()
    start_s = time.process_time()
    check = run_one(promise, lambda: iter(_round(bench, votes)), patience)
    if not check.kept:
        return check
    spent_s, grown_mb = time.process_time() - start_s, max(0.0, peak_mb() - before_mb)
    detail = f"{spent_s:.2f} s of processor time, {grown_mb:,.0f} MB more"
    too_much = [f"more than {SECONDS_MAX:g} s"] * (spent_s > SECONDS_MAX)
    too_much += [f"more than {MEMORY_MAX_MB:,.0f} MB"] * (grown_mb > MEMORY_MAX_MB)
    return Check(check.promise, not too_much, ", ".join([detail, *too_much]))


def _round(bench: Bench, votes: Votes) -> list[str]:
    run(bench.build(), votes, {})
    return []
