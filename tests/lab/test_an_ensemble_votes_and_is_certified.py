"""Groups are those of the stated rule, their policies vote as the formulas say, and what is certified holds whatever
the spoilt groups do.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedpg_common.choices import Choice
from fedpg_common.descriptions import describe
from fedpg_common.errors import UsageError
from fedpg_lab.ensemble.evaluation import evaluate_ensemble, find_policies, warning_of
from fedpg_lab.ensemble.groups import Grouping, captured, federation_of, split
from fedpg_lab.ensemble.vote import certifiable, drift_bound, geometric_median, majority
from fedpg_lab.playback.evaluation import evaluate
from fedpg_lab.runs.folders import load_run
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.lab import Command, run_federation, small_federation

THIRTY = describe("CartPole-v1", agents=30, byzantine=9)

# Groups ---------------------------------------------------------------------------------------------------------------


@given(
    agents=st.integers(1, 40),
    groups=st.integers(1, 8),
    byzantine=st.integers(0, 20),
    grouping=st.sampled_from(Grouping),
)
def test_every_agent_is_in_one_group(agents: int, groups: int, byzantine: int, grouping: Grouping) -> None:
    federation = describe("CartPole-v1", agents=agents, byzantine=min(byzantine, agents))
    try:
        found = split(federation, groups, grouping)
    except UsageError:
        assert groups > agents or grouping is Grouping.HASH
        return
    assert len(found) == groups
    assert sorted(itertools.chain(*found)) == list(range(1, agents + 1))
    assert all(list(group) == sorted(group) and group for group in found)


def test_round_robin_spreads_neighbours_and_the_worst_case_gathers_attackers() -> None:
    assert split(describe("CartPole-v1", agents=7), 3, Grouping.ROUND_ROBIN) == ((1, 4, 7), (2, 5), (3, 6))
    even, worst = (split(THIRTY, 5, grouping) for grouping in (Grouping.ROUND_ROBIN, Grouping.WORST_CASE))
    # Six agents tolerate ⌊0.4 · 6⌋ = 2 attackers: nine capture three groups of five, and evenly spread none.
    assert (captured(THIRTY, even), captured(THIRTY, worst)) == (0, 3)
    assert [len(group) for group in worst] == [6] * 5


@pytest.mark.parametrize(("agents", "byzantine", "groups"), [(6, 2, 3), (7, 3, 3), (9, 4, 4), (8, 8, 3), (5, 0, 2)])
def test_no_split_of_the_same_sizes_is_worse_than_the_worst_case(agents: int, byzantine: int, groups: int) -> None:
    federation = describe("CartPole-v1", agents=agents, byzantine=byzantine)
    sizes = [len(range(1, agents + 1)[first::groups]) for first in range(groups)]
    tolerated = [federation.task.tolerated(size) for size in sizes]
    counts = itertools.product(*(range(size + 1) for size in sizes))
    worst = max(
        sum(count > bound for count, bound in zip(spread, tolerated, strict=True))
        for spread in counts
        if sum(spread) == byzantine
    )
    assert captured(federation, split(federation, groups, Grouping.WORST_CASE)) == worst


def test_a_group_does_not_depend_on_who_attacks_but_in_the_worst_case() -> None:
    honest = dataclasses.replace(THIRTY, byzantine={})
    for grouping in (Grouping.HASH, Grouping.ROUND_ROBIN):
        assert split(honest, 5, grouping) == split(THIRTY, 5, grouping)


def test_an_impossible_split_is_one_sentence() -> None:
    with pytest.raises(UsageError, match="--groups must be 1 to the number of agents, 30, not 31"):
        split(THIRTY, 31, Grouping.ROUND_ROBIN)
    with pytest.raises(
        UsageError,
        match=r"group . of 4 has none of the 4 agents, .*: choose --groups [1-3], or --grouping",
    ):
        split(describe("CartPole-v1", agents=4), 4, Grouping.HASH)


def test_a_group_is_a_federation_with_a_seed_of_its_own() -> None:
    federation = dataclasses.replace(THIRTY, byzantine={2: Choice("ipm"), 9: Choice("zero-gradient")})
    one = federation_of(federation, (2, 5, 9), 1)
    assert (one.agents, dict(one.byzantine)) == (3, {1: Choice("ipm"), 3: Choice("zero-gradient")})
    assert (one.task, one.algorithm) == (federation.task, federation.algorithm)
    assert len({federation_of(federation, (2, 5, 9), number).seed for number in range(1, 9)} | {federation.seed}) == 9


# Votes ----------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6))
def test_a_certified_action_stays_whatever_so_many_groups_do_and_with_one_more_it_need_not(votes: list[int]) -> None:
    actions = 4

    def answer(given_votes: tuple[int, ...]) -> int:
        return int(majority(np.array(given_votes)[:, None], actions)[0][0])

    chosen, certified = (found[0] for found in majority(np.array(votes)[:, None], actions))
    assert chosen == max(range(actions), key=lambda action: (votes.count(action), -action))

    def may_change(spoilt: int) -> bool:
        for which in itertools.combinations(range(len(votes)), spoilt):
            for wishes in itertools.product(range(actions), repeat=spoilt):
                changed = list(votes)
                for place, wish in zip(which, wishes, strict=True):
                    changed[place] = wish
                if answer(tuple(changed)) != chosen:
                    return True
        return False

    assert not may_change(int(certified))
    assert certified == len(votes) or may_change(int(certified) + 1)


def test_votes_are_counted_by_hand() -> None:
    columns = np.array([[0, 1, 2, 1], [0, 1, 2, 0], [0, 0, 1, 1], [1, 0, 0, 0], [0, 0, 2, 1]])
    chosen, certified = majority(columns, 3)
    assert chosen.tolist() == [0, 0, 2, 1]
    assert certified.tolist() == [1, 0, 0, 0]  # (4 − 1) / 2; (3 − 2) / 2; 3 − 1 less one for the tie; 3 − 2 likewise
    assert [certifiable(groups) for groups in (1, 2, 3, 5, 6, 7)] == [0, 0, 1, 2, 2, 3]


@given(st.integers(3, 7), st.integers(1, 3), st.integers(0, 10_000))
def test_the_geometric_median_moves_no_farther_than_the_bound(policies: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    actions = rng.standard_normal((policies, size))
    point, distances = geometric_median(actions)
    np.testing.assert_allclose(distances, np.linalg.norm(actions - point, axis=1), rtol=1e-9)
    for nudge in 1e-2 * rng.standard_normal((5, size)):
        assert np.linalg.norm(actions - point - nudge, axis=1).sum() > distances.sum() - 1e-4
    spoilt = certifiable(policies)
    changed = actions.copy()
    changed[:spoilt] = 100.0 * rng.standard_normal((spoilt, size))
    (bound,) = drift_bound(np.array([distances.max()]), policies, spoilt)
    assert np.linalg.norm(geometric_median(changed)[0] - point) <= bound + 1e-6


def test_more_attackers_than_are_certified_are_warned_of() -> None:
    assert warning_of(2, 5) is None
    warning = warning_of(9, 5)
    assert warning is not None
    assert warning.startswith("9 agents may be faulty, and a vote of 5 certifies at most 2: ")


# End to end -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of small federations below a folder."""
    folder = tmp_path_factory.mktemp("ensemble")
    for number in (1, 2, 3):
        run_federation(small_federation(2, 0, seed=number), folder / f"group-{number}", agents_per_process=2)
    return folder


