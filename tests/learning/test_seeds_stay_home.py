"""Nobody is told a seed from which another's draws follow: not an agent, not an attacker, unless it is omniscient."""

from __future__ import annotations

import asyncio
import dataclasses
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg_client.attacks import Attacker
from fedpg_client.process import AgentOptions
from fedpg_common.choices import Choice
from fedpg_common.cli.seeds import parse_seed
from fedpg_common.derived_seeds import agent_seed, attackers_secret, attackers_seed, random_seed
from fedpg_common.errors import UsageError
from fedpg_common.federation import SEED_MAX, Federation
from fedpg_common.learning.streams import Purpose, Role, stream
from fedpg_lab.cli import app
from fedpg_lab.local.agent_setup import agent_options
from fedpg_lab.runs.folders import load_run
from fedpg_server.storage.run_folders import folder_for
from hypothesis import given
from hypothesis import strategies as st
from support.attacks import SPEC, attack_named, context, generator
from support.lab import small_federation, write_run
from support.protocol import CALL_TIMEOUT_S, idle_federation, serving
from typer.testing import CliRunner

SEED = 1234567891011121314
SERVER = "127.0.0.1:1"
PINNED_AGENT_SEED = 5356041262567804572
PINNED_SECRET = "3b392a9788002f173595ddfdac3ed8a3"
PINNED_ATTACKERS_SEED = 8861547282471822586
seeds = st.integers(0, SEED_MAX)
agents = st.integers(1, 10_000)


# What each is told ----------------------------------------------------------------------------------------------------


def test_each_agent_is_told_a_seed_of_its_own_at_every_join(tmp_path: Path) -> None:
    async def play() -> list[list[pb.JoinReply]]:
        federation = dataclasses.replace(idle_federation(3, 1), seed=SEED)
        async with serving(tmp_path, federation) as door:
            return [
                [await door.stub.Join(pb.JoinRequest(agent=agent), timeout=CALL_TIMEOUT_S) for agent in (1, 2, 3)]
                for _ in range(2)
            ]

    first, again = asyncio.run(play())
    told = [reply.seed for reply in first]
    assert told == [agent_seed(SEED, agent) for agent in (1, 2, 3)]
    assert told == [reply.seed for reply in again]
    assert len({*told, SEED}) == 4
    for reply in first:
        assert str(SEED) not in str(reply)
        assert SEED.to_bytes(8, "little") not in reply.SerializeToString()


def test_a_partial_status_does_not_tell_the_seed() -> None:
    from fedpg_server.serving.viewers import Viewer, status_for

    whole = pb.GetStatusReply(seed=SEED, agents=[pb.AgentStatus(agent=1)])
    assert status_for(Viewer(agent=1), whole).seed == 0
    assert status_for(Viewer(), whole).seed == 0


OMNISCIENT = """
from typing import ClassVar
from fedpg_client.attacks import Attack, Knowledge

class Omniscient(Attack):
    knowledge: ClassVar[Knowledge] = Knowledge.OMNISCIENT

    def collude(self, pooled, context):
        assert context.run_seed is not None
        return -pooled[context.agent]
"""


@pytest.fixture
def omniscient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Choice]:
    """An attack that declares that it has to know everything."""
    (tmp_path / "knows_all.py").write_text(OMNISCIENT)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Choice("knows_all:Omniscient")
    sys.modules.pop("knows_all", None)


def options_of(federation: Federation) -> dict[int, AgentOptions]:
    return {options.index: options for options in agent_options(federation, SERVER)}


def mentions(options: AgentOptions, seed: int) -> bool:
    """Whether a seed is anywhere in an agent's configuration."""
    return str(seed) in repr(options) or seed.to_bytes(8, "little") in pickle.dumps(options)


def test_the_seed_is_in_the_configuration_of_omniscient_attackers_alone(omniscient: Choice) -> None:
    byzantine = {1: omniscient, 2: Choice("fedpg"), 3: Choice("fedpg"), 4: Choice("sign-flipping"), 5: omniscient}
    found = options_of(dataclasses.replace(small_federation(7, 0, seed=SEED), byzantine=byzantine))
    assert {index for index, options in found.items() if options.run_seed == SEED} == {1, 5}
    assert {index for index, options in found.items() if mentions(options, SEED)} == {1, 5}


def test_the_secret_of_attackers_is_in_their_own_configuration_alone() -> None:
    found = options_of(dataclasses.replace(small_federation(7, 3, "fedpg"), seed=SEED))
    secret = attackers_secret(SEED, (1, 2, 3))
    assert {index for index, options in found.items() if secret in repr(options)} == {1, 2, 3}


def test_only_an_omniscient_attack_is_given_the_runs_seed(omniscient: Choice) -> None:
    from fedpg_client.cli import app as agent_app

    arguments = ["--server", SERVER, "--agent", "1", "--attack", omniscient.name]
    refused = CliRunner().invoke(agent_app, arguments)
    assert isinstance(refused.exception, UsageError)
    assert "needs --run-seed" in str(refused.exception)


# What follows from what -----------------------------------------------------------------------------------------------


def test_the_derivations_do_not_change() -> None:
    assert agent_seed(0, 1) == PINNED_AGENT_SEED
    assert attackers_secret(0, (3, 1, 2)) == attackers_secret(0, (1, 2, 3)) == PINNED_SECRET
    assert attackers_seed(PINNED_SECRET) == PINNED_ATTACKERS_SEED


