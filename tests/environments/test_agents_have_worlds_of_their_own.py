"""Every agent learns in a world of its own, told of no other; spaces that do not fit are refused with one sentence."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg.v1 import federation_pb2_grpc
from fedpg_client import cli as client_cli
from fedpg_client.trust import check_trusted, trusting
from fedpg_common.choices import Choice
from fedpg_common.descriptions import describe, federation_from_fields, with_settings
from fedpg_common.environments import EnvironmentBatch, make_environments
from fedpg_common.environments.generic import GymnasiumBatch
from fedpg_common.environments.rewards import RewardBatch
from fedpg_common.environments.rollouts import rollout, sample
from fedpg_common.errors import ExitCode, RefusedError, UsageError
from fedpg_common.federation import Federation, name_of
from fedpg_common.learning.policies import make_policy
from fedpg_common.tasks import CARTPOLE, Reward
from fedpg_common.transport import wire
from fedpg_common.transport.channels import open_channel
from fedpg_common.worlds import Heterogeneity, World, world_from_settings
from fedpg_lab.deploy.compose import compose_file
from fedpg_lab.local.agent_setup import agent_options
from fedpg_lab.runs.folders import load_run
from support.lab import Command, digests, run_federation
from support.protocol import serving_in_a_thread

RANGES: dict[str, Any] = {"gravity": [8, 12], "length": [0.3, 0.7], "reward": {"noise": [0.0, 0.2]}}
WRAPPERS = '''
import gymnasium
import numpy as np


class Blind(gymnasium.ObservationWrapper):
    """A sensor that shows less by a factor."""

    def __init__(self, env, factor=0.5):
        super().__init__(env)
        self._factor = factor

    def observation(self, observation):
        return (observation * self._factor).astype(np.float32)


class Wider(gymnasium.ObservationWrapper):
    """Two numbers more than the policy knows."""

    def __init__(self, env):
        super().__init__(env)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (6,), np.float32)

    def observation(self, observation):
        return np.append(observation, [0.0, 0.0]).astype(np.float32)


class Pushed(gymnasium.ActionWrapper):
    """Three actions, where the policy has two."""

    def __init__(self, env):
        super().__init__(env)
        self.action_space = gymnasium.spaces.Discrete(3)

    def action(self, action):
        return min(action, 1)


def nothing(env):
    return None
'''


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a module of wrappers, in which one works."""
    (tmp_path / "found_wrappers.py").write_text(WRAPPERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("found_wrappers", None)


def drawn(seed: int = 0, agents: int = 5, **fields: Any) -> Federation:
    return describe("CartPole-v1", agents=agents, seed=seed, heterogeneity={**RANGES, **fields})


# Descriptions ---------------------------------------------------------------------------------------------------------


def test_draws_follow_from_the_seed_and_the_agent_alone() -> None:
    few, many = drawn(agents=5), drawn(agents=9)
    assert [few.task_of(agent) for agent in range(1, 6)] == [many.task_of(agent) for agent in range(1, 6)]
    alone = describe("CartPole-v1", agents=5, heterogeneity={"length": RANGES["length"]})
    lengths = [few.task_of(agent).environment_options["length"] for agent in range(1, 6)]
    assert lengths == [alone.task_of(agent).environment_options["length"] for agent in range(1, 6)]
    assert len({*lengths, *(drawn(seed=1).task_of(agent).environment_options["length"] for agent in range(1, 6))}) == 10
    share = (int.from_bytes(hashlib.sha256(b"fedpg/world/0/1/length").digest()[:8], "little") >> 11) / 2**53
    assert lengths[0] == pytest.approx(0.3 + 0.4 * share), "as the page on heterogeneity states it"
    for agent in range(1, 10):
        task = many.task_of(agent)
        assert 8 <= task.environment_options["gravity"] < 12
        assert 0.3 <= task.environment_options["length"] < 0.7
        assert 0 <= task.reward.noise < 0.2


def test_draws_fill_their_range() -> None:
    options = [drawn(seed=s, agents=10).task_of(a).environment_options for s in range(20) for a in range(1, 11)]
    counts, _ = np.histogram([option["gravity"] for option in options], bins=4, range=(8, 12))
    assert counts.sum() == 200
    assert counts.min() > 30
    gravities, lengths = np.array([[option["gravity"], option["length"]] for option in options]).T
    assert abs(np.corrcoef(gravities, lengths)[0, 1]) < 0.2


def test_the_spread_moves_every_draw_away_from_the_middle() -> None:
    one = drawn()
    for agent in range(1, 6):
        full = one.task_of(agent).environment_options["gravity"]
        assert drawn(spread=0).task_of(agent).environment_options["gravity"] == 10
        assert drawn(spread=0.5).task_of(agent).environment_options["gravity"] == pytest.approx(10 + (full - 10) / 2)
        assert drawn(spread=2).task_of(agent).environment_options["gravity"] == pytest.approx(10 + 2 * (full - 10))


def test_what_an_agent_is_given_goes_over_what_it_draws_and_over_the_task() -> None:
    federation = federation_from_fields(
        {
            "task": "CartPole-v1", "agents": 3, "heterogeneity": RANGES, "environment_options": {"force_mag": 9.0},
            "wrappers": ["a:Usual"],
            "environments": {
                "2": {"environment_options": {"gravity": 20}, "reward": {"scale": 2}, "wrappers": ["b:Own"]}
            },
        },
        "text",
    )  # fmt: skip
    first, second = federation.task_of(1), federation.task_of(2)
    assert (first.environment_options["force_mag"], first.wrappers, first.reward.scale) == (9.0, ("a:Usual",), 1.0)
    assert second.environment_options.keys() == {"force_mag", "gravity", "length"}
    assert (second.environment_options["gravity"], second.wrappers, second.reward.scale) == (20, ("b:Own",), 2)
    assert second.reward.noise > 0
    assert federation.task.environment_options == {"force_mag": 9.0}
    assert federation.own_modules == ("a", "b")


def test_federations_that_differ_in_their_worlds_have_other_names() -> None:
    names = {name_of(drawn()), name_of(drawn(spread=0.5)), name_of(describe("CartPole-v1", agents=5))}
    assert len(names) == 3
    many = describe("CartPole-v1", heterogeneity={f"option_{i}": [0, 1] for i in range(90)})
    assert len(name_of(many)) < 200
    assert name_of(many) != name_of(replace(many, heterogeneity=Heterogeneity({"option_0": (0, 1)})))


def test_ranges_are_set_from_the_command_line() -> None:
    fields = with_settings(
        {"task": "CartPole-v1"}, ["heterogeneity.gravity=[8, 12]", "heterogeneity.reward={noise=[0, 1]}"]
    )
    fields = with_settings(fields, ["heterogeneity.spread=0.5"])
    assert federation_from_fields(fields, "").heterogeneity == Heterogeneity(
        {"gravity": (8, 12), "reward.noise": (0, 1)}, 0.5
    )


def test_worlds_are_set_in_containers_as_on_the_command_line() -> None:
    """What the server's container is told makes the same federation; the agents' containers are told nothing."""
    federation = replace(
        drawn(spread=0.5), environments={2: World({"gravity": 20, "word": "wind"}, ("w:Own",), {"scale": 2.0})},
        byzantine={1: Choice("ipm", {"factor": 2.0})}, worlds_every=3,
    )  # fmt: skip
    text = compose_file(federation)
    (told,) = re.findall(r"FEDPG_SET: \$\{SET:-(.*)\} \$\{WORLDS:-(.*)\}\n", text)
    fields = {"task": "CartPole-v1", "agents": 5, "byzantine": 1, "attack": "ipm", "worlds_every": 3}
    assert federation_from_fields(with_settings(fields, " ".join(told).split()), "") == federation
    assert text.count("gravity=") == 2, "the range and the one agent's own"
    assert "FEDPG_WORLDS_EVERY: ${WORLDS_EVERY:-3}" in text
    assert "FEDPG_ALLOW: w" in compose_file(federation, modules="modules")


# What an agent is told ------------------------------------------------------------------------------------------------


def test_the_server_tells_each_agent_its_own_world_and_no_other(tmp_path: Path) -> None:
    federation = replace(drawn(agents=3), environments={2: World({"gravity": 20.5}, ("w:Own",), {"noise": 0.25})})
    with serving_in_a_thread(tmp_path, federation) as address, open_channel(address, 2**20, None) as channel:
        stub = federation_pb2_grpc.FederationStub(channel)
        replies = {agent: stub.Join(pb.JoinRequest(agent=agent)) for agent in (1, 2, 3)}
    tasks = {agent: wire.task_from_message(reply.task) for agent, reply in replies.items()}
    assert tasks == {agent: federation.task_of(agent) for agent in (1, 2, 3)}
    assert tasks[2].reward.noise == 0.25
    for agent, reply in replies.items():
        for other in {1, 2, 3} - {agent}:
            length = federation.task_of(other).environment_options["length"]
            assert json.dumps(length).encode() not in reply.SerializeToString()


def test_an_agents_operator_brings_a_world() -> None:
    world = world_from_settings(["gravity=-12", "reward.noise=0.1", "word=wind", 'wrappers=["my_envs:Wrap"]'])
    assert world == World({"gravity": -12, "word": "wind"}, ("my_envs:Wrap",), {"noise": 0.1})
    assert world_from_settings(["wrappers=my_envs:Wrap"]).wrappers == ("my_envs:Wrap",)
    assert world_from_settings([]).of(CARTPOLE) == CARTPOLE


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("gravity", "--world: a setting is written NAME=VALUE"),
        ("reward.bias=1", "--world: unknown field of reward 'bias': choose one of scale, shift, noise"),
        ("reward.noise=-1", "--world: reward: noise is a standard deviation"),
        ("wrappers=Wrap", "--world: wrappers must be a list of MODULE:NAME"),
        ("a.b=1", "--world: a setting is written NAME=VALUE"),
    ],
)
def test_a_world_that_cannot_be_is_refused(pair: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        client_cli.parse_world([pair])


def test_a_wrapper_that_the_server_names_needs_permission() -> None:
    task = replace(CARTPOLE, wrappers=("my_envs.sensors:Blind",))
    with pytest.raises(RefusedError, match=r"import the module 'my_envs.sensors' for a wrapper, .* --allow my_envs"):
        check_trusted(task, ["other"])
    for allowed in ("my_envs", "my_envs.sensors"):
        check_trusted(task, [allowed])
    check_trusted(task, trusting(task))
    federation = Federation(CARTPOLE, 2, environments={2: World(wrappers=("my_envs:Wrap",))})
    assert [("my_envs" in options.allow) for options in agent_options(federation, "")] == [False, True]


@pytest.mark.parametrize(
    ("wrapper", "words"),
    [
        ("Wider", "its environment is observed as 6 numbers, the server's as 4"),
        ("Pushed", "its environment takes other actions than the server's"),
    ],
)
def test_spaces_that_do_not_fit_are_one_sentence_and_the_others_go_on(
    modules: Path, wrapper: str, words: str, fedpg: Command
) -> None:
    """Three of four agents are a quorum."""
    (modules / "federation.toml").write_text(
        'task = "CartPole-v1"\nagents = 4\ntrajectories = 30\nround_timeout_s = 1.0\n'
        f'[environments.3]\nwrappers = ["found_wrappers:{wrapper}"]\n'
    )
    code, _, text = fedpg("train", "--federation", "federation.toml", "--name", "run", "--no-tensorboard",
                          "--agents-per-process", "4")  # fmt: skip
    assert code == ExitCode.OK, text
    run = load_run(modules / "runs" / "run")
    assert all(record.absent == (3,) for record in run.records)
    log = (modules / "runs" / "run" / "logs").glob("*.log")
    assert any(words in file.read_text() for file in log)
    assert not any("Traceback" in file.read_text() for file in (modules / "runs" / "run" / "logs").glob("*.log"))


# Wrappers and rewards -------------------------------------------------------------------------------------------------


def test_a_wrapped_environment_is_the_users_own(modules: Path) -> None:
    task = replace(
        CARTPOLE, environment_options={"gravity": 12.0}, wrappers=({"name": "found_wrappers:Blind", "factor": 0.25},)
    )
    wrapped, plain = make_environments(task), make_environments(replace(task, wrappers=()))
    assert isinstance(wrapped, GymnasiumBatch)
    seeds = np.array([1, 2])
    np.testing.assert_array_equal(wrapped.reset(seeds), plain.reset(seeds) * np.float32(0.25))
    for _ in range(5):
        (seen, *_), (real, *_) = (batch.step(np.array([0, 1])) for batch in (wrapped, plain))
        np.testing.assert_array_equal(seen, real * np.float32(0.25))


@pytest.mark.parametrize(
    ("wrapper", "words"),
    [
        ("found_wrappers:Nowhere", "found_wrappers has no class Nowhere"),
        ("found_nowhere:Wrap", "its module found_nowhere is not there"),
        ({"name": "found_wrappers:Blind", "size": 1}, r"'size': its settings are factor \(default 0.5\)"),
        ("found_wrappers:nothing", "it made None, which is not an environment"),
    ],
)
def test_wrong_wrappers_are_refused_with_one_sentence(modules: Path, wrapper: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        make_environments(replace(CARTPOLE, wrappers=(wrapper,)))
    assert "\n" not in str(caught.value)


def play(batch: EnvironmentBatch, seeds: list[int], steps: int) -> list[list[float]]:
    """Rewards by episode, with actions that only its seed decides."""
    batch.reset(np.array(seeds))
    rewards: dict[int, list[float]] = {place: [] for place in range(len(seeds))}
    live = list(range(len(seeds)))
    for t in range(steps):
        _, earned, ended = batch.step(np.array([(seeds[place] + t) % 2 for place in live]))
        for place, reward in zip(live, earned.tolist(), strict=True):
            rewards[place].append(reward)
        batch.keep(~ended)
        live = [place for place, end in zip(live, ended.tolist(), strict=True) if not end]
        if not live:
            break
    return list(rewards.values())


@pytest.mark.parametrize("reward", [Reward(2.0, -0.5), Reward(noise=0.1), Reward(0.5, 1.0, 2.0)])
def test_a_reward_is_scaled_shifted_and_noisy(reward: Reward) -> None:
    perceived = make_environments(replace(CARTPOLE, environment_options={"length": 5.0}, reward=reward))
    assert isinstance(perceived, RewardBatch)
    together = play(perceived, list(range(40)), 150)
    noise = np.concatenate([np.array(one) for one in together]) - (reward.scale + reward.shift)
    assert len(noise) > 2000, "episodes must last longer than the noise that is drawn at once"
    if not reward.noise:
        assert not noise.any()
        return
    assert abs(noise.mean()) < 4 * reward.noise / np.sqrt(len(noise))
    assert noise.std() == pytest.approx(reward.noise, rel=0.08)
    assert len(np.unique(noise)) == len(noise)
    assert play(perceived, [7], 150)[0] == together[7], "an episode's noise depends on nothing but its seed"


def test_compiled_rollouts_have_the_same_noise() -> None:
    batch = make_environments(replace(CARTPOLE, reward=Reward(noise=0.3)))
    policy = make_policy(CARTPOLE, 4, batch.action_space)
    theta = policy.initial_parameters(np.random.default_rng(0))
    seeds = np.arange(9)
    whole = rollout(batch, policy, theta, 200, seeds, np.random.default_rng(3))
    actor, rng = policy.actor(theta), np.random.default_rng(3)
    stepped = sample(batch, lambda observations: actor.sample(observations, rng), 200, seeds)
    np.testing.assert_array_equal(whole.observations, stepped.observations)
    np.testing.assert_array_equal(whole.rewards, stepped.rewards)


# Whole runs -----------------------------------------------------------------------------------------------------------


def test_a_run_in_many_worlds_is_repeatable_and_evaluated_in_each(tmp_path: Path, fedpg: Command) -> None:
    """Also across process layouts; evaluating in the worlds, in every round or afterwards, changes nothing."""
    plain = replace(drawn(agents=3, reward={"noise": [0.1, 0.3]}), task=replace(CARTPOLE, trajectories=60))
    evaluated = replace(plain, worlds_every=2)
    one = run_federation(plain, tmp_path / "one", agents_per_process=3)
    other = run_federation(evaluated, tmp_path / "other", agents_per_process=1)
    nominal = run_federation(replace(plain, heterogeneity=None), tmp_path / "nominal", agents_per_process=3)
    assert digests(one) == digests(other) != digests(nominal)
    told = [record.world_returns for record in other.records]
    assert [returns is not None for returns in told] == [record.round_number % 2 == 0 for record in other.records]
    last = [returns for returns in told if returns][-1]
    assert last.keys() == {1, 2, 3}
    assert len(set(last.values())) > 1
    summary = json.loads((tmp_path / "other" / "summary.json").read_text())["worlds"]
    assert (summary["worst"], summary["spread"]) == (min(last.values()), max(last.values()) - min(last.values()))
    assert json.loads((tmp_path / "one" / "summary.json").read_text())["worlds"] is None

    code, output, text = fedpg("evaluate", str(tmp_path / "one"), "--worlds", "--json", "--episodes", "4")
    assert code == ExitCode.OK, text
    figures = json.loads(output)
    assert figures["returns"].keys() == {"1", "2", "3"}
    assert figures["mean"] == pytest.approx(np.mean(list(figures["returns"].values())))
    code, output, text = fedpg("evaluate", str(tmp_path / "one"), "--worlds", "--episodes", "4")
    assert code == ExitCode.OK, text
    assert output.splitlines()[1].split() == ["agent", "return", "world"]
    assert "gravity=" in output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--worlds", "--sample"), "leave out --sample"),
        (("--worlds", "--video", "x.mp4"), "leave out --sample, --render and --video"),
    ],
)
def test_worlds_are_not_drawn(tmp_path: Path, fedpg: Command, arguments: tuple[str, ...], words: str) -> None:
    code, _, text = fedpg("evaluate", str(tmp_path), *arguments)
    assert (code, words in text) == (ExitCode.USAGE, True)


