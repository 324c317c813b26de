"""What the lab's HTML pages have in common: their look, the machine that they were made on, how they are written."""

from __future__ import annotations

import base64
import platform
import re
from importlib import metadata
from pathlib import Path

import jinja2
from fedpg_common.errors import StorageError

from fedpg_lab.experiment_runs import cores

LIBRARIES = ("fedpg", "torch", "numpy", "gymnasium", "mujoco", "Box2D", "grpcio")


def template(name: str) -> jinja2.Template:
    """The template of that file name; all extend page_base.html and use the macros of page_parts.html."""
    loader = jinja2.PackageLoader("fedpg_lab", "")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.get_template(name)


def svg_as_data(svg: Path) -> str:
    """A picture as a link that holds it: pictures in one page would otherwise share names."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.read_bytes()).decode("ascii")


def machine() -> dict[str, str]:
    """What a page was made on and with."""
    described = {"Python": platform.python_version(), "system": platform.platform(), "processor": _processor(),
                 "cores": str(cores())}  # fmt: skip
    for name in LIBRARIES:
        described[name] = metadata.version(name)
    return described


def write_text(path: Path, text: str) -> None:
    """Write a file whole. Raises StorageError."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1) if found else platform.machine()
