"""What is chosen by name: the parts that come with FedPG, and anybody's own as MODULE:NAME.

Aggregators, attacks, algorithms, environments, observers and fault backends are all chosen in this way. A choice is
plain data (a name and settings), so that it can be written into a description, compared and sent; what it names is
imported only when it is built. Nothing changes a run by being installed: what a run is made of stands in its
description.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Generic, TypeVar

from fedpg_common.checks import is_plain, nearest, show, unknown
from fedpg_common.errors import FedPGError, UsageError
from fedpg_common.hidden_modules import hidden_by
from fedpg_common.others_code import asked, complaint, is_ours, place, raise_if_ours
from fedpg_common.tasks import OWN_NAME

T = TypeVar("T")

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*", re.ASCII)
SETTING = re.compile(r"[a-z_][a-z0-9_]*", re.ASCII)


@dataclass(frozen=True)
class Choice:
    """A part of a federation: what it is called, and the settings that its constructor gets."""

    name: str
    """A shipped name ("krum"), or MODULE:NAME."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Strings, numbers, booleans, and lists and tables of them."""

    @property
    def label(self) -> str:
        """For people and folders: the name without its module, and the settings, for example "alie z=1.2"."""
        own = self.name.rpartition(":")[2]
        return " ".join([own, *(f"{name}={_short(value)}" for name, value in self.settings.items())])

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules of what does not come with FedPG: the part's own, and those of parts named in its settings."""
        return tuple(sorted(set(_modules_in(self.to_plain()))))

    def to_plain(self) -> str | dict[str, Any]:
        """As a description has it: the name alone where there are no settings."""
        return {"name": self.name, **self.settings} if self.settings else self.name

    def with_settings(self, settings: Mapping[str, Any]) -> Choice:
        """The same part with these settings in addition."""
        return Choice(self.name, {**self.settings, **settings})


@dataclass(frozen=True)
class Choices(Generic[T]):
    """One kind of part that is chosen by name."""

    what: str
    """For errors and help, for example "aggregator"."""
    shipped: Mapping[str, str]
    """What comes with FedPG: name to "module:Class"."""
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Names that belong to another kind of part, and what to write for them."""

    @property
    def names(self) -> str:
        """The shipped names, for help texts."""
        return ", ".join(self.shipped)

    def parse(self, value: object) -> Choice:
        """The choice in a description: a name, or a table of `name` and settings.

        Nothing is imported: whether the settings are right shows when the part is built. Raises UsageError.
        """
        if isinstance(value, Choice):
            value = value.to_plain()
        if isinstance(value, str):
            return Choice(self._checked(value))
        if not isinstance(value, Mapping):
            raise UsageError(f"{self.what} must be a name or a table with a name, not {show(value)}")
        settings = {name: entry for name, entry in value.items() if name != "name"}
        if "name" not in value:
            raise UsageError(f"{self.what}: the table needs a name, one of {self.names}, or MODULE:NAME")
        for name, entry in settings.items():
            if not SETTING.fullmatch(name) or not is_plain(entry):
                raise UsageError(f"{self.what} {value['name']}: {show(name)} = {show(entry)} is not a setting")
        return Choice(self._checked(value["name"]), settings)

    def _checked(self, name: object) -> str:
        if isinstance(name, str) and (name in self.shipped or OWN_NAME.fullmatch(name)):
            return name
        if isinstance(name, str) and name in self.elsewhere:
            raise UsageError(f"{name} cannot be chosen as {self.what}: {self.elsewhere[name]}")
        raise not_named(self.what, name, self.shipped)

    def find(self, name: str) -> Callable[..., T]:
        """The class or function behind a name, imported now. Raises UsageError with one sentence."""
        module_name, _, attribute = self.shipped.get(name, name).partition(":")
        module = import_named(module_name, attribute, f"{self.what} {name}")
        found = getattr(module, attribute, None)
        if not callable(found):
            raise UsageError(f"{self.what} {name}: {module_name} has no class {attribute}{hidden_by(module_name)}")
        return found  # type: ignore[no-any-return]

    def build(self, choice: Choice, *args: object) -> T:
        """The part, constructed with `args` and the choice's settings. Raises UsageError for a wrong setting."""
        constructor = self.find(choice.name)
        _refuse_unknown_settings(f"{self.what} {choice.name}", constructor, len(args), choice.settings)
        try:
            inspect.signature(constructor).bind(*args, **choice.settings)
        except TypeError as error:
            raise UsageError(
                f"{self.what} {choice.name}: {error}; its settings are {_settings(constructor, len(args))}"
            ) from None
        try:
            if choice.name in self.shipped:
                return constructor(*args, **choice.settings)
            return asked("__init__", f"{self.what} {choice.name}", lambda: constructor(*args, **choice.settings))
        except UsageError as error:
            raise UsageError(f"{self.what} {choice.name}: {error}") from error
        except (TypeError, ValueError) as error:
            raise UsageError(f"{self.what} {choice.name}: {' '.join(str(error).split())}") from error
        except FedPGError:
            raise
        except BaseException as error:
            if choice.name in self.shipped:  # a bug, or what its caller knows of
                raise
            raise_if_ours(error)
            raise UsageError(
                f"{self.what} {choice.name} failed in __init__: {complaint(error)}{place(error)}"
            ) from error


