"""In a real browser: a round's gradients in the plane, an experiment's matrix, faults behind curves, on any screen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fedpg_common.learning.aggregators.distances import pairwise_distances
from fedpg_lab.watch.saving import save_page
from fedpg_server.learning.pairwise import pack
from support.chromium import Page
from support.lab import write_run
from support.watch import page_of, watched_federation, watched_round, watched_run

MARKUP = "<img src=x onerror=alert(1)>"
PLANE = "document.querySelector('#plane svg[role=img]')"
PLANE_SAYS = "document.querySelector('#plane-tell').textContent"


def run_with_gradients(folder: Path, rounds: int = 20) -> Path:
    """Five agents; 1 and 2 send the same, far from the others."""
    records = []
    for number in range(1, rounds + 1):
        matrix = np.random.default_rng(number).normal(size=(5, 40)).astype(np.float32) * 0.004
        matrix[:2] = 0.05
        distances = pairwise_distances(matrix)
        records.append(watched_round(
            number, accepted=(3, 4, 5), filtered=(1, 2), absent=(), median_agent=3, rule="R1",
            weights={3: 1.0, 4: 1.0, 5: 1.0}, centre_distances=dict(enumerate(distances[2].tolist(), 1)),
            pairwise_distances=pack(distances), figures={"radius": 0.08},
        ))  # fmt: skip
    return write_run(folder, watched_federation(rounds=rounds), records)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_plane_shows_who_stands_apart(tmp_path: Path, page: Page, pictures: Path, scheme: str) -> None:
    run_with_gradients(tmp_path / "runs" / "one")
    page.prefer(scheme)
    with page_of(tmp_path / "runs") as server:
        page.open(f"{server.url}run?run=one")
        page.wait(PLANE)
        assert "filtered agents 1, 2; the same gradient from agents 1, 2" in page.value(PLANE_SAYS)
        assert page.value("document.querySelectorAll('#plane .agent .dot.filtered').length") == 1, "one place, one mark"
        assert page.value("document.querySelectorAll('#plane svg circle.radius').length") == 2
        page.picture(pictures / f"plane-{scheme}.png")


def test_a_cell_of_the_grid_leads_to_its_round(tmp_path: Path, page: Page) -> None:
    run_with_gradients(tmp_path / "runs" / "one")
    with page_of(tmp_path / "runs") as server:
        page.open(f"{server.url}run?run=one")
        page.wait(PLANE)
        page.value("document.querySelector('.cells canvas:not(.rules)').focus()")
        for key in ["ArrowRight"] * 3 + ["Enter"]:
            page.press(key)
        page.wait(f"{PLANE_SAYS}.startsWith('Round 4,')")
        page.value("Fedpg.page.plane.follow.click()")
        page.wait(f"{PLANE_SAYS}.startsWith('Round 20,')")


def test_a_saved_page_has_earlier_rounds_too(tmp_path: Path, page: Page, pictures: Path) -> None:
    save_page(run_with_gradients(tmp_path / "runs" / "one"), tmp_path / "saved.html")
    page.open((tmp_path / "saved.html").as_uri())
    page.wait(PLANE)
    page.value("Fedpg.saved.plane.choose(7)")
    page.wait(f"{PLANE_SAYS}.startsWith('Round 7,')")
    assert page.value("document.querySelector('#video').parentNode.hidden")
    page.picture(pictures / "saved-plane.png")


def test_a_run_without_distances_says_so(tmp_path: Path, page: Page) -> None:
    watched_run(tmp_path / "runs" / "one")
    with page_of(tmp_path / "runs") as server:
        page.open(f"{server.url}run?run=one")
        page.wait("document.querySelector('#plane').innerText.includes('were not kept')")


def matrix_of(rows: int, columns: int) -> str:
    """An experiment's matrix whose names are markup; the first attack is the worst."""
    row_names, column_names = [f"{MARKUP}{n}" for n in range(rows)], [f"attack-{n}" for n in range(columns)]

    def cell(row: str, column: str | None, mean: float) -> dict[str, object]:
        runs = ["one/seed-0", "one/seed-1"] if column == "attack-0" else ["one/seed-0"]
        return {"row": row, "column": column, "final_returns": [mean], "mean": mean, "worst": mean, "runs": runs,
                "to_threshold": [100], "complete": [True], "accepted_honest": 1, "accepted_byzantine": 0,
                "without_gradient": [1.0 if column == "attack-1" else 0.0]}  # fmt: skip

    cells = [cell(row, column, 9.0 + 400.0 * min(n, 1)) for row in row_names for n, column in enumerate(column_names)]
    matrix = {"task": "CartPole-v1", "K": 5, "byzantine": 2, "trajectories": 320, "seeds": [0, 1], "threshold": 400,
              "rows": row_names, "columns": column_names, "cells": cells, "worst": [],
              "undisturbed": [cell(row, None, 500.0) for row in row_names]}  # fmt: skip
    return json.dumps({"format": 1, "title": MARKUP, "experiment": "x", "matrices": [matrix]})


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("is_phone", [False, True])
def test_a_matrix_shows_each_rules_worst_attack(
    tmp_path: Path, page: Page, pictures: Path, scheme: str, is_phone: bool
) -> None:
    for seed in (0, 1):
        watched_run(tmp_path / "runs" / "exp" / "one" / f"seed-{seed}", seed=seed)
    (tmp_path / "runs" / "exp" / "matrix.json").write_text(matrix_of(4, 12))
    page.prefer(scheme)
    if is_phone:
        page.resize(390, 844, is_phone=True)
    with page_of(tmp_path / "runs") as server:
        page.open(server.url)
        page.wait("document.querySelector('#matrices a')")
        page.click("#matrices a")
        page.wait("location.pathname === '/matrix' && document.querySelectorAll('.matrix tbody tr').length === 4")
        assert page.value("document.querySelector('h1').textContent") == MARKUP
        assert page.value("document.images.length") == 0
        assert page.value("document.querySelectorAll('.matrix .worst').length") == 4
        assert page.value("document.querySelector('.matrix tbody td:last-child').innerText").split() == [
            "9",
            "attack-0",
        ]
        assert page.value("document.querySelectorAll('.matrix td abbr').length") == 4, "one of each rule"
        assert page.value("document.querySelector('.matrix tbody td:nth-child(4)').innerText").split() == ["409", "∅"]
        assert page.value("document.querySelector('.matrix td abbr').title").startswith("∅: in a run, no gradient")
        assert page.value("document.querySelector('#matrices').innerText.includes('∅: in a run, no gradient')")
        page.wait_to_fit(390 if is_phone else 1280)
        page.picture(pictures / f"matrix-{scheme}{'-phone' if is_phone else ''}.png")
        page.click(".matrix .worst a")
        page.wait("location.pathname === '/compare' && document.querySelector('#panels .rows tbody a')")
        page.click("#panels .rows tbody a")
        page.wait("location.pathname === '/run' && document.querySelectorAll('#agents tbody tr').length === 5")


def test_faults_are_shaded_and_listed(tmp_path: Path, page: Page, pictures: Path) -> None:
    folder = watched_run(tmp_path / "runs" / "one")
    entry = {"label": MARKUP, "begin_round": 5, "heal_round": 8}
    (folder / "faults.json").write_text(json.dumps({"happened": [entry]}))
    with page_of(tmp_path / "runs") as server:
        page.open(f"{server.url}run?run=one")
        page.wait("document.querySelector('#events tr')")
        assert page.value("document.querySelector('#events').innerText").startswith("rounds 5 to 8")
        assert page.value("document.querySelector('#events td.wide').textContent") == MARKUP
        assert page.value("JSON.stringify(Fedpg.page.returns.spans)") == '[[64,128,"fault"]]'
        page.picture(pictures / "faults.png")
