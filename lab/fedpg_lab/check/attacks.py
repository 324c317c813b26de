"""The conformance kit for attacks: whether one keeps the promises that the rest of the system leans on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from fedpg_client.attacks import Attack, Knowledge, build_attacker
from fedpg_client.attacks.protocol import ProtocolAttack
from fedpg_client.attacks.schedule import SETTINGS as SCHEDULE
from fedpg_common.choices import Choice
from fedpg_common.errors import UsageError
from fedpg_common.learning.parameters import Vector
from fedpg_common.others_code import place, raise_if_ours, reason

from fedpg_lab.check.patience import ATTACK_MAX_S, NoAnswerError, Patience
from fedpg_lab.check.stage import ATTACKERS, SEED, Stage, continuous_task, discrete_task, is_submittable

ROUNDS = (1, 2, 3)
LATE_ROUND = 3
"""In the check of its schedule, the attack starts here."""
ROUND_CPU_MAX_S = 10.0
"""Processor time of three attackers in one round of a small task, of which honest work takes some hundredths."""

Submitted = Mapping[int, Vector]


@dataclass(frozen=True)
class Check:
    """One promise, and whether it is kept."""

    promise: str
    kept: bool
    detail: str = ""
    """What was seen instead; where it is kept, what is worth knowing."""
    is_last: bool = False
    """Whether the part did not answer at all, so that nothing else was tested."""


def check_attack(choice: Choice, patience: Patience | None = None) -> list[Check]:
    """Put an attack to the test. An attack that fails in a hook has its exception's text in the detail.

    A test that does not end is the last.

    Raises UsageError for an attack or a setting that is not one.
    """
    attack = build_attacker(choice).attack
    choice = _without_schedule(choice)
    knowledge = attack.knowledge
    with Stage(discrete_task()) as discrete, Stage(continuous_task()) as continuous:
        stages = (discrete, continuous)
        tests: list[tuple[str, Callable[[], Iterator[str]]]] = [
            ("submits finite float32 vectors of shape (d,)", lambda: _submittable(choice, stages)),
            ("leaves what it is given as it is", lambda: _unchanged(choice, stages)),
            ("does the same in a round that is repeated, also after a restart", lambda: _repeatable(choice, stages)),
            ("does without the other attackers if they do not come", lambda: _alone(choice, stages)),
            ("takes a bounded time", lambda: _quick(choice, stages)),
        ]
        if not isinstance(attack, ProtocolAttack):
            tests.append(("is honest outside its schedule", lambda: _honest_until(choice, stages)))
        if attack.unanimous:
            tests.append(("all attackers that collude submit the same vector", lambda: _unanimous(choice, stages)))
        if knowledge < Knowledge.OMNISCIENT:
            tests.append(
                (f"does with the knowledge that it declares ({knowledge.name})", lambda: _humble(choice, stages))
            )
        if not isinstance(attack, ProtocolAttack):
            tests.append(("changes what is submitted", lambda: _harmful(choice, stages)))
        return run_all(tests, patience or Patience(ATTACK_MAX_S))


def run_all(tests: Sequence[tuple[str, Callable[[], Iterator[str]]]], patience: Patience) -> list[Check]:
    """The checks of these promises, of which each test yields complaints; none follow one that does not answer."""
    checks: list[Check] = []
    for promise, test in tests:
        checks.append(run_one(promise, test, patience))
        if checks[-1].is_last:
            break
    return checks


def run_one(promise: str, test: Callable[[], Iterator[str]], patience: Patience) -> Check:
    """A check of which the first complaint is kept. Whatever a part of somebody's own raises is a complaint."""
    try:
        with patience.watched(promise):
            complaint = next(test(), "")
    except NoAnswerError as error:
        return Check(promise, False, f"{error}{place(error)}: nothing else was tested", is_last=True)
    except UsageError as error:
        complaint = str(error).partition("failed: ")[2] or str(error)
    except BaseException as error:  # it may raise anything, and end the process
        raise_if_ours(error)
        complaint = f"{reason(error)}{place(error)}"
    return Check(promise, not complaint, complaint)


def _without_schedule(choice: Choice) -> Choice:
    return Choice(choice.name, {name: value for name, value in choice.settings.items() if name not in SCHEDULE})


