"""A real browser for the tests of this folder; `make test-browser` runs them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.chromium import Page, browser


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures of the pages are left to be looked at."""
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """A page of a browser of its own, which must not meet an error that the test does not take away."""
    with browser(tmp_path) as page:
        page.resize(1280, 900)
        yield page
        assert page.problems == []
