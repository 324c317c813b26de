"""Tasks: an environment and the published settings that go with it (docs/algorithm.md, "Tasks")."""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedpg_common.checks import is_number, is_plain, is_whole, refuse_unknown, show, unknown
from fedpg_common.errors import UsageError
from fedpg_common.file_kinds import FileKind, require_kind

ACTIVATIONS = ("relu", "tanh")
BASELINES = ("", "none", "time")
"""Of the gradient estimate. Empty: the algorithm's own, which is "none", as published, unless it says otherwise."""
WHOLE_MAX = 2**31 - 1
BATCH_MAX = 1_000_000
"""Episodes that step together; for most environments each needs an instance of its own."""
HIDDEN_LAYERS_MAX = 100
"""The server describes each of them when an agent joins."""
SCALE_MIN, SCALE_MAX = 1e-37, 1e37
"""Where a number that float32 computes with is neither zero nor infinite, with room for Adam's first steps."""


OWN_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
"""MODULE:NAME, the module possibly dotted."""


@dataclasses.dataclass(frozen=True)
class Reward:
    """What becomes of a reward r on its way to the agent: scale · r + shift + N(0, noise²), drawn for every step."""

    scale: float = 1.0
    shift: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is not a number, and negative noise."""
        for name, value in dataclasses.asdict(self).items():
            if not (is_number(value) and abs(value) <= SCALE_MAX):
                raise UsageError(f"reward: {name} must be a number up to {SCALE_MAX:g}, not {show(value)}")
        if self.noise < 0:
            raise UsageError(f"reward: noise is a standard deviation and cannot be negative, as {self.noise} is")


@dataclasses.dataclass(frozen=True)
class Task:
    """An environment and the settings of the federation that learns it.

    Symbols are the paper's: B (`batch_size`), b (`mini_batch_size`), N (`inner_steps`), γ, δ, σ, α.
    """

    name: str
    environment: str
    """Gymnasium id, or MODULE:ID for one that a module of the user's own registers, or MODULE:CLASS for a batch."""
    hidden: tuple[int, ...]
    activation: str
    horizon: int
    """Steps at which a training episode is cut."""
    evaluation_horizon: int
    trajectories: int
    """The run ends when the trajectory count of the published figures reaches this."""
    gamma: float
    learning_rate: float
    batch_size: int
    batch_size_min: int
    batch_size_max: int
    mini_batch_size: int
    inner_steps: int
    delta: float = 0.6
    sigma: float = 0.06
    alpha: float = 0.4
    environment_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Keyword arguments of `gymnasium.make`: strings, numbers, booleans."""
    baseline: str = ""
    """What the gradient estimate subtracts from advantages: see `BASELINES` and `fedpg_common.learning.gradient`."""
    wrappers: tuple[str | Mapping[str, Any], ...] = ()
    """Wrappers of Gymnasium's kind, from the inmost: MODULE:NAME each, or a table of `name` and settings."""
    reward: Reward = dataclasses.field(default_factory=Reward)
    """How the environment's reward is perceived."""
    module_folder: str = dataclasses.field(default="", compare=False)
    """Where the environment's module was when the task file was read. It stays on this machine, and tasks that differ
    in it alone are the same task."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work, with a sentence that names the field."""
        if not _is_name(self.name):
            raise UsageError(f"a task needs a printable name, not {show(self.name)}")
        _require(_is_name(self.environment), "environment", "a printable name", self)
        for name in ("horizon", "evaluation_horizon", "trajectories", "inner_steps"):
            _require(_count(getattr(self, name)), name, f"a whole number from 1 to {WHOLE_MAX}", self)
        for name in ("batch_size", "batch_size_min", "mini_batch_size"):
            _require(_count(getattr(self, name), BATCH_MAX), name, f"a whole number from 1 to {BATCH_MAX}", self)
        if not (
            isinstance(self.hidden, tuple) and len(self.hidden) <= HIDDEN_LAYERS_MAX and all(map(_count, self.hidden))
        ):
            raise UsageError(f"task {self.name}: {wrong_hidden(self.hidden)}")
        _require(self.activation in ACTIVATIONS, "activation", " or ".join(ACTIVATIONS), self)
        _require(
            _count(self.batch_size_max, BATCH_MAX) and self.batch_size_max >= self.batch_size_min,
            "batch_size_max", f"a whole number from batch_size_min, {self.batch_size_min}, to {BATCH_MAX}", self,
        )  # fmt: skip
        for name in ("learning_rate", "sigma"):
            value = getattr(self, name)
            _require(
                is_number(value) and SCALE_MIN <= value <= SCALE_MAX,
                name, f"a positive number from {SCALE_MIN:g} to {SCALE_MAX:g}", self,
            )  # fmt: skip
        _require(is_number(self.gamma) and 0 <= self.gamma <= 1, "gamma", "between 0 and 1", self)
        _require(
            is_number(self.delta) and SCALE_MIN <= self.delta < 1,
            "delta", f"between 0 and 1, and at least {SCALE_MIN:g}", self,
        )  # fmt: skip
        _require(is_number(self.alpha) and 0 <= self.alpha < 0.5, "alpha", "at least 0 and below 0.5", self)
        _require(self.baseline in BASELINES, "baseline", '"none" or "time"', self)
        options = self.environment_options
        _require(isinstance(options, Mapping) and is_plain(options), "environment_options", "a table of values", self)
        wrappers_from_plain(self.wrappers, f"task {self.name}: ")
        _require(isinstance(self.reward, Reward), "reward", "a table with scale, shift and noise", self)
        _require(
            isinstance(self.module_folder, str) and (not self.module_folder or self.module_folder.isprintable()),
            "module_folder", "a printable path", self,
        )  # fmt: skip

    def tolerated(self, agents: int) -> int:
        """⌊αK⌋ of K agents: how many may be faulty or absent. The quorum and the filters count with it alone."""
        # In floating point, 0.29 · 100 is a little less than 29.
        return math.floor(self.alpha * agents + 1e-9)


