"""`fedpg-agent` takes any attack with its settings, as a name or a table, and says what is wrong with one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from fedpg_client import cli
from fedpg_client.attacks import Knowledge, knowledge_of
from fedpg_client.cli import parse_attack, parse_collusion
from fedpg_client.process import AgentOptions, AgentProcess, Collusion
from fedpg_common.choices import Choice
from fedpg_common.errors import ExitCode, UsageError
from fedpg_common.shipped import ATTACKS, acts_alone
from typer.testing import CliRunner

EXAMPLES = Path(__file__).parents[2] / "examples" / "extending"


@pytest.mark.parametrize(
    ("text", "settings", "expected"),
    [
        ("", [], None),
        ("sign-flipping", [], Choice("sign-flipping")),
        (" sign-flipping ", ["factor=-1", "starts_at=500"], Choice("sign-flipping", {"factor": -1, "starts_at": 500})),
        ('{ name = "fedpg", deviation = 2.5 }', [], Choice("fedpg", {"deviation": 2.5})),
        ('{ name = "fedpg", deviation = 2.5 }', ["deviation=4"], Choice("fedpg", {"deviation": 4})),
        ("alie:ALIE", ["z=1.2"], Choice("alie:ALIE", {"z": 1.2})),
        ("alie:ALIE", ["attack.z=1.2", "aggregator.faulty=3"], Choice("alie:ALIE", {"z": 1.2})),
        ("", ["task.gamma=0.9", "algorithm.steps=2"], None),
    ],
)
def test_an_attack_is_a_name_or_a_table(text: str, settings: list[str], expected: Choice | None) -> None:
    assert parse_attack(text, settings) == expected


@pytest.mark.parametrize(
    ("text", "settings", "sentence"),
    [
        ("", ["factor=1"], "--set factor=1 is a setting of an attack: add --attack NAME"),
        ("sign-fliping", [], "did you mean sign-flipping?"),
        ("{ deviation = 2 }", [], "the table needs a name"),
        ('{ name = "fedpg"', [], "is not a table in TOML"),
        ("fedpg", ["deviation"], "a setting is written NAME=VALUE"),
    ],
)
def test_what_is_not_an_attack_is_refused_with_a_sentence(text: str, settings: list[str], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_attack(text, settings)
    assert sentence in str(caught.value)


def test_accomplices_are_a_list_and_a_place_to_meet() -> None:
    assert parse_collusion("3,1, 2", "h:1", "0.0.0.0:1", "s", 2) == Collusion((1, 2, 3), "h:1", "0.0.0.0:1", "s")
    assert parse_collusion("", "", "", "", 5) == Collusion((5,))


@pytest.mark.parametrize(
    ("attackers", "address", "error", "sentence"),
    [
        ("1,x", "h:1", UsageError, "takes agent indices such as 1,2,3, not '1,x'"),
        ("1,3", "h:1", UsageError, "agent 2 is not among its own --attackers 1,3"),
        ("0,2", "h:1", UsageError, "agent indices from 1"),
        (",".join(map(str, range(1, 400))), "h:1", UsageError, "takes 1 to 256 agent indices"),
        ("1,2", "", UsageError, "needs --ring"),
        ("1,2", "nowhere", UsageError, "HOST:PORT"),
    ],
)
def test_bad_accomplices_are_refused_with_a_sentence(
    attackers: str, address: str, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error) as caught:
        parse_collusion(attackers, address, "", "", 2)
    assert sentence in str(caught.value)


def options_for(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], environment: dict[str, str] | None = None
) -> AgentOptions:
    """What the command makes of its options."""
    seen: list[AgentOptions] = []

    def run(process: AgentProcess) -> ExitCode:
        seen.extend(process.agents)
        return ExitCode.OK

    monkeypatch.setattr(cli, "run_until_signalled", run)
    outcome = CliRunner().invoke(
        cli.app, ["--server", "127.0.0.1:1", "--agent", "2", *arguments], env=environment, catch_exceptions=False
    )
    assert outcome.exit_code == 0, outcome.output
    return seen[0]


def test_the_environment_says_the_same_as_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [
        "--attack", "fedpg", "--set", "deviation=2", "--set", "on=3", "--set", "off=1", "--attackers", "1,2",
        "--ring", "a:1", "--ring-listen", "0.0.0.0:1", "--attackers-secret", "quiet",
    ]  # fmt: skip
    environment = {
        "FEDPG_ATTACK": "fedpg", "FEDPG_SET": "deviation=2 on=3 off=1", "FEDPG_ATTACKERS": "1,2", "FEDPG_RING": "a:1",
        "FEDPG_RING_LISTEN": "0.0.0.0:1", "FEDPG_ATTACKERS_SECRET": "quiet",
    }  # fmt: skip
    table = {**environment, "FEDPG_ATTACK": '{name = "fedpg", deviation = 2, on = 3, off = 1}', "FEDPG_SET": ""}
    expected = options_for(monkeypatch, arguments)
    assert expected.attack == Choice("fedpg", {"deviation": 2, "on": 3, "off": 1})
    assert expected.collusion == Collusion((1, 2), "a:1", "0.0.0.0:1", "quiet")
    assert options_for(monkeypatch, [], environment) == expected
    assert options_for(monkeypatch, [], table) == expected


def test_an_attack_that_does_not_collude_ignores_where_to_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    meeting = ["--attackers", "1,2", "--ring", "a:1", "--attackers-secret", "quiet", "--run-seed", "7"]
    options = options_for(monkeypatch, ["--attack", "sign-flipping", *meeting])
    assert (options.collusion, options.run_seed) == (None, None)


def test_an_omniscient_attack_is_told_the_runs_seed_and_the_servers_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--attack", "worst-down", "--run-seed", "7", "--aggregator", "krum"]
    arguments += ["--set", "aggregator.faulty=1", "--set", "reach=4"]
    environment = {
        "FEDPG_ATTACK": "worst-down", "FEDPG_RUN_SEED": "7", "FEDPG_AGGREGATOR": "krum",
        "FEDPG_SET": "aggregator.faulty=1 attack.reach=4",
    }  # fmt: skip
    options = options_for(monkeypatch, arguments)
    assert (options.run_seed, options.aggregator) == (7, Choice("krum", {"faulty": 1}))
    assert options.attack == Choice("worst-down", {"reach": 4})
    assert options_for(monkeypatch, [], environment) == options


def test_attackers_on_one_machine_may_meet_without_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("127.0.0.1:1", "localhost:1", "[::1]:1"):
        options = options_for(monkeypatch, ["--attack", "fedpg", "--attackers", "1,2", "--ring", address])
        assert options.collusion == Collusion((1, 2), address)


def test_a_module_in_the_working_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_attack.py").write_text((EXAMPLES / "orthogonal.py").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    options = options_for(monkeypatch, ["--attack", "my_attack:Orthogonal", "--set", "length=2"])
    assert options.attack == Choice("my_attack:Orthogonal", {"length": 2})
    sys.modules.pop("my_attack", None)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--attack", "sign-flipping", "--set", "factor=much"], "factor must be a number"),
        (["--attack", "no_such_module:Attack"], "no_such_module cannot be imported"),
        (["--attack", "fedpg", "--attackers", "1,2"], "needs --ring"),
        (["--attack", "fedpg", "--attackers", "1,2", "--ring", "a:1"], "keep it with a secret"),
        (
            ["--attack", "fedpg", "--attackers", "1,2", "--ring", "127.0.0.1:1", "--ring-listen", "0.0.0.0:1"],
            "keep it with a secret",
        ),
    ],
)
def test_a_wrong_option_ends_the_command_before_it_calls_anybody(arguments: list[str], sentence: str) -> None:
    outcome: Any = CliRunner().invoke(cli.app, ["--server", "127.0.0.1:1", "--agent", "2", *arguments])
    assert isinstance(outcome.exception, UsageError)
    assert sentence in str(outcome.exception)


def test_who_acts_alone_is_known_without_the_attacks_code() -> None:
    for name in ATTACKS.shipped:
        choice = Choice(name)
        assert acts_alone(choice) == (knowledge_of(choice) is Knowledge.OWN), name
    assert not acts_alone(Choice("mine:Attack"))
