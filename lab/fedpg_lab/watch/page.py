"""The page itself: one document, its scripts and styles, and a run's page saved as one file."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from fedpg_common.json_text import to_json

STYLES = ("vendor/uPlot.min.css", "style.css")
OWN_SCRIPTS = ("parts", "charts", "grid", "agents", "plane", "video", "run", "home", "matrix", "compare", "main")
SCRIPTS = ("vendor/uPlot.iife.min.js", *(f"{name}.js" for name in OWN_SCRIPTS))
"""In the order in which they are loaded."""
TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
SERVED_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "media-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page loads nothing from elsewhere, and runs no script but its own."""
DOCUMENT = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
{head}
<title>{title}</title>
</head>
<body>
<noscript>This page needs JavaScript. The same addresses give JSON: add format=json to the query.</noscript>
<div id="page"></div>
<svg id="svg" hidden></svg>
{foot}
</body>
</html>
"""


@cache
def asset(name: str) -> str | None:
    """A style or script by its name; None for anything else."""
    if name not in (*STYLES, *SCRIPTS):
        return None
    return resources.files("fedpg_lab.watch").joinpath("static", *name.split("/")).read_text(encoding="utf-8")


def served() -> str:
    """The document that is served for every page: which one it shows is in its address."""
    head = "\n".join(f'<link rel="stylesheet" href="/static/{name}">' for name in STYLES)
    foot = "\n".join(f'<script src="/static/{name}"></script>' for name in SCRIPTS)
    return DOCUMENT.format(head=head, title="FedPG", foot=foot)


def saved(run: Mapping[str, Any], title: str) -> str:
    """A run's page as one file, which needs no server and no network."""
    styles = [asset(name) or "" for name in STYLES]
    scripts = [asset(name) or "" for name in SCRIPTS]
    policy = (
        f"default-src 'none'; img-src data:; media-src data:; style-src {_hashes(styles)}; "
        f"script-src {_hashes(scripts)}; base-uri 'none'; form-action 'none'"
    )
    data = to_json(run).replace("<", "\\u003c")  # so that no name in it can end the element
    head = [f'<meta http-equiv="Content-Security-Policy" content="{policy}">']
    head += [f"<style>{style}</style>" for style in styles]
    foot = [f'<script type="application/json" id="saved">{data}</script>']
    foot += [f"<script>{script}</script>" for script in scripts]
    return DOCUMENT.format(head="\n".join(head), title=html.escape(title), foot="\n".join(foot))


def _hashes(texts: list[str]) -> str:
    digests = (hashlib.sha256(text.encode("utf-8")).digest() for text in texts)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode('ascii')}'" for digest in digests)
