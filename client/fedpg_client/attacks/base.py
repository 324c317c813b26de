"""What an attack is: an honest agent of which some part is otherwise.

An attack is a subclass of `Attack` that overrides the hook for what it tampers with. Its settings go to the
constructor, which checks them and raises ValueError with one sentence. It keeps nothing from one round to the next, so
that an agent that was started again does in a round what it would have done:

    class Inflated(Attack):
        '''Submits its gradient, enlarged.'''

        def __init__(self, factor: float = 10.0) -> None:
            self._factor = checked_number("factor", factor, 0.0, 1e6)

        def tamper_gradient(self, gradient: Vector, context: Context) -> Vector:
            return to_finite_float32(self._factor * gradient.astype(np.float64))

It is chosen as `attack = "my_attacks:Inflated"`. When it attacks (`starts_at`, `ends_at`, `on`, `off`) is not its own
business, nor is whether it follows what the server's rule remembers (`follow`): see `fedpg_client.attacks.schedule`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from fedpg_common.checks import is_number, show
from fedpg_common.choices import Choice
from fedpg_common.learning.aggregators import Memory
from fedpg_common.learning.parameters import ParameterSpec, Vector
from fedpg_common.learning.policies import Actor, Policy
from fedpg_common.learning.trajectories import Trajectories
from fedpg_common.tasks import Task
from fedpg_common.transport.channels import TlsFiles
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fedpg_client.calls import Calls

    class ClosableCalls(Calls, Protocol):
        """An agent's calls, and an end to them."""

        def close(self) -> None:
            """Close the connections."""


Choose = Callable[[NDArray[np.float32]], NDArray[Any]]
"""Maps observations (n, D) to one action per row."""


class Knowledge(IntEnum):
    """How much an attack has to know. Each level includes those before it."""

    OWN = 0
    """What the agent itself samples and computes, and what the server tells every agent."""
    COLLUDERS = 1
    """In addition the gradients of the attackers that collude with it, and a random stream in common with them."""
    OMNISCIENT = 2
    """In addition the run's seed, from which every honest agent's gradient can be recomputed."""


@dataclass(frozen=True, eq=False)
class Context:
    """What an attack may use in one round, beside what its hook is given. Nothing in it is to be changed."""

    agent: int
    """The attacker's own index, 1 to K."""
    agents: int
    """K."""
    attackers: tuple[int, ...]
    """The attackers that collude, ascending, this one included. Of an attack that does not collude: this one alone."""
    round_number: int
    batch_size: int
    """B_t, the trajectories that each agent samples in this round."""
    task: Task
    policy: Policy
    theta: Vector
    """The round's parameters θ_0, shape (d,)."""
    actions: np.random.Generator
    """The stream from which an honest agent draws its actions, and nothing else."""
    rng: np.random.Generator
    """This attacker's own stream for the attack. Each round has another, and the same when it is repeated."""
    common: np.random.Generator
    """The round's stream of the attackers that collude: each of them draws the same numbers from its own copy."""
    run_seed: int | None = None
    """For an omniscient attack alone."""
    recompute: Callable[[int], Vector] | None = None
    """What an agent submits in this round if it is honest, shape (d,), by its index: the whole work of that agent's
    round, done here from the run's seed. For an omniscient attack alone."""
    honest: Mapping[int, Vector] = field(default_factory=dict)
    """What each agent outside `attackers` submits if it is honest, (d,) by index, ascending: what the attackers have
    recomputed, each its share. In `collude` of an omniscient attack alone; empty otherwise."""
    aggregator: Choice | None = None
    """The server's rule, for an attack that colludes; None if the attacker was not told."""
    rule_memory: Memory = field(default_factory=dict)
    """What that rule remembers of the rounds before, as far as attackers know that follow it (`following`). In
    `collude` of an omniscient attack alone; empty otherwise."""

    @property
    def tensors(self) -> ParameterSpec:
        """Where each tensor lies in the vector."""
        return self.policy.spec


@dataclass(frozen=True)
class Target:
    """Who attacks the protocol, and of which server."""

    index: int
    """The agent's own."""
    address: str
    """The server's HOST:PORT."""
    tls: TlsFiles | None = None


class Attack:
    """An honest agent. An attack overrides the hook that it tampers with.

    A round calls the hooks in the order in which they stand here, each once. Where an agent samples two batches
    (Res-NHARPG), `choose` and `tamper_trajectories` are called for either: last for the one at θ_0, and before for
    the other, whose parameters stand in `context.theta`.
    """

    knowledge: ClassVar[Knowledge] = Knowledge.OWN
    """What it has to know. `collude` is called where that is COLLUDERS or more."""
    searches: ClassVar[bool] = False
    """Whether `collude` is a search that follows from its arguments and the settings alone: done once per process."""
    tries_rule: ClassVar[bool] = False
    """Whether `collude` runs the server's rule on candidates: such an attack can follow what the rule remembers."""
    unanimous: ClassVar[bool] = False
    """Whether all that collude submit the same vector. A promise, which `fedpg check` puts to the test."""
    casts_vote: ClassVar[bool] = True
    """Whether the agent votes, honestly or not. Without, its rounds close at their deadline."""

    def calls(self, line: ClosableCalls, target: Target) -> ClosableCalls:
        """The calls that the agent makes, in place of the honest `line`, which somebody else closes."""
        return line

    def choose(self, actor: Actor, action_space: Discrete[Any] | Box, context: Context) -> Choose:
        """How the agent acts. Actions are as `Actor` has them: of a Discrete space counted from 0, of a Box flat."""
        return lambda observations: actor.sample(observations, context.actions)

    def tamper_trajectories(self, trajectories: Trajectories, context: Context) -> Trajectories:
        """The trajectories of which the gradient is computed. Those given are not to be changed."""
        return trajectories

    def tamper_gradient(self, gradient: Vector, context: Context) -> Vector:
        """The vector that the agent would submit on its own, shape (d,), float32 and finite."""
        return gradient

    def collude(self, pooled: Mapping[int, Vector], context: Context) -> Vector:
        """The vector that the agent submits, shape (d,), float32 and finite, having met the other attackers.

        `pooled` has what each attacker would have submitted on its own, by agent index, ascending. This one's is always
        among them; another's is missing if it has not arrived in time. (An omniscient attacker has recomputed it.)
        """
        return pooled[context.agent]


HONEST = Attack()


def to_finite_float32(vector: NDArray[np.float64]) -> Vector:
    """The nearest float32 vector that the server would not refuse as not finite."""
    largest = np.finfo(np.float32).max
    return np.clip(vector, -largest, largest).astype(np.float32)


def checked_number(name: str, value: object, low: float, high: float) -> float:
    """A setting that must be a number from `low` to `high`. Raises ValueError otherwise."""
    if not (is_number(value) and low <= value <= high):
        raise ValueError(f"{name} must be a number from {low:g} to {high:g}, not {show(value)}")
    return float(value)