def test_rewards_of_a_world_are_judged_as_the_task_has_them(tmp_path: Path) -> None:
    """An agent whose reward is doubled earns no more than the others in the same world."""
    from fedpg_server.learning.worlds import Worlds

    federation = Federation(CARTPOLE, 2, environments={2: World(reward={"scale": 2.0, "noise": 1.0})})
    policy = make_policy(CARTPOLE, 4, make_environments(CARTPOLE).action_space)
    worlds = Worlds(federation, policy)
    returns = worlds.evaluate(policy.initial_parameters(np.random.default_rng(0)), np.arange(5))
    worlds.close()
    assert returns[1] == returns[2]


def test_a_world_that_cannot_be_made_for_evaluation_names_the_agent() -> None:
    from fedpg_server.learning.worlds import Worlds

    federation = Federation(CARTPOLE, 2, environments={2: World({"length": -1})})
    policy = make_policy(CARTPOLE, 4, make_environments(CARTPOLE).action_space)
    with pytest.raises(UsageError, match=r"the world of agent 2: .* length must be a positive number, not -1"):
        Worlds(federation, policy)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (
            "heterogeneity.gravty=[8,12]",
            "the world of agent 1: .*unknown option 'gravty': did you mean gravity.*gravity, masscart",
        ),
        ("environments.2.length=-1", "the world of agent 2: .* length must be a positive number, not -1"),
    ],
)
def test_a_misspelt_or_impossible_option_ends_the_command_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fedpg: Command, setting: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, text = fedpg("train", "--agents", "3", "--set", setting, "--no-tensorboard", "--agents-per-process", "3")
    assert code == ExitCode.USAGE
    assert re.search(words, text)
    assert "Traceback" not in text