def test_policies_that_agree_act_as_one(trained: Path) -> None:
    policy = find_policies(trained)["group-2"]
    together = evaluate_ensemble([policy] * 3, episodes=4, seed=5)
    alone = evaluate(policy, 4, 5, greedy=True)
    assert together.returns.tolist() == alone.returns.tolist()
    assert together.certified is not None
    assert set(together.certified.tolist()) == {1}  # three votes to none
    assert (together.share(1), together.farthest) == (1.0, None)


def test_an_evaluation_is_the_same_each_time(trained: Path) -> None:
    policies = list(find_policies(trained).values())
    first, again = (evaluate_ensemble(policies, episodes=3, seed=5) for _ in range(2))
    assert first.returns.tolist() == again.returns.tolist()
    assert first.certified is not None
    assert again.certified is not None
    assert first.certified.tolist() == again.certified.tolist()
    assert len(first.certified) == first.lengths.sum()


def numbers(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found


def test_groups_are_trained_and_evaluated_by_two_commands(tmp_path: Path, fedpg: Command) -> None:
    code, _, text = fedpg(
        "train", "--agents", 6, "--byzantine", 2, "--groups", 3, "--grouping", "worst-case", "--trajectories", 40,
        "--agents-per-process", 2, "--no-tensorboard", "--out", tmp_path, "--name", "run",
    )  # fmt: skip
    assert code == 0, text
    assert "Groups by worst-case: 2, 2, 2 agents; 2 groups have more attackers than tolerated" in text
    folder = tmp_path / "run"
    assert json.loads((folder / "groups.json").read_text()) == {
        "grouping": "worst-case", "groups": {"group-1": [1, 3], "group-2": [2, 4], "group-3": [5, 6]},
    }  # fmt: skip
    runs = [load_run(folder / f"group-{number}") for number in (1, 2, 3)]
    assert [sorted(run.federation.byzantine) for run in runs] == [[1], [1], []]
    code, output, text = fedpg("ensemble", folder, "--episodes", 3, "--json")
    assert code == 0, text
    figures = numbers(output)
    assert (figures["groups"], figures["certifiable"], len(figures["returns"])) == (
        ["group-1", "group-2", "group-3"], 1, 3,
    )  # fmt: skip
    assert figures["faulty"] == 2
    assert 0 <= figures["certified_share"]["1"] <= figures["certified_share"]["0"] == 1
    assert text == f"fedpg: {warning_of(2, 3)}\n"
    code, output, text = fedpg("ensemble", folder, "--episodes", 3, "--faulty", 1)
    assert (code, text) == (0, "")
    assert f"mean {figures['mean']:.2f}, 3 episodes" in output
    assert f"1 group  in {100 * figures['certified_share']['1']:5.1f} % of the steps" in output


def test_what_cannot_be_an_ensemble_is_refused(tmp_path: Path, trained: Path, fedpg: Command) -> None:
    for arguments, expected, sentence in (
        (("ensemble", tmp_path), 6, "there are no runs in"),
        (("ensemble", trained, "--episodes", 0), 2, "--episodes must be 1 to"),
        (("ensemble", trained, "--faulty", -1), 2, "--faulty must be 0 to"),
        (("train", "--groups", 11, "--out", tmp_path), 2, "--groups must be 1 to the number of agents, 10, not 11"),
        (("train", "--groups", 0, "--out", tmp_path), 2, "--groups must be 1 to the number of agents, 10, not 0"),
        (("train", "--groups", 2, "--runs", 2, "--out", tmp_path), 2, "--groups and --runs do not go together"),
        (("train", "--groups", 5, "--aggregator", "bulyan", "--out", tmp_path), 2, "bulyan needs 4f + 3 agents"),
    ):
        code, _, text = fedpg(*arguments)
        assert (code, len(text.splitlines())) == (expected, 1), text
        assert sentence in text
    assert not list(tmp_path.iterdir())


def test_continuous_actions_are_bounded(tmp_path: Path) -> None:
    policies = [_pendulum(seed) for seed in (1, 2, 3)]
    evaluation = evaluate_ensemble(policies, episodes=2, seed=0)
    assert evaluation.certified is None
    assert evaluation.farthest is not None
    assert len(evaluation.farthest) == evaluation.lengths.sum() == 2 * 30
    assert (evaluation.farthest > 0).all()


def _pendulum(seed: int) -> Any:
    from fedpg_common.environments import make_environments
    from fedpg_common.learning.checkpoints import Checkpoint
    from fedpg_common.learning.policies import make_policy
    from fedpg_common.tasks import CARTPOLE

    task = dataclasses.replace(
        CARTPOLE, name="Pendulum", environment="Pendulum-v1", horizon=30, evaluation_horizon=30, hidden=(8,)
    )
    environments = make_environments(task)
    policy = make_policy(task, environments.observation_size, environments.action_space)
    environments.close()
    theta: NDArray[np.float32] = policy.initial_parameters(np.random.default_rng(seed))
    return Checkpoint(theta, policy.spec, task, 1, None)