def module_of(environment: str) -> str:
    """The module that registers an environment named MODULE:ID; empty for one that is Gymnasium's own."""
    module, colon, _ = environment.partition(":")
    return module if colon else ""


def wrappers_from_plain(value: object, prefix: str = "") -> tuple[str | Mapping[str, Any], ...]:
    """The wrappers in a description. Raises UsageError, whose sentence begins with `prefix`."""
    if isinstance(value, list | tuple) and all(map(_is_wrapper, value)):
        return tuple(value)
    raise UsageError(
        f'{prefix}wrappers must be a list of MODULE:NAME, as in ["my_envs:Delayed"], or of tables with such a name and '
        f"settings, not {show(value)}"
    )


def wrong_hidden(value: object) -> str:
    """What is said of layer sizes that cannot be, with the value as it was written."""
    value = list(value) if isinstance(value, tuple) else value
    return (
        f"hidden must be a list of at most {HIDDEN_LAYERS_MAX} layer sizes from 1 to {WHOLE_MAX}, as in [64, 64], "
        f"not {show(value)}"
    )


def _is_wrapper(value: object) -> bool:
    name = value.get("name") if isinstance(value, Mapping) else value
    return isinstance(name, str) and OWN_NAME.fullmatch(name) is not None and is_plain(value)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != "" and value.isprintable()


def _count(value: object, most: int = WHOLE_MAX) -> bool:
    return is_whole(value) and 1 <= value <= most


def _require(condition: bool, field: str, wanted: str, task: Task) -> None:
    if not condition:
        raise UsageError(f"task {task.name}: {field} must be {wanted}, not {show(getattr(task, field))}")


