"""The options that describe a federation, in one place for all commands that have them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.models import ParameterInfo

from fedpg_common.cli.options import ADVANCED, OUTPUT, PANELS, SETTINGS, is_given
from fedpg_common.cli.seeds import RANDOM, SEED_HELP, parse_seed
from fedpg_common.descriptions import DEFAULT_ATTACK, federation_from_fields, read_fields, with_settings
from fedpg_common.errors import UsageError
from fedpg_common.federation import DEFAULT_ALGORITHM, ROUND_TIMEOUT_S, Federation
from fedpg_common.shipped import AGGREGATORS, ALGORITHMS, ATTACKS, ATTACKS_HELP
from fedpg_common.tasks import TASKS

OWN = "or MODULE:NAME of your own"


@dataclass(frozen=True)
class Option:
    """One option: what it is called in a description, its type and default, and what its help says."""

    field: str
    type: Any
    default: Any
    help: str
    metavar: str
    choices: tuple[str, ...] = ()
    """For completion."""
    flag: str = ""
    """Where it is not --FIELD."""
    shown_default: str = ""
    panel: str | None = None
    """Of the help; None for what people use first."""


OPTIONS = (
    Option("task", str, "CartPole-v1", f"{', '.join(TASKS)}, or a task file (NAME.toml).", "TASK", tuple(TASKS)),
    Option("agents", int, 10, "How many agents, K.", "K"),
    Option("byzantine", int, 0, "How many of them attack: agents 1 to N.", "N"),
    Option("attack", str, DEFAULT_ATTACK, f"What they do: {ATTACKS_HELP}; {OWN}.", "NAME", tuple(ATTACKS.shipped)),
    Option("algorithm", str, DEFAULT_ALGORITHM, f"{ALGORITHMS.names}; {OWN}.", "NAME", tuple(ALGORITHMS.shipped)),
    Option("aggregator", str | None, None, f"{AGGREGATORS.names}; {OWN}.", "NAME", tuple(AGGREGATORS.shipped),
           shown_default="the algorithm's"),
    Option("trajectories", int | None, None, "Trajectory count at which the run ends.", "N",
           shown_default="the task's"),
    Option("seed", str, "0", SEED_HELP, "N"),
    Option("sigma", float | None, None, "σ of the filter.", "X", shown_default="the task's", panel=SETTINGS),
    Option("alpha", float | None, None, "Tolerated faulty fraction.", "X", shown_default="the task's", panel=SETTINGS),
    Option("round_timeout_s", float, ROUND_TIMEOUT_S, "Seconds after which a round closes with a quorum.", "S",
           flag="--round-timeout", panel=ADVANCED),
    Option("worlds_every", int, 0, "Every N rounds, evaluate in each agent's world as well; 0: never.", "N",
           panel=OUTPUT),
)  # fmt: skip
SET_HELP = (
    "A setting of the aggregator or attack, such as faulty=3; where both are chosen, aggregator.faulty=3 or "
    "attack.z=1.2. task.NAME=VALUE: of the task. heterogeneity.NAME=[LEAST,MOST]: from which each agent's environment "
    "is drawn. environments.3.NAME=VALUE: of agent 3's environment. speeds.3.trajectories=N: how many it samples "
    "per round. Repeat for several."
)
FILE_HELP = "A description of the federation (TOML); options replace what it says."


@dataclass(frozen=True)
class Description:
    """What a command was told of a federation."""

    fields: Mapping[str, Any]
    """As in a description; without what was left to defaults that the description has itself."""
    settings: Sequence[str] = field(default_factory=tuple)
    """NAME=VALUE each."""
    folder: Path = Path()
    """The description's."""
    source: str = ""
    drew_seed: bool = False
    """Whether the seed is one that was drawn now."""
    context: typer.Context | None = None
    """The command's, which knows what stands on the command line."""

    def typed(self, name: str) -> Any:
        """The value of an option that stands on the command line, or None."""
        return self.fields.get(name) if self.context is not None and is_given(self.context, name) else None

    @property
    def task(self) -> Any:
        """The task as it was given: a name, a file, or a table."""
        return self.fields["task"]

    def federation(self) -> Federation:
        """The federation. Raises UsageError."""
        return federation_from_fields(with_settings(self.fields, self.settings), self.source, self.folder)


