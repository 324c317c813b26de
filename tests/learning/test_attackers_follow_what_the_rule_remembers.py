"""Attackers that follow the server's rule know what it remembers, bit for bit, and try their vectors on that."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fedpg_client.attacks import Attacker, Context, build_attacker
from fedpg_client.attacks.searches import ascent, harm
from fedpg_common.choices import Choice
from fedpg_common.errors import UsageError
from fedpg_common.learning.aggregators import Memory, RoundPlan, Votes, build_aggregator
from fedpg_common.learning.parameters import Vector
from support.attacks import context
from support.scenes import scene, vectors

AGENTS, ATTACKERS, ROUNDS = 10, (1, 2, 3), 9
RULES = (
    Choice("history"),
    Choice("centered-clipping", {"momentum": 0.9}),
    Choice("median", {"after": ["momentum"]}),
    Choice("median"),
)


class Run:
    """Rounds of a federation whose first agents carry out one attack, without environments."""

    def __init__(self, rule: Choice, attack: str = "worst-down", **settings: Any) -> None:
        """Each attacker has a process of its own."""
        self.rule = rule
        self.attackers = {agent: self.new_attacker(attack, **settings) for agent in ATTACKERS}
        self.memory: Memory = {}

    def new_attacker(self, attack: str, **settings: Any) -> Attacker:
        """One that has seen nothing."""
        return replace(build_attacker(Choice(attack, settings)), attackers=ATTACKERS, run_seed=1, aggregator=self.rule)

    def honest(self, number: int) -> list[Vector]:
        """What each agent submits if it is honest: near a mean of length 0.02, as on CartPole."""
        rng = np.random.default_rng(number)
        return vectors((0.02 * np.eye(20)[0]) + 0.03 * rng.standard_normal((AGENTS, 20)) / np.sqrt(20.0))

    def context(self, agent: int, number: int) -> Context:
        """The round as an attacker sees it."""
        honest = self.honest(number)
        plain = context(agent=agent, agents=AGENTS, attackers=ATTACKERS, round_number=number, aggregator=self.rule)
        return replace(plain, run_seed=1, recompute=lambda other: honest[other - 1])

    def play(self, number: int) -> list[Vector]:
        """What is submitted in the round; the server's rule then remembers it."""
        votes = self.honest(number)
        for agent, attacker in self.attackers.items():
            votes[agent - 1] = attacker.agree(votes[agent - 1], self.context(agent, number))
        self.memory = self.remembered(votes, number)
        return votes

    def remembered(self, votes: Sequence[Vector], number: int) -> Memory:
        """What the server's rule remembers of its memory and these votes."""
        plain = self.context(1, number)
        plan = RoundPlan(number, plain.batch_size, inner_steps=3)
        server = votes[-1]  # some gradient of its own, which these rules do not look at
        all_agents = tuple(range(1, AGENTS + 1))
        given = Votes(all_agents, np.stack(votes), AGENTS, plan, plain.task, server_gradient=server)
        return build_aggregator(self.rule).aggregate(given, self.memory).memory

    def believed(self, agent: int, number: int) -> Memory:
        """What the attacker believes the rule to remember before that round."""
        following = self.attackers[agent].following
        assert following is not None
        return following.memory_before(number)


def as_bytes(memory: Memory) -> dict[str, bytes]:
    return {name: vector.tobytes() for name, vector in memory.items()}


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("schedule", [{}, {"starts_at": 4}, {"on": 2, "off": 1}], ids=str)
def test_what_they_believe_is_what_the_server_stores(rule: Choice, schedule: dict[str, Any]) -> None:
    run = Run(rule, follow=True, **schedule)
    for number in range(1, ROUNDS + 1):
        run.play(number)
    for agent in ATTACKERS:
        assert as_bytes(run.believed(agent, ROUNDS + 1)) == as_bytes(run.memory)


def test_all_attackers_submit_the_same_and_are_honest_where_they_do_not_attack() -> None:
    run = Run(RULES[0], follow=True, starts_at=3)
    for number in range(1, 6):
        submitted, honest = run.play(number), run.honest(number)
        if number < 3:
            assert [vote.tobytes() for vote in submitted] == [vote.tobytes() for vote in honest]
        else:
            assert len({submitted[agent - 1].tobytes() for agent in ATTACKERS}) == 1


@pytest.mark.parametrize("rule", RULES[:3], ids=str)
def test_they_do_more_harm_to_the_rule_as_it_stands_than_who_tries_an_empty_memory(rule: Choice) -> None:
    run = Run(rule, follow=True)
    stranger = Run(rule)
    harms: dict[str, list[float]] = {"following": [], "stranger": []}
    for number in range(1, ROUNDS + 1):
        memory = run.memory
        strangers = stranger.attackers[1].agree(run.honest(number)[0], run.context(1, number))
        ours = run.play(number)[0]
        honest = {agent: run.honest(number)[agent - 1] for agent in range(1, AGENTS + 1)}
        pooled = {agent: honest.pop(agent) for agent in ATTACKERS}
        seen = scene(pooled, replace(run.context(1, number), honest=honest, rule_memory=memory))
        value = harm(seen, ascent)
        harms["following"].append(value(ours.astype(np.float64)))
        harms["stranger"].append(value(strangers.astype(np.float64)))
        if number == 1:
            assert ours.tobytes() == strangers.tobytes() or harms["following"] == pytest.approx(harms["stranger"])
    # Not in each round: both look along the same directions, and stop at the edge that they find first.
    assert sum(harms["following"][1:]) > sum(harms["stranger"][1:])


def test_who_has_not_seen_the_rounds_before_says_so_and_attacks_on_an_empty_memory(
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = Run(RULES[0], follow=True)
    for number in range(1, 4):
        run.play(number)
    run.attackers[2] = run.new_attacker("worst-down", follow=True)
    with caplog.at_level(logging.WARNING):
        submitted = run.play(4)
    assert "round 4: this attacker has not seen the rounds before it" in caplog.text
    stranger = Run(RULES[0]).attackers[2].agree(run.honest(4)[1], run.context(2, 4))
    assert submitted[1] == pytest.approx(stranger, rel=1e-3, abs=1e-6)
    caplog.clear()
    run.play(5)
    assert not caplog.text


def test_a_round_that_is_played_again_has_the_same_bits() -> None:
    run = Run(RULES[0], follow=True)
    run.play(1)
    first, again = (run.attackers[1].agree(run.honest(2)[0], run.context(1, 2)) for _ in range(2))
    assert first.tobytes() == again.tobytes()


@pytest.mark.parametrize("name", ["sign-flipping", "fedpg", "min-max", "inside", "turns", "normalized-partial"])
def test_attacks_that_make_no_use_of_it_refuse_to_follow(name: str) -> None:
    with pytest.raises(UsageError, match=f"attack {name}: only omniscient attackers .* leave out follow"):
        build_attacker(Choice(name, {"follow": True}))
    assert build_attacker(Choice(name, {"follow": False})).following is None


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_follow_is_true_or_false(value: object) -> None:
    with pytest.raises(UsageError, match="attack boundary: follow must be true or false, not "):
        build_attacker(Choice("boundary", {"follow": value}))
