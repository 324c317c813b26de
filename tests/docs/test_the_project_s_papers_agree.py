"""Version, license and citation are the same wherever they stand, and come along in whatever is installed."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import yaml
from support.documentation import ROOT, headings

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CITATION: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_the_version_is_the_same_everywhere() -> None:
    assert str(CITATION["version"]) == PROJECT["version"]
    changes = [heading for heading in headings((ROOT / "CHANGELOG.md").read_text(encoding="utf-8")) if "[" in heading]
    assert changes[0] == "[Unreleased]"
    assert changes[1].startswith(f"[{PROJECT['version']}]")


def test_the_license_is_there_and_named() -> None:
    assert PROJECT["license"] == CITATION["license"] == "MIT"
    assert PROJECT["license-files"] == ["LICENSE"]
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.startswith("MIT License\n\nCopyright (c) ")
    assert PROJECT["authors"][0]["name"] in text


def test_the_paper_can_be_cited() -> None:
    assert CITATION["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(CITATION)
    (paper,) = CITATION["references"]
    assert paper["type"] == "conference-paper"
    assert [author["family-names"] for author in paper["authors"]] == ["Fan", "Ma", "Dai", "Jing", "Tan", "Low"]
    assert paper["url"] in (ROOT / "README.md").read_text(encoding="utf-8")


def test_images_are_built_with_the_files_that_the_metadata_names() -> None:
    needed = {PROJECT["readme"], *PROJECT["license-files"]}
    copied = re.findall(
        r"^COPY (pyproject\.toml.*README.*) \./$", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE
    )
    assert copied
    for line in copied:
        assert needed <= set(line.split())
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {f"!{name}" for name in needed} <= set(allowed)