def import_named(module: str, name: str, for_what: str) -> Any:
    """Import the module of MODULE:NAME, as somebody named it.

    Raises UsageError with one sentence, whatever the module does.
    """
    try:
        if is_ours(module):
            return importlib.import_module(module)
        return asked("the import", f"the module {module}", lambda: importlib.import_module(module))
    except BaseException as error:  # a module of others may do anything while it is imported
        raise_if_ours(error)
        reason = " ".join(str(error).split()) or type(error).__name__
        hint, top = "", module.partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and error.name in (top, module):
            if module.endswith(".py"):
                meant = f"write {module.removesuffix('.py')}:{name}"
                raise UsageError(f"{for_what}: a module is named, and not its file: {meant}") from error
            hint = hidden_by(module)
            if error.name == top:
                hint = "; put it beside the description, or its folder on PYTHONPATH"
        where = "" if isinstance(error, SyntaxError) else place(error)  # Python names the place of a syntax error
        raise UsageError(f"{for_what}: {module} cannot be imported: {reason}{where}{hint}") from error


def not_named(what: str, name: object, known: Iterable[str]) -> UsageError:
    """The error for what is neither a shipped name nor MODULE:NAME: often a file's name."""
    if isinstance(name, str) and (meant := _module_meant(name)):
        return UsageError(f"{what} {show(name)}: a module is named, and not its file: {meant}")
    return unknown(what, name, known, ", or MODULE:NAME")


def _module_meant(name: str) -> str:
    """What to write in place of a file's name, a path or FILE:NAME; "" where it is neither."""
    file, _, part = name.partition(":")
    path = PurePath(file.replace("\\", "/"))
    if path.suffix != ".py" and len(path.parts) < 2:
        return ""
    if not path.stem.isidentifier():
        return f"give {path.name} a name of letters, digits and underscores, and write that without .py, and :NAME"
    where = f", in its folder {path.parent} or with that on PYTHONPATH" if len(path.parts) > 1 else ""
    return f"write {path.stem}:{part or 'NAME'}{where}"


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Settings from a command line: NAME=VALUE each, values as in TOML; a bare word is a string.

    Raises UsageError.
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not SETTING.fullmatch(name.strip()):
            raise UsageError(f"a setting is written NAME=VALUE, for example faulty=3, not {show(pair)}")
        if name.strip() == "name":
            raise UsageError(f"no setting is called name, which is the part's own: {show(pair)}")
        settings[name.strip()] = _value(text.strip())
    return settings


def _value(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _parameters(constructor: Callable[..., object], positional: int) -> list[inspect.Parameter]:
    return list(inspect.signature(constructor).parameters.values())[positional:]


def _settings(constructor: Callable[..., object], positional: int) -> str:
    """What the constructor can be given, with defaults."""
    named = [
        parameter.name if parameter.default is parameter.empty else f"{parameter.name} (default {parameter.default!r})"
        for parameter in _parameters(constructor, positional)
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    return ", ".join(named) or "none"


def _refuse_unknown_settings(
    who: str, constructor: Callable[..., object], positional: int, settings: Mapping[str, Any]
) -> None:
    parameters = _parameters(constructor, positional)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return  # the constructor says itself what it takes
    known = [parameter.name for parameter in parameters]
    for name in settings:
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near}? Its" if near else "its"
            raise UsageError(
                f"{who}: unknown setting {show(name)}: {hint} settings are {_settings(constructor, positional)}"
            )


def _modules_in(part: object) -> Iterator[str]:
    """The modules that a part names, and those of the parts in its settings: whatever is written MODULE:NAME."""
    if isinstance(part, str) and OWN_NAME.fullmatch(part):
        yield part.partition(":")[0]
    elif isinstance(part, Mapping):
        for value in part.values():
            yield from _modules_in(value)
    elif isinstance(part, list | tuple):
        for value in part:
            yield from _modules_in(value)


def _short(value: object) -> str:
    if isinstance(value, Mapping):
        inner = value.get("name")
        rest = [f"{name}={_short(entry)}" for name, entry in value.items() if name != "name"]
        return "-".join([*([str(inner)] if inner else []), *rest])
    if isinstance(value, list | tuple):
        return "+".join(map(_short, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
