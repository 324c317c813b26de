"""Every test that docs/reliability.md calls as a witness is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAME = re.compile(r"`((?:(?:containers|hostile)/)?[a-z]+(?:_[a-z0-9]+){3,})`")
"""A test file's name without test_ and .py: words with underscores, at least four."""


def test_the_reliability_page_names_tests_that_exist() -> None:
    names = set(NAME.findall((ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")))
    assert len(names) > 10
    files = {path.stem: path.parent.name for path in (ROOT / "tests").rglob("test_*.py")}
    missing = []
    for name in names:
        folder, _, stem = name.rpartition("/")
        if files.get(f"test_{stem}") is None or folder not in ("", files[f"test_{stem}"]):
            missing.append(name)
    assert not missing, f"docs/reliability.md names tests that are not there: {missing}"