def _run_seed(choice: Choice) -> int | None:
    return SEED if build_attacker(choice).attack.knowledge >= Knowledge.OMNISCIENT else None


def _play(stage: Stage, choice: Choice, round_number: int, alone: bool = False) -> Submitted:
    """A round of attackers that have just been started."""
    return stage.play(stage.attackers(choice, _run_seed(choice)), round_number, alone)


def _submittable(choice: Choice, stages: tuple[Stage, ...], alone: bool = False) -> Iterator[str]:
    for stage in stages:
        size = stage.policy.spec.size
        for round_number in ROUNDS:
            for agent, vector in _play(stage, choice, round_number, alone).items():
                if not is_submittable(vector, size):
                    yield f"{stage.task.name}, round {round_number}, agent {agent}: {_described(vector)}, d = {size}"


def _described(vector: object) -> str:
    if not isinstance(vector, np.ndarray):
        return f"a {type(vector).__name__}"
    finite = "" if not np.issubdtype(vector.dtype, np.floating) or np.isfinite(vector).all() else ", not finite"
    return f"{vector.dtype} of shape {vector.shape}{finite}"


def _unchanged(choice: Choice, stages: tuple[Stage, ...]) -> Iterator[str]:
    for stage in stages:
        _play(stage, choice, 1)  # raises ChangedInputError
    yield from ()


def _repeatable(choice: Choice, stages: tuple[Stage, ...]) -> Iterator[str]:
    for stage in stages:
        lasting = stage.attackers(choice, _run_seed(choice))
        first = {number: stage.play(lasting, number) for number in ROUNDS}
        for number in reversed(ROUNDS):
            for how, again in (("repeated", stage.play(lasting, number)), ("restarted", _play(stage, choice, number))):
                yield from _differences(f"{stage.task.name}, round {number} {how}", first[number], again)


def _differences(where: str, one: Submitted, other: Submitted) -> Iterator[str]:
    for agent in one:
        if one[agent].tobytes() != other[agent].tobytes():
            yield f"{where}: agent {agent} submits another vector"


def _alone(choice: Choice, stages: tuple[Stage, ...]) -> Iterator[str]:
    yield from _submittable(choice, stages, alone=True)


def _quick(choice: Choice, stages: tuple[Stage, ...]) -> Iterator[str]:
    for stage in stages:
        before_s = time.process_time()
        _play(stage, choice, 1)
        spent_s = time.process_time() - before_s
        if spent_s > ROUND_CPU_MAX_S:
            yield f"{stage.task.name}: {spent_s:.1f} s of processor time for a round, more than {ROUND_CPU_MAX_S:.0f}"


def _honest_until(choice: Choice, stages: tuple[Stage, ...]) -> Iterator[str]:
    late = choice.with_settings({"starts_at": LATE_ROUND})
    for stage in stages:
        attackers = stage.attackers(late, _run_seed(choice))
        for number in (LATE_ROUND, LATE_ROUND - 1, LATE_ROUND + 1, 1):
            honest = stage.play(stage.attackers(None), number)
            submitted = stage.play(attackers, number)
            if number < LATE_ROUND:
                yield from _differences(f"{stage.task.name}, round {number}, before it starts", honest, submitted)


def _unanimous(choice: Choice, stages: tuple[Stage, ...]) -> Iterator[str]:
    for stage in stages:
        for number in ROUNDS:
            different = {vector.tobytes() for vector in _play(stage, choice, number).values()}
            if len(different) > 1:
                yield f"{stage.task.name}, round {number}: {len(ATTACKERS)} attackers submit {len(different)} vectors"


def _humble(choice: Choice, stages: tuple[Stage, ...]) -> Iterator[str]:
    attack = build_attacker(choice).attack
    if attack.knowledge < Knowledge.COLLUDERS and type(attack).collude is not Attack.collude:
        yield "it overrides collude, which is not called: declare knowledge = Knowledge.COLLUDERS"
    for stage in stages:
        stage.play(stage.attackers(choice, run_seed=None), 1)


def _harmful(choice: Choice, stages: tuple[Stage, ...]) -> Iterator[str]:
    for stage in stages:
        for number in ROUNDS:
            honest, submitted = stage.play(stage.attackers(None), number), _play(stage, choice, number)
            if any(True for _ in _differences("", honest, submitted)):
                return
    yield "whoever makes it submits what an honest agent does, on both tasks"
