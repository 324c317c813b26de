"""docs/attacks-catalogue.md has every attack on the learning, with its knowledge and its settings as they are."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from fedpg_client.attacks import build_attacker
from fedpg_common.choices import Choice, parse_settings
from fedpg_common.shipped import ATTACKS
from support.attacks import ON_THE_LEARNING, attack_named

PAGE = (Path(__file__).parents[2] / "docs" / "attacks-catalogue.md").read_text(encoding="utf-8")
ROWS = {
    cells[0].strip("` "): [cell.strip() for cell in cells[1:]]
    for cells in (re.split(r"(?<!\\)\|", line.strip("|")) for line in PAGE.splitlines() if line.startswith("| `"))
}
AS_ANOTHER = re.compile(r"as `([\w-]+)`")


def test_the_page_has_every_attack_on_the_learning_and_no_other() -> None:
    assert sorted(ROWS) == sorted(ON_THE_LEARNING)


@pytest.mark.parametrize("name", ON_THE_LEARNING)
def test_a_row_tells_knowledge_and_settings(name: str) -> None:
    knows, _, settings, *_ = ROWS[name]
    assert knows == attack_named(name).knowledge.name.lower()
    if another := AS_ANOTHER.fullmatch(settings):
        settings = ROWS[another[1]][2]
    told = {key: value.replace("−", "-") for key, value in re.findall(r"`(\w+)` = ([^,\s(]+)", settings)}
    parameters = inspect.signature(ATTACKS.find(name)).parameters
    defaults = {key: "none" if value.default is None else str(value.default) for key, value in parameters.items()}
    assert told == defaults


@pytest.mark.parametrize("command", re.findall(r"--attack [^`\n]*", PAGE))
def test_the_commands_of_the_page_build_their_attack(command: str) -> None:
    _, name, *settings = command.split()
    build_attacker(Choice(name, parse_settings([pair for pair in settings if pair != "--set"])))
