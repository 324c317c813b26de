"""What the documentation's tests share: the repository's text files, their headings, links and commands."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = {".py", ".md", ".toml", ".yml", ".yaml", ".proto", ".html", ".cff", ""}
"""Suffixes of files in which something may be cited; Makefile, Dockerfile and LICENSE have none."""
_HEADING = re.compile(r"^#+ +(.+?) *#*$", re.MULTILINE)
_FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_NOT_IN_ANCHORS = re.compile(r"[^\w\- ]")


def text_files() -> list[Path]:
    """The repository's own text files: those that git tracks or would, without what is ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    paths = (ROOT / line for line in listed.stdout.splitlines())
    return sorted(path for path in paths if path.suffix in TEXT and path.is_file())


def pages() -> list[Path]:
    """The Markdown files that people read."""
    return [path for path in text_files() if path.suffix == ".md"]


def without_code(markdown: str) -> str:
    """The text without its fenced code blocks."""
    return _FENCE.sub("", markdown)


def headings(markdown: str) -> list[str]:
    """The headings, without marks of code or emphasis."""
    return [heading.replace("`", "").replace("*", "") for heading in _HEADING.findall(without_code(markdown))]


def anchors(markdown: str) -> set[str]:
    """The anchors that a Markdown page has on GitHub."""
    found: set[str] = set()
    for heading in headings(markdown):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = _NOT_IN_ANCHORS.sub("", plain.lower()).replace(" ", "-")
        number = sum(other == anchor or re.fullmatch(rf"{re.escape(anchor)}-\d+", other) is not None for other in found)
        found.add(f"{anchor}-{number}" if number else anchor)
    return found
