"""Physics that Gymnasium's classes have no argument for: gravity, masses, lengths.

CartPole keeps them in attributes, and MuJoCo in the model. Our fast batches take them as settings; for an environment
of Gymnasium's own making they are set once it is made, to the same values, so that both stay equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium

from fedpg_common.checks import is_number, show
from fedpg_common.errors import UsageError

CARTPOLE_ENTRY = "gymnasium.envs.classic_control.cartpole:"
MUJOCO_ENTRY = "gymnasium.envs.mujoco."
CARTPOLE_OPTIONS = ("gravity", "masscart", "masspole", "length", "force_mag")
MUJOCO_OPTIONS = ("gravity", "mass_scale")


def checked_option(name: str, value: object) -> float:
    """A number that an option gave. Raises UsageError for anything else."""
    if not is_number(value):
        raise UsageError(f"{name} must be a number, not {show(value)}")
    return float(value)


def positive_option(name: str, value: object) -> float:
    """A positive number that an option gave. Raises UsageError for anything else."""
    number = checked_option(name, value)
    if number <= 0:
        raise UsageError(f"{name} must be a positive number, not {show(value)}")
    return number


def settable_options(environment: str) -> tuple[str, ...]:
    """The options that are set on an environment of Gymnasium's registry after it is made; none for an unknown one."""
    spec = gymnasium.registry.get(environment)
    entry = getattr(spec, "entry_point", None)
    if not isinstance(entry, str):
        return ()
    if entry.startswith(CARTPOLE_ENTRY) and not entry.endswith("VectorEnv"):
        return CARTPOLE_OPTIONS
    return MUJOCO_OPTIONS if entry.startswith(MUJOCO_ENTRY) else ()


def set_physics(environment: gymnasium.Env[Any, Any], options: Mapping[str, Any]) -> None:
    """Set such options on an environment that was just made. Raises UsageError for a bad value."""
    bare: Any = environment.unwrapped
    if hasattr(bare, "model"):
        set_model(bare.model, bare.data, **options)
        return
    for name, value in options.items():
        check = checked_option if name in ("gravity", "force_mag") else positive_option
        setattr(bare, name, check(name, value))
    bare.total_mass = bare.masspole + bare.masscart
    bare.polemass_length = bare.masspole * bare.length


def set_model(model: Any, data: Any, *, gravity: float | None = None, mass_scale: float = 1.0) -> None:
    """Set gravity along z, in m/s² and negative downwards, and multiply all masses and inertias of a MuJoCo model."""
    import mujoco

    if gravity is not None:
        model.opt.gravity[2] = checked_option("gravity", gravity)
    scale = positive_option("mass_scale", mass_scale)
    if scale != 1.0:
        model.body_mass[:] *= scale
        model.body_inertia[:] *= scale
        mujoco.mj_setConst(model, data)  # what the model derives from masses