@given(seeds, seeds, agents, agents)
def test_seeds_of_different_agents_and_runs_differ(seed: int, other: int, agent: int, another: int) -> None:
    same = (seed, agent) == (other, another)
    assert (agent_seed(seed, agent) == agent_seed(other, another)) is same
    assert 0 <= agent_seed(seed, agent) < 2**64
    assert agent_seed(seed, agent) != seed


def test_names_of_runs_and_agents_do_not_run_into_each_other() -> None:
    pairs = [(seed, agent) for seed in (0, 1, 11, 111, 12) for agent in (1, 2, 11, 12, 111, 112)]
    assert len({agent_seed(*pair) for pair in pairs}) == len(pairs)
    groups = [(1, 2), (12,), (1, 12), (11, 2), (1, 1, 2)]
    assert len({attackers_secret(1, group) for group in groups}) == len(groups)


def first_draws(generator: np.random.Generator) -> list[int]:
    return [int(draw) for draw in generator.integers(2**63, size=2)]


def test_streams_of_the_server_the_agents_and_the_attackers_do_not_meet() -> None:
    known = [agent_seed(SEED, 1), agent_seed(SEED, 2), attackers_seed(attackers_secret(SEED, (1, 2)))]
    servers = [first_draws(stream(SEED, Role.SERVER, purpose, round_number=1)) for purpose in Purpose]
    told = [
        first_draws(stream(seed, role, purpose, agent=agent, round_number=1))
        for seed in known for role in Role for purpose in Purpose for agent in (0, 1, 2)
    ]  # fmt: skip
    assert not [draws for draws in told if draws in servers]


# The attackers' common stream -----------------------------------------------------------------------------------------


def direction(attacker: Attacker, agent: int) -> bytes:
    """What an attacker of `fedpg` submits when it has pooled the same gradients as the others."""
    pooled = dict(zip((1, 2, 3), generator(1).standard_normal((3, SPEC.size)).astype(np.float32), strict=True))
    return attacker.attack.collude(
        pooled, context(agent=agent, common=attacker.common_stream(agent, round_number=4))
    ).tobytes()


def test_attackers_have_a_stream_in_common_that_follows_from_their_secret() -> None:
    def all_three(**values: Any) -> set[bytes]:
        attacker = Attacker(attack_named("fedpg"), attackers=(1, 2, 3), **values)
        return {direction(attacker, agent) for agent in (1, 2, 3)}

    one, other, none = all_three(secret="one"), all_three(secret="other"), all_three()
    assert len(one) == len(other) == len(none) == 1
    assert len(one | other | none) == 3


def test_without_a_secret_the_common_stream_is_no_draw_of_the_runs_seed() -> None:
    attacker = Attacker(attack_named("fedpg"), attackers=(1, 2, 3))
    for seed in (0, 1, SEED):
        of_the_run = stream(seed, Role.ATTACKERS, Purpose.ATTACK, round_number=4)
        assert first_draws(attacker.common_stream(1, 4)) != first_draws(of_the_run)


# A seed that nobody can guess -----------------------------------------------------------------------------------------


def test_a_random_seed_is_another_each_time_and_within_range() -> None:
    drawn = {random_seed() for _ in range(100)}
    assert len(drawn) == 100
    assert all(0 <= seed <= SEED_MAX for seed in drawn)
    assert max(drawn) > 2**57


@pytest.mark.parametrize("text", ["-1", "1.5", "", "Random", "9223372036854775808", "1e3", "٣", "0x10", "1" * 5000])
def test_a_seed_that_is_none_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(UsageError, match="the seed must be a whole number") as caught:
        parse_seed(text)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("seed", [0, 7, SEED_MAX])
def test_a_seed_is_a_number_as_before(seed: int) -> None:
    assert parse_seed(str(seed)) == seed


def test_train_prints_and_stores_a_random_seed(tmp_path: Path) -> None:
    arguments = ["train", "--agents", "2", "--trajectories", "1", "--seed", "random", "--name", "run"]
    arguments += ["--out", str(tmp_path), "--no-tensorboard", "--agents-per-process", "2"]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 0, outcome.output
    seed = load_run(tmp_path / "run").federation.seed
    assert seed > 2**20
    assert f"Seed {seed}, drawn at random." in outcome.output
    assert str(seed) in (tmp_path / "run" / "config.toml").read_text()


def test_compose_writes_the_seed_that_it_has_drawn() -> None:
    outcome = CliRunner().invoke(app, ["compose", "--agents", "2", "--seed", "random"])
    assert outcome.exit_code == 0, outcome.output
    (line,) = [line for line in outcome.stdout.splitlines() if "FEDPG_SEED:" in line]
    seed = int(line.rpartition(":-")[2].rstrip("}"))
    assert f"Seed {seed}, drawn at random." in outcome.stderr


def test_a_restarted_server_goes_on_with_the_seed_that_it_had_drawn(tmp_path: Path) -> None:
    first = dataclasses.replace(small_federation(), seed=random_seed())
    folder, _ = folder_for(tmp_path, first, any_seed=True)
    write_run(folder, first, [])
    again = dataclasses.replace(first, seed=random_seed())
    assert folder_for(tmp_path, again, any_seed=True) == (folder, True)
    assert folder_for(tmp_path, again) == (tmp_path / f"{folder.name}-2", False)
    other = dataclasses.replace(again, round_timeout_s=5.0)
    assert folder_for(tmp_path, other, any_seed=True) == (tmp_path / f"{folder.name}-2", False)
