"""A rule that does not fit the federation, or a setting that it does not know, is refused with one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fedpg_common.choices import Choice
from fedpg_common.errors import UsageError
from fedpg_common.learning.aggregators import (
    build_aggregator,
    check_federation,
)
from support.lab import Command
from support.votes import TASK


@pytest.mark.parametrize(
    ("choice", "agents", "has_own", "sentence"),
    [
        (Choice("mda"), 60, False, "mda searches subsets without f votes, f at most 16, not 18: set faulty, or take"),
        (Choice("smea"), 30, False, "smea tries all subsets of 21 of 30 votes, at most 30,000, and there are 1.43e+07"),
        (
            Choice("bulyan"),
            10,
            False,
            "4f + 3 agents, which are 15 with f = 3, and there are 10: set faulty to at most",
        ),
        (Choice("monna"), 10, False, "monna trusts the server's own gradient, and the algorithm does not estimate one"),
        (Choice("fltrust", {"after": ["nnm"]}), 10, False, "fltrust trusts the server's own gradient"),
        (Choice("smea", {"after": ["nnm"]}), 30, False, "21 of 30 votes"),
        (Choice("smea", {"after": [{"name": "bucketing", "size": 3}]}), 30, False, ""),
        (Choice("mda", {"faulty": 16}), 1000, False, ""),
        (Choice("bulyan", {"faulty": 1}), 10, False, ""),
        (Choice("fltrust"), 10, True, ""),
        (Choice("krum"), 10, False, ""),
        (Choice("krum", {"faulty": 9}), 10, False, "faulty must be less than half of the 10 agents, not 9"),
    ],
)
def test_what_a_rule_cannot_do_is_said_before_a_run(choice: Choice, agents: int, has_own: bool, sentence: str) -> None:
    aggregator = build_aggregator(choice)
    if not sentence:
        check_federation(aggregator, choice, TASK, agents, has_own)
        return
    with pytest.raises(UsageError) as caught:
        check_federation(aggregator, choice, TASK, agents, has_own)
    assert str(caught.value).startswith(f"aggregator {choice.name}: ")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_command_that_asks_for_it_ends_before_a_run_folder_is_made(tmp_path: Path, fedpg: Command) -> None:
    for arguments, sentence in (
        (("--aggregator", "smea", "--agents", "30", "--alpha", "0.3"), "smea tries all subsets of 21 of 30 votes"),
        (("--aggregator", "mda", "--agents", "60"), "mda searches subsets without f votes"),
        (("--aggregator", "bulyan", "--byzantine", "2"), "bulyan needs 4f + 3 agents"),
    ):
        code, _, text = fedpg("train", *arguments, "--out", str(tmp_path), "--name", "run")
        assert (code, len(text.splitlines())) == (2, 1), text
        assert sentence in text
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "chosen", "sentence"),
    [
        *[
            (name, {"faulty": -1}, "faulty must be a whole number")
            for name in ("meamed", "mda", "bulyan", "caf", "smea", "monna", "dnc")
        ],
        ("geometric-median", {"steps": 0}, "steps must be a whole number from 1 to 1000, not 0"),
        ("geometric-median", {"smoothing": 0}, "smoothing must be a positive number, not 0"),
        ("centered-clipping", {"radius": -1}, "radius must be a positive number, not -1"),
        ("centered-clipping", {"steps": 1.5}, "steps must be a whole number"),
        ("centered-clipping", {"momentum": 1}, "momentum must be at least 0 and below 1, not 1"),
        ("signguard", {"share": 0}, "share must be above 0 and at most 1, not 0"),
        ("signguard", {"shortest": 2}, "shortest must be from 0 to 1, not 2"),
        ("signguard", {"longest": 0.5}, "longest must be a number of at least 1, not 0.5"),
        ("dnc", {"draws": 0}, "draws must be a whole number from 1 to 100, not 0"),
        ("dnc", {"share": "x"}, "share must be above 0 and at most 1, not 'x'"),
        ("median", {"faulty": 1}, "its settings are none"),
        ("fltrust", {"faulty": 1}, "its settings are batch"),
        (
            "krum",
            {"after": [{"name": "bucketing", "size": 0}]},
            "pre-aggregator bucketing: size must be a whole",
        ),
        ("krum", {"after": [{"name": "clipping", "length": 0}]}, "pre-aggregator clipping: length must be a positive"),
        ("krum", {"after": [{"name": "arc", "faulty": 0.5}]}, "pre-aggregator arc: faulty must be a whole number"),
    ],
)
def test_a_wrong_setting_is_one_sentence(name: str, chosen: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_aggregator(Choice(name, chosen))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
