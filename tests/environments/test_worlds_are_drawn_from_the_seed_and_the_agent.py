"""An agent's world is drawn from the federation's seed and the agent alone, and described wherever a federation is."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

import numpy as np
import pytest
from fedpg_common.choices import Choice
from fedpg_common.descriptions import describe, federation_from_fields, with_settings
from fedpg_common.federation import name_of
from fedpg_common.worlds import Heterogeneity, World
from fedpg_lab.deploy.compose import compose_file
from support.drawn_worlds import RANGES, drawn


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