CARTPOLE = Task(
    name="CartPole-v1", environment="CartPole-v1", hidden=(16, 16), activation="relu",
    horizon=500, evaluation_horizon=500, trajectories=5000, gamma=0.999, learning_rate=1e-3,
    batch_size=16, batch_size_min=12, batch_size_max=20, mini_batch_size=4, inner_steps=3, sigma=0.06,
)  # fmt: skip
LUNAR_LANDER = Task(
    name="LunarLander-v3", environment="LunarLander-v3", hidden=(64, 64), activation="tanh",
    horizon=1000, evaluation_horizon=1000, trajectories=10000, gamma=0.99, learning_rate=1e-3,
    batch_size=32, batch_size_min=26, batch_size_max=38, mini_batch_size=8, inner_steps=3, sigma=0.07,
)  # fmt: skip
HALF_CHEETAH = Task(
    name="HalfCheetah-v5", environment="HalfCheetah-v5", hidden=(64, 64), activation="tanh",
    horizon=500, evaluation_horizon=1000, trajectories=10000, gamma=0.995, learning_rate=8e-5,
    batch_size=48, batch_size_min=46, batch_size_max=50, mini_batch_size=16, inner_steps=3, sigma=0.9,
)  # fmt: skip
INVERTED_PENDULUM = Task(
    name="InvertedPendulum-v5", environment="InvertedPendulum-v5", hidden=(64, 64), activation="tanh",
    horizon=1000, evaluation_horizon=1000, trajectories=5000, gamma=0.995, learning_rate=1e-3,
    batch_size=64, batch_size_min=64, batch_size_max=64, mini_batch_size=12, inner_steps=3, sigma=0.25,
)  # fmt: skip
"""As Fang, Wang and Gong 2025 have it, whose batches all have one size."""

TASKS: Mapping[str, Task] = {task.name: task for task in (CARTPOLE, LUNAR_LANDER, HALF_CHEETAH, INVERTED_PENDULUM)}


def find_task(name: str) -> Task:
    """The task of that name, or the one in that TOML file (`NAME.toml`, fields as in `Task`).

    Raises UsageError for an unknown name, an unreadable file or a bad field.
    """
    if name in TASKS:
        return TASKS[name]
    if name.endswith(".toml"):
        return _read_task(Path(name))
    raise unknown("task", name, TASKS, ", or give a task file (NAME.toml)")


def _read_task(path: Path) -> Task:
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"task file {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # not text, not TOML, or absurdly large
        raise UsageError(f"task file {path} is not TOML: {error}") from error
    source = f"task file {path}"
    try:
        require_kind(fields, FileKind.TASK, str(path))
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from error
    task = task_from_fields({"name": path.stem, **fields}, source)
    return _with_module_folder(task, path)


def _with_module_folder(task: Task, path: Path) -> Task:
    """A task whose environment is from a module: it is looked for beside the task file, or where the file says."""
    if not module_of(task.environment):
        return task
    folder = str(path.resolve().parent / task.module_folder)
    return dataclasses.replace(task, module_folder=folder) if folder.isprintable() else task


def task_from_fields(fields: Mapping[str, Any], source: str = "task") -> Task:
    """A task from plain fields, as in a task file; missing optional fields take their defaults."""
    known = {field.name: field for field in dataclasses.fields(Task)}
    refuse_unknown(fields, known, "", f"{source}: ")
    required = [name for name, field in known.items() if _is_required(field) and name not in fields]
    if required:
        raise UsageError(f"{source}: the field {required[0]!r} is missing")
    values = dict(fields)
    if not isinstance(values["hidden"], list | tuple):
        raise UsageError(f"{source}: {wrong_hidden(values['hidden'])}")
    values["hidden"] = tuple(values["hidden"])
    if "wrappers" in values:
        values["wrappers"] = wrappers_from_plain(values["wrappers"], f"{source}: ")
    if "reward" in values:
        values["reward"] = reward_from_plain(values["reward"], f"{source}: ")
    return Task(**values)


def reward_from_plain(value: object, prefix: str = "") -> Reward:
    """The reward in a description. Raises UsageError, whose sentence begins with `prefix`."""
    if isinstance(value, Reward):
        return value
    names = [field.name for field in dataclasses.fields(Reward)]
    if not isinstance(value, Mapping):
        raise UsageError(f"{prefix}reward must be a table with {', '.join(names)}, not {show(value)}")
    refuse_unknown(value, names, " of reward", prefix)
    try:
        return Reward(**value)
    except UsageError as error:
        raise UsageError(f"{prefix}{error}") from error


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def task_to_fields(task: Task) -> dict[str, Any]:
    """The task's fields as plain values, the inverse of `task_from_fields`."""
    fields = dataclasses.asdict(task)
    fields["hidden"] = list(task.hidden)
    fields["environment_options"] = dict(task.environment_options)
    fields["wrappers"] = list(task.wrappers)
    usual = {"wrappers": [], "reward": dataclasses.asdict(Reward()), "baseline": "", "module_folder": ""}
    for name, value in usual.items():
        if fields[name] == value:
            del fields[name]
    return fields
