"""Attackers that collude within a process: each round they sample first, and then they all meet.

On a network each waits for the others on their own channel. Here nobody waits: what each attacker would bring along is
computed before the first of them asks for it. The attack itself, and what it is told, is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from fedpg_client.attacks import Attacker, Context, Knowledge
from fedpg_client.attacks.omniscience import contribution
from fedpg_common.learning.parameters import Vector

from fedpg_lab.local.failures import agent_named


@dataclass
class Meeting:
    """The attackers' channel, in which everything has arrived; see `fedpg_client.attacks.Pool`."""

    contributions: Mapping[int, Vector]
    """What each attacker brings along, by agent, ascending."""

    def exchange(self, round_number: int, gradient: Vector) -> Mapping[int, Vector]:
        """Everybody's contribution."""
        return self.contributions

    def contribute(self, round_number: int, gradient: Vector) -> None:
        """It is there already."""


@dataclass(frozen=True)
class Sampling(Attacker):
    """An attacker before the meeting: what it would submit on its own is noted, and not agreed upon yet."""

    noted: dict[int, tuple[Vector, Context]] = field(default_factory=dict)
    """By agent: the gradient (d,), and the round as the attacker sees it."""

    def agree(self, gradient: Vector, context: Context) -> Vector:
        """See `Attacker`."""
        self.noted[context.agent] = gradient, context
        return gradient


@dataclass
class Colluders:
    """The agents that carry out one attack together."""

    attacker: Attacker
    """As each of them is, but for where they meet."""
    sampling: Sampling = field(init=False)
    """For their workers."""

    def __post_init__(self) -> None:
        """The same attack, for the time before the meeting."""
        own = {name: getattr(self.attacker, name) for name in Attacker.__dataclass_fields__}
        self.sampling = Sampling(**own)

    def meet(self, recall: Callable[[int, Context], Vector]) -> dict[int, Vector]:
        """What each of them submits, (d,), after all have sampled.

        `recall` gives what an agent submits in that round if it is honest, as the attacker in this context would
        recompute it.
        """
        noted = {}
        for agent, (gradient, context) in sorted(self.sampling.noted.items()):
            noted[agent] = gradient, _recalling(context, recall)
        self.sampling.noted.clear()
        knows_all = self.attacker.attack.knowledge >= Knowledge.OMNISCIENT
        looks = any(self.attacker.looks_at(context.round_number) for _, context in noted.values())
        brought = {
            agent: contribution(gradient, context) if knows_all and looks else gradient
            for agent, (gradient, context) in noted.items()
        }
        attacker = replace(self.attacker, pool=Meeting(brought) if len(noted) > 1 else None)
        agreed = {}
        for agent, (gradient, context) in noted.items():
            with agent_named(agent):
                agreed[agent] = attacker.agree(gradient, context)
        return agreed


def _recalling(context: Context, recall: Callable[[int, Context], Vector]) -> Context:
    if context.recompute is None:
        return context
    return replace(context, recompute=lambda agent: recall(agent, context))
