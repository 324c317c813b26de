"""Tasks and federations come back from TOML as they went in; a bad field is refused with a sentence that names it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from fedpg_common.descriptions import describe, federation_from_toml, federation_to_toml, read_federation
from fedpg_common.errors import UsageError
from fedpg_common.federation import AGENTS_MAX, Federation
from fedpg_common.tasks import CARTPOLE, TASKS, Task, find_task, task_from_fields, task_to_fields
from hypothesis import given, settings
from hypothesis import strategies as st
from support.task_strategies import federations, tasks

BAD_TASK_FIELDS: list[tuple[str, Any]] = [
    *[(name, bad) for name in ("horizon", "evaluation_horizon", "trajectories", "batch_size", "batch_size_min",
                               "mini_batch_size", "inner_steps", "batch_size_max")
      for bad in (0, -1, 1.5, "many", True, 2**31, 10**30)],
    *[(name, bad) for name in ("learning_rate", "sigma") for bad in (0, -1.0, float("nan"), float("inf"), "x", True)],
    ("gamma", -0.1), ("gamma", 1.1), ("gamma", float("nan")), ("gamma", "x"),
    ("delta", 0), ("delta", 1), ("delta", float("nan")),
    ("alpha", -0.1), ("alpha", 0.5), ("alpha", float("nan")),
    ("activation", "gelu"), ("activation", 3),
    ("baseline", "state"), ("baseline", 3), ("baseline", ["time"]),
    ("hidden", 16), ("hidden", [0]), ("hidden", [16, "x"]), ("hidden", [True]), ("hidden", "16,16"),
    ("batch_size_max", 11),
    ("name", ""), ("name", 5), ("name", "two\nlines"), ("environment", ""), ("environment", 5),
    ("environment_options", 3), ("environment_options", {"a": float("nan")}), ("environment_options", [1]),
    ("wrappers", "my:Wrap"), ("wrappers", ["Wrap"]), ("wrappers", [{"size": 1}]), ("wrappers", [3]),
    ("reward", 2), ("reward", {"scale": "x"}), ("reward", {"noise": -0.1}), ("reward", {"bias": 1}),
]  # fmt: skip

BAD_RANGES: list[Any] = [3, [1], [2, 1], [1, "x"], [1, 2, 3], [float("nan"), 1], "1..2"]
BAD_FEDERATION_FIELDS: list[tuple[str, Any, str]] = [
    *[("agents", bad, "agents") for bad in (0, -1, 2.5, "ten", True, AGENTS_MAX + 1, 10**30)],
    *[("seed", bad, "seed") for bad in (-1, 0.5, "x", True, 2**63)],
    *[("round_timeout_s", bad, "round_timeout_s") for bad in (0, -1.0, float("nan"), float("inf"), 1e300, "x", True)],
    *[("algorithm", bad, "algorithm") for bad in ("ppo", 3, ["svrpg"])],
    *[("byzantine", bad, "byzantine") for bad in (2.5, True, "x", [1], {"x": "random-noise"}, {"-1": "random-noise"})],
    ("byzantine", {"11": "random-noise"}, "agent 11"),
    ("byzantine", {"0": "random-noise"}, "agent 0"),
    ("byzantine", {"1": "bribery"}, "attack"),
    ("byzantine", {"1": {"a": 1}}, "attack"),
    ("task", 5, "task"),
    ("task", ["CartPole-v1"], "task"),
    ("task", "NoSuchTask", "NoSuchTask"),
    ("task", {}, "name"),
    ("attackers", 3, "attackers"),
    *[("environments", bad, "environments") for bad in (3, [1])],
    *[("environments", {index: {"reward": {}}}, "environments") for index in ("x", "-1", "11", "0")],
    ("environments", {"1": {"gravity": 3}}, "environments.1"),
    ("environments", {"1": 3}, "environments.1"),
    ("environments", {"2": {"environment_options": [1]}}, "environment_options"),
    ("environments", {"2": {"wrappers": ["Wrap"]}}, "wrappers"),
    ("environments", {"2": {"reward": {"noise": -1}}}, "noise"),
    ("environments", {"2": {"reward": {"bias": 1}}}, "bias"),
    *[("heterogeneity", {"gravity": bad}, "gravity") for bad in BAD_RANGES],
    *[("heterogeneity", {"gravity": [1, 2], "spread": bad}, "spread") for bad in (-1, "x", float("inf"), True)],
    ("heterogeneity", {"reward": {"bias": [0, 1]}}, "reward"),
    ("heterogeneity", 3, "heterogeneity"),
    *[("worlds_every", bad, "worlds_every") for bad in (-1, 1.5, "x", True)],
]


def fields_of(federation: Federation) -> dict[str, Any]:
    return {"agents": federation.agents, "task": task_to_fields(federation.task)}


@settings(max_examples=40)
@given(federations())
def test_every_federation_survives(federation: Federation) -> None:
    assert federation_from_toml(federation_to_toml(federation), "text") == federation


@settings(max_examples=40)
@given(tasks())
def test_every_task_file_survives(tmp_path_factory: pytest.TempPathFactory, task: Task) -> None:
    path = tmp_path_factory.mktemp("tasks") / "task.toml"
    path.write_text(tomli_w.dumps(task_to_fields(task)), encoding="utf-8")
    found = find_task(str(path))
    assert replace(found, module_folder="") == task
    assert bool(found.module_folder) == (task.environment.partition(":")[1] == ":" and task.environment[0] != ":")


@pytest.mark.parametrize(
    ("field", "bad", "words"),
    [
        ("learning_rate", 1e39, r"learning_rate must be a positive number from 1e-37 to 1e\+37, not 1e\+39"),
        ("learning_rate", 1e-50, "learning_rate must be a positive number from 1e-37"),
        ("sigma", 1e300, r"sigma must be .* not 1e\+300"),
        ("delta", 5e-324, "delta must be between 0 and 1, and at least 1e-37, not 5e-324"),
        ("batch_size_max", 2, "batch_size_max must be a whole number from batch_size_min, 12, to 1000000, not 2"),
        ("batch_size", 2**31 - 1, "batch_size must be a whole number from 1 to 1000000, not 2147483647"),
        ("hidden", [1] * 101, "hidden must be a list of at most 100 layer sizes"),
    ],
)
def test_what_is_beyond_the_machine_is_refused_with_the_range(field: str, bad: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        task_from_fields({**task_to_fields(CARTPOLE), field: bad})


@pytest.mark.parametrize("name", TASKS)
def test_a_federation_may_name_a_published_task(name: str) -> None:
    assert federation_from_toml(f'task = "{name}"', "text") == Federation(task=TASKS[name])


@pytest.mark.parametrize(("field", "bad"), BAD_TASK_FIELDS)
def test_a_bad_task_field_is_named(field: str, bad: Any) -> None:
    with pytest.raises(UsageError, match=field) as caught:
        task_from_fields({**task_to_fields(CARTPOLE), field: bad}, source="task file x.toml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", [name for name in task_to_fields(CARTPOLE) if name not in
                                   ("delta", "sigma", "alpha", "environment_options")])  # fmt: skip
def test_a_missing_task_field_is_named(field: str) -> None:
    fields = {name: value for name, value in task_to_fields(CARTPOLE).items() if name != field}
    with pytest.raises(UsageError, match=f"'{field}' is missing"):
        task_from_fields(fields)


def test_an_unknown_task_field_is_named() -> None:
    with pytest.raises(UsageError, match="'learning-rate'"):
        task_from_fields({**task_to_fields(CARTPOLE), "learning-rate": 0.1})


@pytest.mark.parametrize(("field", "bad", "named"), BAD_FEDERATION_FIELDS)
def test_a_bad_federation_field_is_named_with_its_source(field: str, bad: Any, named: str) -> None:
    text = tomli_w.dumps({**fields_of(describe("CartPole-v1")), field: bad})
    with pytest.raises(UsageError, match=named) as caught:
        federation_from_toml(text, "federation file f.toml")
    assert str(caught.value).startswith("federation file f.toml")
    assert str(caught.value).count("federation file f.toml") == 1


def test_a_bad_field_of_a_federations_task_is_named_with_the_source() -> None:
    fields = fields_of(describe("CartPole-v1"))
    fields["task"]["sigma"] = -1.0
    with pytest.raises(UsageError, match=r"^federation file f.toml: .*sigma"):
        federation_from_toml(tomli_w.dumps(fields), "federation file f.toml")


@given(st.text(max_size=40))
def test_text_that_is_no_description_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="somewhere"):
        federation_from_toml(text, "somewhere")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"agents = " + b"9" * 5000, b"a = " + b"[" * 5000, b"agents = ="])
def test_files_that_are_no_toml_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    for read in (read_federation, lambda path: find_task(str(path))):
        with pytest.raises(UsageError, match=r"bad\.toml"):
            read(path)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.toml", tmp_path):
        with pytest.raises(UsageError, match=str(path)):
            read_federation(path)
    with pytest.raises(UsageError, match=r"missing\.toml"):
        find_task(str(tmp_path / "missing.toml"))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"agents": 0}, "agents"),
        ({"agents": 3, "byzantine": 4}, "4 Byzantine"),
        ({"byzantine": -1}, "-1 Byzantine"),
        ({"attack": "bribery", "byzantine": 1}, "attack"),
        ({"algorithm": "ppo"}, "algorithm"),
        ({"sigma": -1.0}, "sigma"),
        ({"alpha": 0.5}, "alpha"),
        ({"trajectories": 0}, "trajectories"),
    ],
)
def test_a_federation_described_by_options_is_checked_too(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        describe("CartPole-v1", **options)


def test_an_unknown_task_is_refused_with_the_choices() -> None:
    with pytest.raises(UsageError, match=r"CartPole-v1, LunarLander-v3, HalfCheetah-v5"):
        describe("Pong-v5")
