"""An attack of somebody's own may raise anything: one sentence then tells which attack it was, and where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fedpg_common.choices import Choice
from fedpg_common.errors import FedPGError, UsageError
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.policies import Actor
from fedpg_common.learning.trajectories import Trajectories
from gymnasium.spaces import Box, Discrete

from fedpg_client.attacks.attacker import Attacker, build_attacker
from fedpg_client.attacks.base import Attack, Choose, Context, Target

if TYPE_CHECKING:
    from fedpg_client.attacks.base import ClosableCalls


class Reported(Attack):
    """An attack whose failures are a UsageError that names it."""

    _name: str
    _attack: Attack

    def calls(self, line: ClosableCalls, target: Target) -> ClosableCalls:
        """See `Attack`."""
        with self._told("calls"):
            return self._attack.calls(line, target)

    def choose(self, actor: Actor, action_space: Discrete[Any] | Box, context: Context) -> Choose:
        """See `Attack`."""
        with self._told("choose"):
            choose = self._attack.choose(actor, action_space, context)

        def told(observations: Any) -> Any:
            with self._told("choose"):
                return choose(observations)

        return told

    def tamper_trajectories(self, trajectories: Trajectories, context: Context) -> Trajectories:
        """See `Attack`."""
        with self._told("tamper_trajectories"):
            return self._attack.tamper_trajectories(trajectories, context)

    def tamper_gradient(self, gradient: Vector, context: Context) -> Vector:
        """See `Attack`."""
        with self._told("tamper_gradient"):
            return self._attack.tamper_gradient(gradient, context)

    def collude(self, pooled: Mapping[int, Vector], context: Context) -> Vector:
        """See `Attack`."""
        with self._told("collude"):
            return self._attack.collude(pooled, context)

    @contextmanager
    def _told(self, hook: str) -> Iterator[None]:
        try:
            yield
        except FedPGError:
            raise
        except Exception as error:  # it is somebody's own
            what = " ".join(f"{type(error).__name__}: {error}".split())
            raise UsageError(f"attack {self._name} failed in {hook}: {what}") from error


def reported(attack: Attack, name: str) -> Attack:
    """The attack, with failures that name it."""
    # How much it has to know is said by its class, and not by the instance.
    declared = {name: getattr(attack, name) for name in ("knowledge", "tries_rule", "unanimous", "casts_vote")}
    wrapped: Reported = type("Reported", (Reported,), declared)()
    wrapped._name, wrapped._attack = name, attack
    return wrapped


def build_reported(choice: Choice | None) -> Attacker:
    """As `build_attacker`; an attack of somebody's own is one that is reported."""
    attacker = build_attacker(choice)
    if choice is None or ":" not in choice.name:
        return attacker
    return replace(attacker, attack=reported(attacker.attack, choice.name))
