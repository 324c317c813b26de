"""What the lab's HTML pages have in common: their look, and how they are written."""

from __future__ import annotations

import base64
from pathlib import Path

import jinja2
from fedpg_common.errors import StorageError


def template(package: str, name: str) -> jinja2.Template:
    """The template of that name in `package`. All extend page_base.html and use the macros of page_parts.html."""
    loader = jinja2.ChoiceLoader([jinja2.PackageLoader(package, ""), jinja2.PackageLoader("fedpg_lab.files", "")])
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.get_template(name)


def svg_as_data(svg: Path) -> str:
    """A picture as a link that holds it: pictures in one page would otherwise share names."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.read_bytes()).decode("ascii")


def write_text(path: Path, text: str) -> None:
    """Write a file whole. Raises StorageError."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