def federation_options(*, envvars: bool = False, file: bool = False) -> Callable[[Callable[..., None]], Any]:
    """Give a command the options of `OPTIONS` and --set, and it a `Description` as its first argument.

    With `envvars`, each can be given as FEDPG_NAME as well. With `file`, --federation FILE is what they start from.
    """

    def decorate(command: Callable[..., None]) -> Any:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

        @functools.wraps(command)
        def run(context: typer.Context, **values: Any) -> None:
            given = {option.field: values.pop(option.field) for option in OPTIONS}
            settings = tuple(values.pop("settings") or ())
            path = values.pop("federation", None)
            command(_description(context, given, settings, path), **values)

        described = [*([_file()] if file else []), *(_parameter(option, envvars) for option in OPTIONS)]
        added = [_context(), *sorted([*described, _settings(envvars), *own], key=_place_in_help)]
        run.__signature__ = inspect.Signature(added)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in added}
        del run.__dict__["__wrapped__"]
        return run

    return decorate


def _description(
    context: typer.Context, given: dict[str, Any], settings: tuple[str, ...], path: Path | None
) -> Description:
    if given["attack"] == DEFAULT_ATTACK and not is_given(context, "attack"):
        given["attack"] = None  # the description's own default; a bare --set means a part that was named
    resumes = bool(context.params.get("resume"))
    if path is None or resumes:  # what is resumed has its description already
        if not resumes and is_given(context, "attack"):
            _require_attackers(given["attack"], given["byzantine"])
        seed = parse_seed(given["seed"])
        fields = {name: value for name, value in {**given, "seed": seed}.items() if value is not None}
        return Description(fields, settings, drew_seed=given["seed"] == RANDOM, context=context)
    fields = read_fields(path)
    typed = {name: value for name, value in given.items() if is_given(context, name)}
    if "attack" in typed:
        _require_attackers(typed["attack"], typed.get("byzantine", fields.get("byzantine")))
    drew_seed = typed.get("seed", fields.get("seed")) == RANDOM
    if drew_seed or "seed" in typed:
        typed["seed"] = parse_seed(RANDOM if drew_seed else typed["seed"])
    return Description({**fields, **typed}, settings, path.parent, f"federation file {path}", drew_seed, context)


def _require_attackers(attack: str, byzantine: object) -> None:
    """Raise UsageError for an attack that nobody would make."""
    if not byzantine:
        raise UsageError(f"--attack {attack}: nobody would make it; say how many agents do, as in --byzantine 3")


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _context() -> inspect.Parameter:
    return inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)


def _parameter(option: Option, envvars: bool) -> inspect.Parameter:
    flag = option.flag or f"--{option.field.replace('_', '-')}"
    envvar = f"FEDPG_{flag.removeprefix('--').replace('-', '_').upper()}" if envvars else None
    default = option.shown_default or option.default
    notes = {"env var": envvar, "default": None if default is None else str(default)}
    # As text, since what typer adds to a help in Markdown takes a line each.
    added = "".join(f" [{what}: {note}]" for what, note in notes.items() if note)
    info = typer.Option(
        flag,
        help=f"{option.help}{added}",
        metavar=option.metavar,
        show_default=False,
        rich_help_panel=option.panel,
        envvar=envvar,
        show_envvar=False,
        autocompletion=_complete(option.choices) if option.choices else None,
    )
    return _keyword(option.field, Annotated[option.type, info], option.default)


def _place_in_help(parameter: inspect.Parameter) -> int:
    extras = getattr(parameter.annotation, "__metadata__", ())
    panels = (extra.rich_help_panel for extra in extras if isinstance(extra, ParameterInfo))
    return PANELS.index(next(panels, None))


def _settings(envvars: bool) -> inspect.Parameter:
    info = typer.Option(
        "--set", help=SET_HELP, metavar="NAME=VALUE", show_default=False, envvar="FEDPG_SET" if envvars else None,
        rich_help_panel=SETTINGS,
    )  # fmt: skip
    return _keyword("settings", Annotated[list[str] | None, info], None)


def _file() -> inspect.Parameter:
    info = typer.Option(help=FILE_HELP, metavar="FILE", rich_help_panel=SETTINGS)
    return _keyword("federation", Annotated[Path | None, info], None)


def _complete(choices: Iterable[str]) -> Callable[[str], list[str]]:
    words = list(choices)
    return lambda incomplete: [word for word in words if word.startswith(incomplete)]
