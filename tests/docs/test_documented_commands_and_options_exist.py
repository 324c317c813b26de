"""Every command, option, make target and exit code that the documentation shows is there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
from fedpg_common.errors import ExitCode
from support.documentation import ROOT, pages, without_code

APPS = {"fedpg": "fedpg_lab.cli", "fedpg-server": "fedpg_server.cli", "fedpg-agent": "fedpg_client.cli"}
INVOCATION = re.compile(r"(?:^|(?<=[\s/;(]))(fedpg(?:-server|-agent)?)(?=\s|$)(?!/)([^|;>&\n]*)")
"""A command with what follows it, up to a pipe, a redirection or the end."""
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
MAKE = re.compile(r"(?:^|\s)make +(?:PYTHON=\S+ +)?([a-z][a-z-]*)")


def code_of(markdown: str) -> Iterator[str]:
    """The lines of code in a page: of shell blocks, of comments in TOML blocks, and between backquotes."""
    for language, block in FENCE.findall(markdown):
        if language in ("", "sh", "bash", "console"):
            yield from block.replace("\\\n", " ").splitlines()
        elif language == "toml":
            yield from (line.partition("#")[2] for line in block.splitlines() if "#" in line)
    yield from (span.replace("\n", " ") for span in SPAN.findall(without_code(markdown)))


def invocations(markdown: str) -> Iterator[list[str]]:
    """Our commands with their arguments, as the page's code has them."""
    for line in code_of(markdown):
        if line.strip().startswith(("fedpg: ", "fedpg-")) and ": " in line.split("#")[0].split(" --")[0]:
            continue  # what a command prints: "fedpg: no such folder"
        line = re.sub(r"\s#.*", "", line)
        for match in INVOCATION.finditer(line):
            name, rest = match.groups()
            before = line[: match.start()]
            if re.search(r"docker|kubectl", before) and (name != "fedpg" or re.search(r"-\S+\s*$", before)):
                continue  # the name of an image, a network or a service
            yield [name, *shlex.split(rest.replace("'", "").replace('"', ""))]


def commands() -> dict[str, Any]:
    """Each command with the options it takes, by "fedpg train", "fedpg-server", …."""
    found = {}
    for name, module in APPS.items():
        command: Any = typer.main.get_command(import_module(module).app)
        found[name] = command
        for below, subcommand in getattr(command, "commands", {}).items():
            found[f"{name} {below}"] = subcommand.load() if hasattr(subcommand, "load") else subcommand
    return found


COMMANDS = commands()


def options_of(command: Any) -> set[str]:
    """The names of all options."""
    return {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"--help"}


def mistakes(markdown: str) -> Iterator[str]:
    """What the page's commands get wrong."""
    for name, *rest in invocations(markdown):
        whole = name
        if name == "fedpg" and rest and not rest[0].startswith("-"):
            if not re.fullmatch(r"[a-z-]+", rest[0]):  # a placeholder, as in: fedpg COMMAND --help
                continue
            whole = f"fedpg {rest.pop(0)}"
        if whole not in COMMANDS:
            yield f"there is no command {whole!r}"
            continue
        known = options_of(COMMANDS[whole])
        for word in rest:
            option = word.partition("=")[0].rstrip(",.:")
            if re.fullmatch(r"--?[a-zA-Z][\w-]*", option) and option not in known:
                yield f"{whole} has no option {option}"


def make_targets() -> set[str]:
    """The targets of the Makefile."""
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


# The changelog is about what was there at its time.
CURRENT = [page for page in pages() if page.name != "CHANGELOG.md"]


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_shows_commands_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert list(mistakes(text)) == []
    unknown = {target for line in code_of(text) for target in MAKE.findall(line)} - make_targets()
    assert unknown == set()


def test_most_commands_are_shown_on_the_first_page_or_the_page_of_commands() -> None:
    shown = {
        " ".join(words[:2]) if words[0] == "fedpg" and len(words) > 1 else words[0]
        for name in ("README.md", "docs/commands.md")
        for words in invocations((ROOT / name).read_text(encoding="utf-8"))
    }
    assert set(COMMANDS) - shown <= {"fedpg"}


def test_every_option_of_train_is_explained() -> None:
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"`(--[\w-]+)", text))
    names = {one.opts[0] for one in COMMANDS["fedpg train"].params} - {"--help"}
    assert names - explained == set()


def test_every_exit_code_is_explained() -> None:
    text = (ROOT / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    rows = [re.findall(r"\d+", line.split("|")[1]) for line in text.splitlines() if re.match(r"\| \d", line)]
    explained = [int(code) for row in rows for code in row]
    assert len(explained) == len(set(explained))
    assert {code.value for code in ExitCode} <= set(explained)


def test_mistakes_are_found() -> None:
    page = """
```
fedpg train --agents 3 --nonsense 4         # a comment --not-looked-at
source x && .venv/bin/fedpg trian --agents 3
docker compose exec server fedpg status --agnets=3
fedpg: --no-option of it is printed here
```
`fedpg evaluate RUN --vidoe x.mp4`, `fedpg-server --out x --lissten 1`, `fedpg COMMAND --help`, fedpg train --text
"""
    assert list(mistakes(page)) == [
        "fedpg train has no option --nonsense",
        "there is no command 'fedpg trian'",
        "fedpg status has no option --agnets",
        "fedpg evaluate has no option --vidoe",
        "fedpg-server has no option --lissten",
    ]
