"""A misspelt name, wherever it stands: the sentence repeats it, says what was probably meant, and lists the choices."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from fedpg_common.checks import unknown
from fedpg_common.descriptions import federation_from_toml, with_settings
from fedpg_common.environments import make_environments
from fedpg_common.errors import UsageError
from fedpg_common.tasks import find_task
from fedpg_lab.experiments.plan import read_experiment
from fedpg_lab.faults.scenario import read_scenario
from support.lab import Command

TASK = 'task = "CartPole-v1"\n'
MATRIX = f'[matrix]\n{TASK}byzantine = 3\nrows = ["krum"]\nattacks = ["alie"]\n'


@pytest.mark.parametrize(
    ("text", "misspelt", "meant"),
    [
        (f"{TASK}agnts = 3", "field 'agnts'", "agents"),
        (f"{TASK}gama = 0.9", "field 'gama'", "gamma"),
        (f"{TASK}[reward]\nnois = 1", "field of reward 'nois'", "noise"),
        (f"{TASK}[heterogeneity.reward]\nnois = [0, 1]", "field of reward 'nois'", "noise"),
        (f"{TASK}[environments.3]\nenvironment_option = {{}}", "field 'environment_option'", "environment_options"),
        (f"{TASK}[environments.3.reward]\nshft = 1", "field of reward 'shft'", "shift"),
        (f'{TASK}[byzantine]\n1 = "ali"', "attack 'ali'", "alie"),
        (f'{TASK}aggregator = "krumm"', "aggregator 'krumm'", "krum"),
        (f'{TASK}algorithm = {{ name = "svrgp" }}', "algorithm 'svrgp'", "svrpg"),
        ('task = "CartPole-v2"', "task 'CartPole-v2'", "CartPole-v1"),
        ('[task]\nname = "mine"\nenvironmnt = "CartPole-v1"', "field 'environmnt'", "environment"),
    ],
)
def test_in_a_description(text: str, misspelt: str, meant: str) -> None:
    with pytest.raises(UsageError) as refused:
        federation_from_toml(text, "federation file f.toml")
    assert f"unknown {misspelt}: did you mean {meant}? Otherwise choose one of " in str(refused.value)


def test_an_option_of_the_environment_that_stands_one_table_too_high() -> None:
    with pytest.raises(UsageError, match="an option of the environment belongs into environment_options"):
        federation_from_toml(f"{TASK}[environments.3]\ngravity = 9", "federation file f.toml")


def test_a_misspelt_spread_is_told_what_is_a_number() -> None:
    with pytest.raises(UsageError, match=r"sprad must be a range .*; only spread is a number"):
        federation_from_toml(f"{TASK}[heterogeneity]\ngravity = [8, 12]\nsprad = 2", "federation file f.toml")


@pytest.mark.parametrize(
    ("task", "meant", "others"),
    [
        ("CartPole-v1", "gravity", "masscart, masspole, length, force_mag, sutton_barto_reward"),
        ("LunarLander-v3", "gravity", "enable_wind, wind_power, turbulence_power"),
        ("HalfCheetah-v5", "gravity", "mass_scale, xml_file, frame_skip"),
        ("InvertedPendulum-v5", "gravity", "mass_scale"),
    ],
)
def test_an_option_of_an_environment(task: str, meant: str, others: str) -> None:
    with pytest.raises(UsageError) as refused:
        make_environments(dataclasses.replace(find_task(task), environment_options={"gravty": 9}))
    assert f"unknown option 'gravty': did you mean {meant}? Otherwise choose one of " in str(refused.value)
    assert others in str(refused.value)
    assert "keyword" not in str(refused.value)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("task.gama=0.9", "unknown field of the task 'gama': did you mean gamma?"),
        ("heterogenity.gravity=[8,9]", "unknown owner of a setting 'heterogenity': did you mean heterogeneity?"),
        ("environments.3.reward.nois=1", "unknown field of reward 'nois': did you mean noise?"),
    ],
)
def test_in_a_setting_of_a_command_line(setting: str, sentence: str) -> None:
    with pytest.raises(UsageError) as refused:
        with_settings({"task": "CartPole-v1"}, [setting])
    assert str(refused.value).startswith(f"--set {setting}: {sentence}")


def test_a_setting_of_a_part(fedpg: Command) -> None:
    for option in (("--aggregator", "krum"), ("--byzantine", "1", "--attack", "turns")):
        code, _, error = fedpg("train", *option, "--set", "falty=1" if "krum" in option else "stelth=1")
        assert code == 2
        assert "unknown setting" in error
        assert "did you mean faulty? Its settings are " in error or "did you mean stealth? Its settings are " in error


@pytest.mark.parametrize(
    ("text", "misspelt", "meant"),
    [
        ("titel = 'x'", "field 'titel'", "title"),
        (f"[[federation]]\n{TASK}agnts = 3", "field of [[federation]] 'agnts'", "agents"),
        (f"[[federation]]\n{TASK}[quick]\nsedes = 1", "field of [quick] 'sedes'", "seeds"),
        (f"[[federation]]\n{TASK}[reproduction]\ncary_adam = 1", "field of [reproduction] 'cary_adam'", "carry_adam"),
        (f"{MATRIX}agnts = 3", "field of [matrix] 'agnts'", "agents"),
        (MATRIX.replace('"krum"', '{ agregator = "krum" }'), "field of a row of [matrix] 'agregator'", "aggregator"),
        (f'{MATRIX}[quick]\nrows = ["krumm"]', "name in quick.rows 'krumm'", "krum"),
    ],
)  # fmt: skip
def test_in_an_experiment(tmp_path: Path, text: str, misspelt: str, meant: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as refused:
        read_experiment(str(file), quick=True)
    assert f"unknown {misspelt}: did you mean {meant}? Otherwise choose one of " in str(refused.value)


@pytest.mark.parametrize(
    ("text", "misspelt", "meant"),
    [
        ("titel = 'x'", "field 'titel'", "title"),
        (f"[federation]\n{TASK}agnts = 3", "field 'agnts'", "agents"),
        (f"[federation]\n{TASK}[[fault]]\nkin = 'kill'", "field 'kin'", "kind"),
        (f"[federation]\n{TASK}[[fault]]\nkind = 'kil'\non = [1]", "kind 'kil'", "kill"),
        (f"[federation]\n{TASK}[[fault]]\nkind = 'partition'\nsplit = 'majorty'", "split 'majorty'", "majority"),
    ],
)
def test_in_a_scenario(tmp_path: Path, text: str, misspelt: str, meant: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as refused:
        read_scenario(str(file))
    assert f"unknown {misspelt}: did you mean {meant}? Otherwise choose one of " in str(refused.value)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (("experiment", "figure1"), "unknown experiment 'figure1': did you mean figure-1?"),
        (("faults", "majority-partion"), "unknown scenario 'majority-partion': did you mean majority-partition?"),
        (("check", "bulian"), "unknown aggregator or attack 'bulian': did you mean bulyan?"),
        (("train", "--observer", "tensorbord"), "unknown observer 'tensorbord': did you mean tensorboard?"),
    ],
)
def test_on_a_command_line(fedpg: Command, command: tuple[str, ...], sentence: str) -> None:
    code, _, error = fedpg(*command)
    assert (code, sentence in error) == (2, True), error


def test_nothing_is_guessed_where_nothing_is_near() -> None:
    assert str(unknown("thing", "xyzzy", ["alpha", "beta"])) == "unknown thing 'xyzzy': choose one of alpha, beta"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("foo", ""),
        ("bar", ""),
        ("rim", "trim"),
        ("kurm", "krum"),
        ("ali", "alie"),
        ("flod", "flood"),
        ("nim", ""),
        ("KRUM", "krum"),
        ("agents", ""),
    ],
)
def test_a_short_name_is_no_misspelling_of_a_long_one(name: str, meant: str) -> None:
    sentence = str(unknown("attack", name, ["flood", "trim", "krum", "alie", "boundary", "min-max", "at_s"]))
    assert ("did you mean" in sentence) == bool(meant)
    assert f"did you mean {meant}?" in sentence or not meant
