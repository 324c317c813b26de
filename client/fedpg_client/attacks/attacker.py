"""An attack as one agent carries it out: which, when, and with whom."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from fedpg_common.checks import show
from fedpg_common.choices import Choice
from fedpg_common.derived_seeds import attackers_seed, secretless
from fedpg_common.errors import UsageError
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.streams import Purpose, Role, stream
from fedpg_common.shipped import ATTACKS

from fedpg_client.attacks.base import HONEST, Attack, Context, Knowledge
from fedpg_client.attacks.following import Following
from fedpg_client.attacks.omniscience import foresee
from fedpg_client.attacks.protocol.base import ProtocolAttack
from fedpg_client.attacks.schedule import ALWAYS, FOLLOW, Schedule, take_follow, take_schedule
from fedpg_client.attacks.shared import SharedSearches

log = logging.getLogger(__name__)


class Pool(Protocol):
    """Where the attackers that collude put their gradients together."""

    def exchange(self, round_number: int, gradient: Vector) -> Mapping[int, Vector]:
        """Contribute this attacker's gradient (d,); the gradients that have arrived in time, by agent, ascending."""
        ...

    def contribute(self, round_number: int, gradient: Vector) -> None:
        """Contribute this attacker's gradient (d,) and do not wait for the others'."""
        ...


@dataclass(frozen=True)
class Attacker:
    """What an agent does otherwise than the protocol asks. By default nothing: it is honest."""

    attack: Attack = HONEST
    schedule: Schedule = ALWAYS
    attackers: tuple[int, ...] = ()
    """Who colludes, this agent included; empty where nobody does."""
    secret: str = ""
    """What they share; "" for none. Their common stream follows from it."""
    pool: Pool | None = None
    """Where they meet; None for an attacker without others."""
    run_seed: int | None = None
    """For an omniscient attack."""
    aggregator: Choice | None = None
    """The server's rule, for an attack that colludes."""
    searches: SharedSearches = field(default_factory=SharedSearches, compare=False)
    """Those of the attackers in this process."""
    following: Following | None = field(default=None, compare=False)
    """Of attackers that follow what the server's rule remembers."""

    def in_round(self, round_number: int) -> Attack:
        """The attack, or an honest agent in a round without it."""
        return self.attack if self.schedule.is_active(round_number) else HONEST

    def common_stream(self, agent: int, round_number: int) -> np.random.Generator:
        """A copy of the round's stream that the attackers have in common."""
        secret = self.secret or secretless(self.attackers or (agent,))
        return stream(attackers_seed(secret), Role.ATTACKERS, Purpose.ATTACK, round_number=round_number)

    def agree(self, gradient: Vector, context: Context) -> Vector:
        """What to submit, shape (d,), in place of the `gradient` that the agent would submit on its own.

        In a round in which it does not attack, it submits that, and lets the others have it all the same.
        """
        if self.attack.knowledge < Knowledge.COLLUDERS:
            return gradient
        is_omniscient = self.attack.knowledge >= Knowledge.OMNISCIENT
        if self.following is not None:
            return self._follow(self.following, gradient, context)
        if not self.schedule.is_active(context.round_number):
            if self.pool is not None and not is_omniscient:  # an omniscient attacker can do without
                self.pool.contribute(context.round_number, gradient)
            return gradient
        if is_omniscient:
            return self.searches.collude(self.attack, *foresee(self.pool, gradient, context))
        pooled = {context.agent: gradient}
        if self.pool is not None:
            # What this agent contributes stands, also where the pool has kept what it had sent before a restart.
            pooled = {**pooled, **self.pool.exchange(context.round_number, gradient)}
        return self.searches.collude(self.attack, dict(sorted(pooled.items())), context)

    def looks_at(self, round_number: int) -> bool:
        """Whether an omniscient attacker recomputes the honest gradients of a round: where it attacks, or follows."""
        return self.following is not None or self.schedule.is_active(round_number)

    def _follow(self, following: Following, gradient: Vector, context: Context) -> Vector:
        """As `agree`; the rule is followed also in rounds without attack."""
        pooled, context = foresee(self.pool, gradient, context)
        context = replace(context, rule_memory=following.memory_before(context.round_number))
        if not self.schedule.is_active(context.round_number):
            following.see(pooled, context, None)
            return gradient
        submitted = self.searches.collude(self.attack, pooled, context)
        following.see(pooled, context, submitted)
        return submitted


def build_attacker(choice: Choice | None) -> Attacker:
    """The attacker that a description names; None for an honest agent. With whom it colludes is still to be added.

    Raises UsageError for an attack or a setting that is not one.
    """
    if choice is None:
        return Attacker()
    try:
        schedule, own = take_schedule(choice.settings)
        follows, own = take_follow(own)
    except ValueError as error:
        raise UsageError(f"attack {choice.name}: {error}") from error
    attack = ATTACKS.build(replace(choice, settings=own))
    if not isinstance(attack, Attack):
        raise UsageError(f"attack {choice.name}: {show(type(attack).__name__)} is not a subclass of Attack")
    if isinstance(attack, ProtocolAttack) and schedule != ALWAYS:
        raise UsageError(f"attack {choice.name}: it is on the protocol and has no rounds: leave out its schedule")
    if follows and not can_follow(attack):
        raise UsageError(
            f"attack {choice.name}: only omniscient attackers that try the server's rule, and all submit the same, can "
            f"follow what it remembers: leave out {FOLLOW}"
        )
    return Attacker(attack, schedule, following=Following() if follows else None)


def can_follow(attack: Attack) -> bool:
    """Whether an attack makes use of what the server's rule remembers, and knows what all attackers submit."""
    return attack.knowledge >= Knowledge.OMNISCIENT and attack.tries_rule and attack.unanimous


def knowledge_of(choice: Choice | None) -> Knowledge:
    """How much an attack has to know. Raises UsageError as `build_attacker` does."""
    return build_attacker(choice).attack.knowledge
