"""A file or section that a docstring, a comment or a page cites is in the repository."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from support.documentation import ROOT, anchors, headings, pages, text_files, without_code

FILES_CITED = re.compile(
    r"(?<![\w./-])((?:docs|examples|benchmarks|tests|deploy|proto|common|server|client|lab)/[\w./-]*\w\.(?:md|py|toml|ya?ml|proto|svg|png))\b"
)
"""A path from the root of the repository, as comments and pages write it."""
PAGES_CITED = re.compile(r"(?<![\w./:-])([\w./-]*\w\.md)\b")
SECTIONS_CITED = re.compile(
    r"(?<![\w-])(?P<page>[\w./-]+\.md), ?(?P<sections>\"[^\"]+\"(?:(?:, | and |, and )\"[^\"]+\")*)"
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
MADE_WHEN_RUN = {"PAGE.md", "matrix.md", "table.md"}
"""Pages that a command writes, which are not part of the repository."""


def unwrapped(text: str) -> str:
    """The text on one line, without the marks of comments, so that a citation may be broken over two lines."""
    return re.sub(r"\s*\n\s*(?:#:? |// )?", " ", text)


def cited_sections(text: str) -> Iterator[tuple[str, str]]:
    """Page and section, as in: docs/algorithm.md, "Round" and "Inner loop"."""
    for match in SECTIONS_CITED.finditer(unwrapped(text)):
        for section in re.findall(r"\"([^\"]+)\"", match["sections"]):
            yield match["page"], section.rstrip(".,")


def broken(path: Path) -> Iterator[str]:
    """What this file cites and is not there."""
    text = path.read_text(encoding="utf-8")
    whole = unwrapped(text)
    for cited in dict.fromkeys(FILES_CITED.findall(whole) + PAGES_CITED.findall(whole)):
        there = any((folder / cited).is_file() for folder in (ROOT, ROOT / "docs", path.parent))
        if not there and cited not in MADE_WHEN_RUN:
            yield cited
    for page, section in cited_sections(text):
        file = ROOT / page
        if not file.is_file() or section not in headings(file.read_text(encoding="utf-8")):
            yield f'{page}, "{section}"'


def broken_links(page: Path) -> Iterator[str]:
    """The page's links to files and sections that are not there."""
    for link in LINK.findall(without_code(page.read_text(encoding="utf-8"))):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            yield link


def test_what_a_file_cites_is_in_the_repository() -> None:
    files = [path for path in text_files() if path != Path(__file__).resolve()]
    assert len(files) > 200
    assert {str(path.relative_to(ROOT)): bad for path in files if (bad := list(broken(path)))} == {}


def test_links_lead_somewhere() -> None:
    assert {str(page.relative_to(ROOT)): bad for page in pages() if (bad := list(broken_links(page)))} == {}


def test_docstrings_cite_the_equations_by_section() -> None:
    sections = {
        section
        for path in text_files()
        if path.suffix == ".py" and path.parts[len(ROOT.parts)] in ("common", "server", "client")
        for page, section in cited_sections(path.read_text(encoding="utf-8"))
        if page == "docs/algorithm.md"
    }
    assert {"Gradient estimate", "Round", "Inner loop", "Aggregation", "Policies", "Tasks", "Attacks"} <= sections


def test_citations_that_lead_nowhere_are_found(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        '"""As in docs/algorithm.md, "Round" and\n"Nothing of the kind"; docs/nowhere.md."""\n'
        "# tests/test_that_is_not_there.py\n"
    )
    assert list(broken(module)) == [
        "docs/nowhere.md", "tests/test_that_is_not_there.py", 'docs/algorithm.md, "Nothing of the kind"',
    ]  # fmt: skip
    page = tmp_path / "page.md"
    page.write_text("# One *two*: `three`\n[a](#one-two-three) [b](#four) [c](five.md) [d](page.md#one-two-three)\n")
    assert list(broken_links(page)) == ["#four", "five.md"]
