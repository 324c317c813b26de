"""`fedpg check` on attacks: those of FedPG and the examples keep all promises, and a broken one is caught."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fedpg_common.choices import Choice
from fedpg_common.errors import UsageError
from fedpg_lab.check.attacks import check_attack
from support.attacks import ON_THE_LEARNING, ON_THE_PROTOCOL

EXAMPLES = Path(__file__).parents[2] / "examples" / "extending"

HEADER = """
from collections.abc import Mapping
import numpy as np
from fedpg_client.attacks import Attack, Context, Knowledge

calls = 0

class Broken(Attack):
"""

BROKEN = {
    "submits finite": [
        "    def tamper_gradient(self, gradient, context):\n        return gradient * np.nan",
        "    def tamper_gradient(self, gradient, context):\n        return gradient.astype(np.float64)",
        "    def tamper_gradient(self, gradient, context):\n        return gradient[:-1]",
        "    def tamper_gradient(self, gradient, context):\n        return gradient[None]",
        "    def tamper_gradient(self, gradient, context):\n        return None",
        "    def tamper_gradient(self, gradient, context):\n        raise RuntimeError('no\\nluck')",
    ],
    "leaves what it is given": [
        "    def tamper_gradient(self, gradient, context):\n        gradient *= -1\n        return gradient",
        "    def tamper_gradient(self, gradient, context):\n        gradient[0] = 7\n        return -gradient",
        "    def tamper_trajectories(self, trajectories, context):\n"
        "        trajectories.rewards[:] = trajectories.rewards[::-1].copy() + 1\n        return trajectories",
        "    knowledge = Knowledge.COLLUDERS\n"
        "    def collude(self, pooled, context):\n"
        "        pooled[context.agent] *= -2\n        return pooled[context.agent].copy()",
        "    knowledge = Knowledge.COLLUDERS\n"
        "    def collude(self, pooled, context):\n        return -pooled.pop(context.agent)",
    ],
    "does the same in a round": [
        "    def tamper_gradient(self, gradient, context):\n"
        "        return gradient + np.random.standard_normal(len(gradient)).astype(np.float32)",
        "    def __init__(self):\n        self.rounds = 0\n"
        "    def tamper_gradient(self, gradient, context):\n"
        "        self.rounds += 1\n        return gradient * np.float32(1 + self.rounds)",
        "    def tamper_gradient(self, gradient, context):\n"
        "        global calls\n        calls += 1\n        return gradient * np.float32(1 + calls)",
    ],
    "does without the other attackers": [
        "    knowledge = Knowledge.COLLUDERS\n"
        "    def collude(self, pooled, context):\n        return -sum(pooled[agent] for agent in context.attackers)",
    ],
    "all attackers that collude submit the same": [
        "    knowledge = Knowledge.COLLUDERS\n    unanimous = True\n"
        "    def collude(self, pooled, context):\n        return -pooled[context.agent]",
        "    knowledge = Knowledge.COLLUDERS\n    unanimous = True\n"
        "    def collude(self, pooled, context):\n"
        "        return context.rng.standard_normal(len(pooled[context.agent])).astype(np.float32)",
    ],
    "does with the knowledge": [
        "    def tamper_gradient(self, gradient, context):\n        return gradient * np.float32(context.run_seed + 2)",
        "    def collude(self, pooled, context):\n        return -pooled[context.agent]",
    ],
    "changes what is submitted": ["    pass"],
}


def failures(choice: Choice) -> dict[str, str]:
    """The promises that are not kept, and why."""
    return {check.promise: check.detail for check in check_attack(choice) if not check.kept}


@pytest.mark.parametrize("name", [*ON_THE_LEARNING, *ON_THE_PROTOCOL])
def test_the_attacks_that_come_with_fedpg_keep_every_promise(name: str) -> None:
    assert failures(Choice(name)) == {}


@pytest.mark.parametrize(
    "choice",
    [
        Choice("orthogonal:Orthogonal"),
        Choice("orthogonal:Orthogonal", {"length": 3, "starts_at": 500}),
        Choice("alie:ALIE"),
        Choice("alie:ALIE", {"z": 1.5, "on": 1, "off": 2}),
    ],
    ids=lambda choice: choice.label,
)
def test_the_examples_keep_every_promise(monkeypatch: pytest.MonkeyPatch, choice: Choice) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    assert failures(choice) == {}


@pytest.mark.parametrize(
    ("promise", "body"), [(promise, body) for promise, bodies in BROKEN.items() for body in bodies]
)
def test_an_attack_that_breaks_a_promise_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, promise: str, body: str
) -> None:
    (tmp_path / "broken_attack.py").write_text(HEADER + body + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        found = failures(Choice("broken_attack:Broken"))
    finally:
        sys.modules.pop("broken_attack", None)
    assert any(broken.startswith(promise) for broken in found), found
    assert all(why and "\n" not in why for why in found.values())


def test_what_is_not_an_attack_is_refused_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "no_attack.py").write_text("class Other:\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, sentence in (
        ("no_attack:Other", "is not a subclass of Attack"),
        ("no_attack:Missing", "no_attack has no class Missing"),
        ("no_such_module:Other", "no_such_module cannot be imported"),
    ):
        with pytest.raises(UsageError, match=sentence):
            check_attack(Choice(name))
    sys.modules.pop("no_attack", None)
