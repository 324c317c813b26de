"""With Res-NHARPG and ByzPG an agent submits what plain code says, attackers tamper with just that."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from fedpg_client.attacks import build_attacker
from fedpg_common.choices import Choice
from fedpg_common.derived_seeds import agent_seed
from fedpg_common.learning.gradient import advantages, estimate
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.recursion import Kind, Recursion
from fedpg_common.learning.streams import Purpose, Role, stream
from support.recursions import AGENTS, BATCH, ROUND, SEED, TASK, Bench, Numbers, exact_product


def test_with_momentum_an_agent_submits_what_the_round_adds_to_it(bench: Bench) -> None:
    previous, eta = bench.theta(), 0.3
    theta = bench.theta(1, near=previous)
    update = bench.worker(2).work(ROUND, BATCH, theta, Recursion(Kind.MOMENTUM, previous, weight=eta))
    q = stream(agent_seed(SEED, 2), Role.AGENT, Purpose.INTERPOLATION, agent=2, round_number=ROUND).random()
    between = (previous.astype(np.float64) + q * (theta.astype(np.float64) - previous)).astype(np.float32)
    there, here = bench.batch(between, 2, 2, step=1), bench.batch(theta, 2, 3, step=0)
    g = estimate(bench.policy, theta, here, advantages(here, TASK.gamma)).gradient
    v = exact_product(bench.policy, between, theta - previous, there, advantages(there, TASK.gamma))
    assert np.linalg.norm(v) > 0.01 * np.linalg.norm(g)
    np.testing.assert_allclose(
        update.gradient, eta * g + (1 - eta) * v, atol=3e-3 * (1 - eta) * float(np.linalg.norm(v))
    )
    assert (update.trajectories, update.environment_steps) == (BATCH, here.steps + there.steps)
    returns = np.concatenate([there.returns(), here.returns()])
    assert update.mean_return == pytest.approx(returns.mean())


def test_with_the_last_estimate_an_agent_submits_it_and_a_difference(bench: Bench) -> None:
    previous = bench.theta()
    theta = bench.theta(1, near=previous)
    last = np.linspace(-1, 1, theta.size).astype(np.float32)
    update = bench.worker(4).work(ROUND, BATCH, theta, Recursion(Kind.DIFFERENCE, previous, last))
    batch = bench.batch(theta, 4, BATCH, step=0)
    A = torch.tensor(advantages(batch, TASK.gamma), dtype=torch.float64)
    seen, actions = torch.tensor(batch.observations, dtype=torch.float64), torch.tensor(batch.actions)

    def slope(at: Vector, weights: torch.Tensor) -> Numbers:
        variable = torch.tensor(at, dtype=torch.float64, requires_grad=True)
        (found,) = torch.autograd.grad(-(weights * A * bench.policy.log_prob(variable, seen, actions)).mean(), variable)
        numbers: Numbers = found.numpy()
        return numbers

    then, now = (
        bench.policy.log_prob(torch.tensor(at, dtype=torch.float64), seen, actions) for at in (previous, theta)
    )
    omega = torch.exp(then - now)
    assert float(omega.std()) > 1e-4
    expected = last + slope(theta, torch.ones_like(A)) - slope(previous, omega)
    np.testing.assert_allclose(update.gradient, expected, atol=2e-6)
    assert update.trajectories == BATCH


def test_without_a_recursion_it_submits_the_plain_gradient(bench: Bench) -> None:
    theta = bench.theta()
    batch = bench.batch(theta, 1, BATCH, step=0)
    expected = estimate(bench.policy, theta, batch, advantages(batch, TASK.gamma)).gradient
    assert bench.worker(1).work(ROUND, BATCH, theta).gradient.tobytes() == expected.tobytes()


@pytest.mark.filterwarnings("error")
def test_what_float32_cannot_hold_is_left_out(bench: Bench) -> None:
    theta = bench.theta()
    plain = bench.worker(1).work(ROUND, BATCH, theta).gradient
    huge = np.full_like(theta, np.finfo(np.float32).max)
    again = bench.worker(1).work(ROUND, BATCH, theta, Recursion(Kind.DIFFERENCE, huge, huge)).gradient
    assert again.tobytes() == plain.tobytes()
    far = Recursion(Kind.MOMENTUM, -huge, weight=0.5)
    with np.errstate(all="ignore"):
        submitted = bench.worker(1).work(ROUND, BATCH, theta, far).gradient
    assert np.isfinite(submitted).all()


def recursions(bench: Bench) -> list[Recursion]:
    previous = bench.theta()
    return [
        Recursion(Kind.MOMENTUM, previous, weight=0.25),
        Recursion(Kind.DIFFERENCE, previous, np.full_like(previous, 0.1)),
    ]


def test_attacks_tamper_with_what_is_submitted(bench: Bench) -> None:
    theta = bench.theta(1, near=bench.theta())
    for recursion in recursions(bench):
        honest = bench.worker(3).work(ROUND, BATCH, theta, recursion).gradient.astype(np.float64)
        for name, factor in (("sign-flipping", -2.5), ("zero-gradient", 0.0)):
            attacker = build_attacker(Choice(name))
            sent = bench.worker(3, attacker).work(ROUND, BATCH, theta, recursion).gradient
            np.testing.assert_allclose(sent, factor * honest, rtol=1e-6)
        for name in ("random-action", "reward-flipping", "random-noise", "boundary-split"):
            sent = bench.worker(3, build_attacker(Choice(name))).work(ROUND, BATCH, theta, recursion).gradient
            assert np.linalg.norm(sent - honest) > 1e-3 * np.linalg.norm(honest), name
            assert np.isfinite(sent).all()


def test_flipped_rewards_flip_both_estimates(bench: Bench) -> None:
    previous = bench.theta()
    theta, recursion = bench.theta(1, near=previous), Recursion(Kind.MOMENTUM, previous, weight=0.25)
    honest = bench.worker(3).work(ROUND, BATCH, theta, recursion).gradient
    flipped = bench.worker(3, build_attacker(Choice("reward-flipping"))).work(ROUND, BATCH, theta, recursion).gradient
    np.testing.assert_allclose(flipped, -honest, rtol=1e-5, atol=1e-8)


def test_omniscient_attackers_recompute_what_the_others_submit_bit_for_bit(bench: Bench) -> None:
    theta = bench.theta(1, near=bench.theta())
    for recursion in recursions(bench):
        mimic = dataclasses.replace(build_attacker(Choice("mimic")), attackers=(1,), run_seed=SEED)
        sent = bench.worker(1, mimic).work(ROUND, BATCH, theta, recursion).gradient
        others = {
            agent: bench.worker(agent).work(ROUND, BATCH, theta, recursion).gradient.tobytes()
            for agent in range(2, AGENTS + 1)
        }
        assert sent.tobytes() in others.values()
        assert len(set(others.values())) == AGENTS - 1
