"""Every agent learns in a world of its own, told of no other; what does not fit is refused with one sentence."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg.v1 import federation_pb2_grpc
from fedpg_client import cli as client_cli
from fedpg_client.trust import check_trusted, trusting
from fedpg_common.errors import ExitCode, RefusedError, UsageError
from fedpg_common.federation import Federation
from fedpg_common.tasks import CARTPOLE
from fedpg_common.transport import wire
from fedpg_common.transport.channels import open_channel
from fedpg_common.worlds import World, world_from_settings
from fedpg_lab.local.agent_setup import agent_options
from fedpg_lab.runs.folders import load_run
from support.drawn_worlds import drawn
from support.lab import Command
from support.protocol import serving_in_a_thread


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
