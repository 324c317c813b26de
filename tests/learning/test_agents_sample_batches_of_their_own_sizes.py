"""How much an agent samples is described, drawn or its operator's, and counts for no more than it was asked for."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg.v1 import federation_pb2_grpc
from fedpg_client import cli as client_cli
from fedpg_client.process import AgentOptions, AgentProcess
from fedpg_client.worker import Update, Worker
from fedpg_common.choices import Choice
from fedpg_common.derived_seeds import agent_seed
from fedpg_common.descriptions import (
    describe,
    federation_from_fields,
    federation_from_toml,
    federation_to_toml,
    with_settings,
)
from fedpg_common.environments import make_environments
from fedpg_common.errors import ExitCode, UsageError
from fedpg_common.federation import Federation, name_of
from fedpg_common.learning.aggregators import RoundPlan, Votes, build_aggregator
from fedpg_common.learning.aggregators.fedpg import FedPG, radii, reaches
from fedpg_common.learning.policies import make_policy
from fedpg_common.speeds import Speed, Speeds
from fedpg_common.tasks import CARTPOLE
from fedpg_common.transport.channels import open_channel
from fedpg_lab.deploy.compose import compose_file
from fedpg_lab.runs.folders import load_run
from fedpg_server.learning.learner import Learner
from fedpg_server.learning.make_record import make_record
from fedpg_server.learning.sizes import Sizes, for_those
from support.lab import Command, digests
from support.protocol import serving_in_a_thread

SPEEDS: dict[str, Any] = {"trajectories": [4, 16], "min_trajectories": 3, "2": {"trajectories": 2}}
PLAN = RoundPlan(1, 16, 3)


def described(speeds: Any = None, **fields: Any) -> Federation:
    return describe("CartPole-v1", **{"agents": 5, "speeds": SPEEDS if speeds is None else speeds, **fields})


# Descriptions ---------------------------------------------------------------------------------------------------------


def test_draws_follow_from_the_seed_and_the_agent_alone() -> None:
    few, many = described(agents=5), described(agents=9)
    assert [few.speed_of(agent) for agent in range(1, 6)] == [many.speed_of(agent) for agent in range(1, 6)]
    share = (int.from_bytes(hashlib.sha256(b"fedpg/speed/0/1/trajectories").digest()[:8], "little") >> 11) / 2**53
    assert few.speed_of(1) == Speed(4 + math.floor(13 * share), 3), "as the page on heterogeneity states it"
    drawn = [described(seed=seed).speed_of(agent).trajectories for seed in range(80) for agent in (1, 3, 4, 5)]
    assert set(drawn) == set(range(4, 17)), "both ends of the range are drawn"


def test_what_an_agent_is_given_goes_over_what_it_draws() -> None:
    assert described().speed_of(2) == Speed(2, 3)
    assert described({"trajectories": 8, "3": {"min_trajectories": 0}}).speed_of(3) == Speed(8, 0)
    assert described({"trajectories": 8, "3": {"trajectories": 0}}).speed_of(3).most(16) == 16
    assert described({}).speed_of(1) == Speed(0, 0)


def test_an_agent_samples_no_more_than_the_round_asks_for() -> None:
    assert [Speed(4).most(batch) for batch in (2, 4, 16)] == [2, 4, 4]
    assert [Speed(8, 6).fewest(batch) for batch in (2, 7, 16)] == [2, 6, 6]
    assert Speed(4, 6).fewest(16) == 4
    assert Speed().fewest(16) == 16


@pytest.mark.parametrize(
    ("speeds", "words"),
    [
        ({"trajectories": 0}, "speeds: trajectories must be a whole number, or a range"),
        ({"trajectories": [8, 4]}, "speeds: trajectories must be a whole number, or a range"),
        ({"trajectories": [1, 2, 3]}, "speeds: trajectories must be a whole number, or a range"),
        ({"min_trajectories": -1}, "speeds: min_trajectories must be a whole number from 0"),
        ({"3": {"trajectories": 1.5}}, "speeds.3: trajectories must be a whole number from 0"),
        ({"3": {"batch": 1}}, "speeds.3: unknown field 'batch': choose one of trajectories, min_trajectories"),
        ({"3": 4}, "speeds.3: it must be a table with trajectories and min_trajectories, not 4"),
        (
            {"fast": {"trajectories": 4}},
            "speeds has no field 'fast'; it has trajectories, min_trajectories, and agents",
        ),
        ({"6": {"trajectories": 4}}, "speeds names agent 6, but the agents are 1 to 5"),
        (7, "speeds must be a table"),
    ],
)
def test_speeds_that_cannot_be_are_refused(speeds: Any, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        described(speeds)


def test_agents_that_halve_their_batches_have_two_trajectories_and_all_the_time() -> None:
    with pytest.raises(UsageError, match="give each at least 2 trajectories, not 1"):
        described({"3": {"trajectories": 1}}, algorithm="res-nharpg")
    with pytest.raises(UsageError, match="cannot stop early: leave out min_trajectories"):
        described({"min_trajectories": 2}, algorithm="res-nharpg")
    described({"3": {"trajectories": 2}}, algorithm="res-nharpg")


def test_descriptions_and_settings_are_one_grammar() -> None:
    federation = described()
    assert federation_from_toml(federation_to_toml(federation), "") == federation
    pairs = ["speeds.trajectories=[4,16]", "speeds.min_trajectories=3", "speeds.2.trajectories=2"]
    fields = with_settings({"task": "CartPole-v1", "agents": 5}, pairs)
    assert federation_from_fields(fields, "") == federation
    (told,) = re.findall(r"FEDPG_SET: \$\{SET:-(.*)\} \$\{WORLDS:-(.*)\}\n", compose_file(federation))
    in_containers = with_settings({"task": "CartPole-v1", "agents": 5}, " ".join(told).split())
    assert federation_from_fields(in_containers, "") == federation
    assert "speeds" not in federation_to_toml(describe("CartPole-v1"))
    with pytest.raises(UsageError, match=r"--set speeds.2.size=1: unknown field 'size'"):
        with_settings({"task": "CartPole-v1"}, ["speeds.2.size=1"])


def test_federations_that_differ_in_their_speeds_have_other_names() -> None:
    all_alike: list[Any] = [{}, {"trajectories": 4}, {"trajectories": [4, 5]}, {"min_trajectories": 4}]
    one_apart = [{"2": {"trajectories": 4}}, {"2": {"trajectories": 5}}, {"3": {"trajectories": 5}}]
    assert len({name_of(described(speeds)) for speeds in [*all_alike, *one_apart]}) == 7


# What an agent is told ------------------------------------------------------------------------------------------------


def test_the_server_tells_each_agent_its_own_speed(tmp_path: Path) -> None:
    federation = described()
    with serving_in_a_thread(tmp_path, federation) as address, open_channel(address, 2**20, None) as channel:
        stub = federation_pb2_grpc.FederationStub(channel)
        replies = {agent: stub.Join(pb.JoinRequest(agent=agent)) for agent in (1, 2)}
    told = {agent: Speed(reply.trajectories, reply.min_trajectories) for agent, reply in replies.items()}
    assert told == {agent: federation.speed_of(agent) for agent in (1, 2)}


def test_the_operator_decides_over_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    seen: list[AgentOptions] = []

    def note(process: AgentProcess) -> ExitCode:
        seen.extend(process.agents)
        return ExitCode.OK

    monkeypatch.setattr("fedpg_client.cli.run_until_signalled", note)
    arguments = ["--server", "localhost:1", "--agent", "3"]
    for own in (["--trajectories", "5"], ["--min-trajectories", "0"], []):
        assert CliRunner().invoke(client_cli.app, [*arguments, *own]).exit_code == 0
    servers = Speed(8, 4)
    assert [options.speed.over(servers) for options in seen] == [Speed(5, 4), Speed(8, 0), servers]


# What is made of the votes --------------------------------------------------------------------------------------------


def told(federation: Federation, claims: dict[int, int] | None, plan: RoundPlan = PLAN) -> Votes:
    agents = tuple(claims) if claims is not None else tuple(range(1, federation.agents + 1))
    matrix = np.zeros((len(agents), 3), np.float32)
    return Sizes(federation).told(Votes(agents, matrix, federation.agents, plan, CARTPOLE), claims)


def test_no_claim_makes_a_vote_larger() -> None:
    """Agent 1 is described to sample 6, agent 2 as many as it likes; both claim the moon, and 3 nothing at all."""
    federation = described({"1": {"trajectories": 6}})
    votes = told(federation, {1: 2**32 - 1, 2: 2**32 - 1, 3: 0, 4: 9})
    assert votes.trajectories == (6, 16, 1, 9)
    weights = build_aggregator(Choice("fedpg", {"weighting": "trajectories"})).aggregate(votes, {}).weights
    assert weights == {1: 6 / 16, 2: 1.0, 3: 1 / 16, 4: 9 / 16}


def test_a_small_claim_widens_no_radius_unless_the_description_lets_agents_stop_early() -> None:
    assert told(described({"1": {"trajectories": 6}}), {1: 1, 2: 1}).batch_sizes == pytest.approx([6, 16])
    assert told(described({"min_trajectories": 5}), {1: 1, 2: 7, 3: 99}).batch_sizes == pytest.approx([5, 7, 16])
    assert told(describe("CartPole-v1", agents=5), {1: 1, 2: 7}).batch_sizes is None, "the published radius"


def test_pairs_of_votes_have_radii_of_their_own() -> None:
    """e_j + e_k with e = σ min(1, √(V/B)); for batches of one size, R1's radius, but never more than R2's."""
    narrow, wide = radii(0.06, 0.6, 10, 16)
    assert reaches(0.06, 0.6, 10, np.full(3, 16.0)) == pytest.approx(np.full((3, 3), narrow))
    mixed = reaches(0.06, 0.6, 10, np.array([16.0, 2.0]))
    assert mixed == pytest.approx(np.array([[narrow, (narrow + wide) / 2], [(narrow + wide) / 2, wide]]))


def test_a_vote_of_few_trajectories_is_allowed_more_noise() -> None:
    """Agent 4 lies 0.09 away from three that agree: too far for 16 trajectories, and not for 4."""
    rows = np.zeros((4, 2), np.float32)
    rows[3, 0] = 0.09
    federation = described({"4": {"trajectories": 4}}, agents=4)
    votes = replace(told(federation, None), matrix=rows)
    published = Votes(votes.agents, rows, 4, PLAN, CARTPOLE)
    assert set(FedPG().aggregate(votes, {}).weights or {}) == {1, 2, 3, 4}
    assert set(FedPG().aggregate(published, {}).weights or {}) == {1, 2, 3}
    far = replace(votes, matrix=rows * np.float32(0.121 / 0.09))
    assert set(FedPG().aggregate(far, {}).weights or {}) == {1, 2, 3}, "nobody is allowed more than R2 allows"


@pytest.mark.parametrize("name", ["mean", "fedpg"])
def test_a_mean_may_be_weighed_by_trajectories(name: str) -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(0, 1e-3, (4, 50)).astype(np.float32)
    votes = replace(told(described({"4": {"trajectories": 4}}, agents=4), {1: 16, 2: 16, 3: 16, 4: 4}), matrix=rows)
    weighed = build_aggregator(Choice(name, {"weighting": "trajectories"})).aggregate(votes, {})
    expected = np.average(rows.astype(np.float64), axis=0, weights=[16, 16, 16, 4])
    assert weighed.vector is not None
    np.testing.assert_allclose(weighed.vector, expected, rtol=1e-5, atol=1e-9)
    assert weighed.figures["effective-votes"] == pytest.approx(52**2 / (3 * 16**2 + 4**2))
    plain = build_aggregator(Choice(name)).aggregate(votes, {}).vector
    assert plain is not None
    np.testing.assert_allclose(plain, rows.mean(axis=0), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", ["mean", "fedpg"])
def test_weights_that_are_equal_change_no_bit(name: str) -> None:
    rows = np.random.default_rng(2).normal(0, 1e-3, (5, 64)).astype(np.float32)
    votes = replace(told(describe("CartPole-v1", agents=5), dict.fromkeys(range(1, 6), 16)), matrix=rows)
    one, other = (
        build_aggregator(Choice(name, settings)).aggregate(votes, {}).vector
        for settings in ({}, {"weighting": "trajectories"})
    )
    assert one is not None
    assert other is not None
    assert one.tobytes() == other.tobytes()


def test_votes_that_an_algorithm_keeps_back_take_what_they_stand_for_with_them() -> None:
    votes = told(described({"2": {"trajectories": 4}, "min_trajectories": 3}, agents=4), {1: 9, 2: 4, 3: 16, 4: 1})
    seen = for_those(replace(votes, agents=(2, 4), matrix=votes.matrix[[1, 3]]), votes)
    assert seen.trajectories == (4, 1)
    assert seen.batch_sizes == pytest.approx([4, 3])
    assert for_those(votes, votes) is votes
    assert set(FedPG().aggregate(seen, {}).weights or {}) <= {2, 4}


def test_mixtures_stand_for_what_their_votes_stand_for() -> None:
    """Equal batches stay what they are; a mixture of votes is allowed the mean of their errors."""
    rows = np.zeros((4, 2), np.float32)
    seen: list[Votes] = []

    class Spy:
        def aggregate(self, votes: Votes, memory: object) -> Any:
            seen.append(votes)
            return FedPG().aggregate(votes, {})

    from fedpg_common.learning.aggregators.composition import After
    from fedpg_common.learning.aggregators.nnm import NearestNeighbourMixing

    votes = replace(told(described({"4": {"trajectories": 4}}, agents=4), None), matrix=rows)
    After(Spy(), [NearestNeighbourMixing(faulty=2)]).aggregate(votes, {})
    assert seen[0].batch_sizes is not None
    assert seen[0].batch_sizes[:3] == pytest.approx([16, 16, 16])
    assert seen[0].batch_sizes[3] == pytest.approx(((4**-0.5 + 16**-0.5) / 2) ** -2)


# Runs -----------------------------------------------------------------------------------------------------------------


def learner_of(federation: Federation) -> Learner:
    environments = make_environments(federation.task)
    return Learner(federation, environments, make_policy(federation.task, 4, environments.action_space))


def updates_of(federation: Federation, theta: np.ndarray[Any, Any], plan: RoundPlan) -> dict[int, Update]:
    environments = make_environments(federation.task)
    policy = make_policy(federation.task, 4, environments.action_space)
    K = federation.agents
    return {
        agent: Worker(
            agent, K, agent_seed(0, agent), federation.task, policy, environments, speed=federation.speed_of(agent)
        ).work(plan.round_number, plan.batch_size, theta)
        for agent in range(1, K + 1)
    }


def test_the_trajectory_count_is_of_what_agents_were_asked_for() -> None:
    federation = described({"trajectories": 16, "1": {"trajectories": 4}}, algorithm="gpomdp")
    learner = learner_of(federation)
    plan, state = learner.plan(1), learner.initial_state()
    assert plan.batch_size == 16
    updates = updates_of(federation, state.theta, plan)
    assert [update.trajectories for update in updates.values()] == [4, 16, 16, 16, 16]
    result = learner.improve(state, plan, {agent: update.gradient for agent, update in updates.items()})
    assert result.trajectories == round((4 + 4 * 16) / 6)
    reports = {agent: pb.WorkReport(trajectories=update.trajectories) for agent, update in updates.items()}
    counted = learner.improve_counting(
        state, plan, {agent: update.gradient for agent, update in updates.items()},
        {agent: report.trajectories for agent, report in reports.items()},
    )  # fmt: skip
    record = make_record(
        counted, plan, federation, {agent: report.SerializeToString() for agent, report in reports.items()}, 0, 1.0
    )
    assert record.vote_trajectories == {1: 4, 2: 16, 3: 16, 4: 16, 5: 16}
    assert record.sampled_trajectories["agents"] == 68
    assert type(record).from_json(record.to_json()) == record


def test_without_speeds_a_record_says_nothing_of_them() -> None:
    federation = describe("CartPole-v1", agents=2, algorithm="gpomdp")
    learner = learner_of(federation)
    plan, state = learner.plan(1), learner.initial_state()
    ones = {agent: np.ones_like(state.theta) for agent in (1, 2)}
    result = learner.improve_counting(state, plan, ones, {1: 16, 2: 16})
    assert make_record(result, plan, federation, {}, 0, 1.0).vote_trajectories is None
    assert result.votes.batch_sizes is None


def test_described_batches_give_the_same_bits_however_agents_are_laid_out(tmp_path: Path, fedpg: Command) -> None:
    (tmp_path / "federation.toml").write_text(
        'task = "CartPole-v1"\nagents = 4\ntrajectories = 60\n'
        'aggregator = { name = "fedpg", weighting = "trajectories" }\n'
        "[speeds]\ntrajectories = [2, 20]\n[speeds.3]\ntrajectories = 3\n"
    )
    for name, layout in (("one", "1"), ("four", "4")):
        code, _, text = fedpg("train", "--federation", str(tmp_path / "federation.toml"), "--name", name,
                              "--out", str(tmp_path), "--no-tensorboard", "--agents-per-process", layout)  # fmt: skip
        assert code == 0, text
    run = load_run(tmp_path / "one")
    assert digests(run) == digests(load_run(tmp_path / "four"))
    assert run.federation.speeds == Speeds((2, 20), 0, {3: Speed(3)})
    for record in run.records:
        asked = {agent: run.federation.speed_of(agent).most(record.batch_size) for agent in range(1, 5)}
        assert record.vote_trajectories == asked
        assert record.sampled_trajectories["agents"] == sum(asked.values())
