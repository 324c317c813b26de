"""The command `fedpg check`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from fedpg_common.choices import Choice, not_named, parse_settings
from fedpg_common.errors import InvariantViolatedError, UsageError
from fedpg_common.shipped import AGGREGATORS, ATTACKS

if TYPE_CHECKING:
    from fedpg_lab.check.attacks import Check


class Kind(StrEnum):
    """What is checked."""

    AGGREGATOR = "aggregator"
    ATTACK = "attack"


def check_command(
    part: Annotated[
        str, typer.Argument(help="An aggregator or an attack: MODULE:NAME, or a shipped name.", metavar="NAME")
    ],
    kind: Annotated[
        Kind | None,
        typer.Option("--kind", help="What it is, where its name and its methods leave that open."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A setting of it, as for `fedpg train`. Repeat for several.",
            metavar="NAME=VALUE",
            show_default=False,
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Time and memory at a tenth of the size.")] = False,
) -> None:
    """Check that an aggregator or an attack of your own keeps the promises that the system leans on.

    Of an aggregator: the order of the agents does not matter, the same input has the same bits, votes of any size leave
    the result near the honest ones, absent agents and identical votes do no harm, its memory survives a restart, and it
    is fast enough for a thousand agents. What it claims in its class attribute `equivariant` ("shift", "scale") is
    checked, too; with `resists = False` it does not claim to withstand attackers, and with `symmetric = False` it draws
    lots among agents. An aggregator that gives no answer for a minute, or an attack for five, breaks the promise that
    is being tested, and nothing else is tested.

    Exit codes: 0 all promises are kept; 2 bad name or setting; 8 a promise is broken.
    """
    from fedpg_common.descriptions import describe
    from fedpg_common.modules import make_importable

    from fedpg_lab.check.aggregators import check_aggregator
    from fedpg_lab.check.attacks import check_attack
    from fedpg_lab.check.patience import AGGREGATOR_MAX_S, ATTACK_MAX_S, Patience
    from fedpg_lab.terminal.waits import waits_are_told

    make_importable(describe("CartPole-v1"))
    with waits_are_told():  # also for a module that is imported without end; where it answers too late, Patience tells
        found = kind or _kind_of(part)
        choices = AGGREGATORS if found is Kind.AGGREGATOR else ATTACKS
        choice = choices.parse(Choice(part, parse_settings(settings or ())))
        if found is Kind.AGGREGATOR:
            checks = check_aggregator(choice, quick, Patience(AGGREGATOR_MAX_S, _tell))
        else:
            checks = check_attack(choice, Patience(ATTACK_MAX_S, _tell))
    _print(choice, found, checks)
    broken = [check for check in checks if not check.kept]
    if broken:
        more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise InvariantViolatedError(f"{found} {choice.label} breaks a promise: {broken[0].promise}{more}")


def _tell(sentence: str) -> None:
    typer.echo(f"fedpg: {sentence}", err=True)


def _kind_of(part: str) -> Kind:
    """What a name stands for. Raises UsageError where both are possible, or neither."""
    from fedpg_client.attacks import Attack

    in_table = [kind for kind, choices in ((Kind.AGGREGATOR, AGGREGATORS), (Kind.ATTACK, ATTACKS))
                if part in choices.shipped]  # fmt: skip
    if len(in_table) == 1:
        return in_table[0]
    if in_table:
        raise UsageError(f"{part} is an aggregator and an attack: say which with --kind")
    if part in AGGREGATORS.elsewhere:
        AGGREGATORS.parse(part)  # which says what to write
    if ":" not in part:
        known = dict.fromkeys((*AGGREGATORS.shipped, *ATTACKS.shipped))
        raise not_named("aggregator or attack", part, known)
    AGGREGATORS.parse(part)
    found = AGGREGATORS.find(part)
    if callable(getattr(found, "aggregate", None)):
        return Kind.AGGREGATOR
    if isinstance(found, type) and issubclass(found, Attack):
        return Kind.ATTACK
    if callable(getattr(found, "mix", None)):
        raise UsageError(f"{part} mixes votes: check it before an aggregator, as in fedpg check krum "
                         f"--set 'after=[\"{part}\"]'")  # fmt: skip
    raise UsageError(f"{part} is neither an aggregator, which has a method aggregate, nor a subclass of Attack")


def _print(choice: Choice, kind: Kind, checks: Sequence[Check]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from fedpg_lab.terminal.formats import print_table

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(f"{kind} {choice.label}", overflow="fold")
    table.add_column("")
    table.add_column("why", overflow="fold")
    for check in checks:
        verdict = Text("ok") if check.kept else Text("failed", style="red")
        table.add_row(Text(check.promise), verdict, Text(check.detail))
    print_table(table)
