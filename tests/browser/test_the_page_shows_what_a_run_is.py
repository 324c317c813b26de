"""Runs on the page in a real browser: who is filtered, several compared, every screen, and nothing taken for markup."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path

import pytest
from fedpg_common.worlds import Heterogeneity
from fedpg_lab.watch.saving import save_page
from support.chromium import Page
from support.lab import write_run
from support.watch import page_of, watched_federation, watched_round, watched_run

MARKUP = "<img src=x onerror=alert(1)>"
RUN_IS_SHOWN = "document.querySelectorAll('#agents tbody tr').length === 5 && document.querySelector('#returns canvas')"
HUES = (
    "(() => {const c = document.querySelector('.cells canvas:not(.rules)'); const d = c.getContext('2d')"
    ".getImageData(0, 0, c.width, c.height).data;"
    "const at = (x, y) => [0, 1, 2].map((k) => d[4 * (y * c.width + x) + k]);"
    "return JSON.stringify([at(0, 0), at(0, 2), at(4, 4)])})()"
)
"""What is painted for a filtered, an accepted and an absent agent."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_run_shows_who_is_lying(tmp_path: Path, page: Page, pictures: Path, scheme: str) -> None:
    watched_run(tmp_path / "runs" / "one")
    page.prefer(scheme)
    with page_of(tmp_path / "runs") as server:
        page.open(f"{server.url}run?run=one")
        page.wait(RUN_IS_SHOWN)
        assert "Filtered more often than not: agents 1, 2 (of the last 20 rounds)." in page.text()
        assert page.value("document.querySelectorAll('.attack').length") == 2
        filtered, accepted, absent = json.loads(page.value(HUES))
        assert filtered == ([0xD5, 0x5E, 0] if scheme == "light" else [0xF0, 0x7F, 0x2C])
        brightness = [sum(colour) for colour in (accepted, filtered, absent)]
        assert brightness == sorted(brightness, reverse=scheme == "light"), "told apart without colours, too"
        page.picture(pictures / f"run-{scheme}.png")


def test_a_run_shows_its_policy_in_every_world(tmp_path: Path, page: Page, pictures: Path) -> None:
    federation = dataclasses.replace(
        watched_federation(), heterogeneity=Heterogeneity({"gravity": (8.0, 12.0)}), worlds_every=5
    )
    returns = {1: 90.0, 2: 80.0, 3: 10.0, 4: 70.0, 5: 100.0}
    records = [
        watched_round(n, world_returns={a: value + 3 * n for a, value in returns.items()} if n % 5 == 0 else None)
        for n in range(1, 21)
    ]
    write_run(tmp_path / "runs" / "one", federation, records)
    with page_of(tmp_path / "runs") as server:
        page.open(f"{server.url}run?run=one")
        page.wait(f"{RUN_IS_SHOWN} && document.querySelector('#worlds .tile')")
        tiles = page.value("[...document.querySelectorAll('#worlds .tile')].map((one) => one.innerText).join('|')")
        assert tiles.replace("\n", " ") == (
            "200 return in the server's world|130 mean over the worlds|70 worst world, agent 3|90 best less worst"
        )
        assert "The policy after round 20 in the worlds of the 5 agents:" in page.text()
        page.click("#agents [data-key=world_return]")
        page.wait("document.querySelector('#agents tbody td').textContent === '3'")
        assert "worst of these worlds" in page.value("document.querySelector('#returns').innerText")
        page.picture(pictures / "worlds.png")
        page.resize(390, 844, is_phone=True)
        page.wait_to_fit(390)
        page.picture(pictures / "worlds-phone.png")


def test_the_grid_is_read_with_the_keyboard(tmp_path: Path, page: Page) -> None:
    watched_run(tmp_path / "runs" / "one")
    with page_of(tmp_path / "runs") as server:
        page.open(f"{server.url}run?run=one")
        page.wait(RUN_IS_SHOWN)
        page.value("document.querySelector('.cells canvas:not(.rules)').focus()")
        for key in ["ArrowRight"] * 4 + ["ArrowDown"] * 4:
            page.press(key)
        page.wait("document.querySelector('#cell').textContent === 'round 5, agent 5: absent; rule R1'")
        page.value("document.querySelector('#agents [data-key=absent]').focus()")
        page.click("#agents [data-key=absent]")
        page.wait("document.querySelector('#agents tbody td').textContent === '5'")
        assert page.value("document.activeElement.dataset.key") == "absent"


@pytest.mark.parametrize("address", ["", "run?run=one", "compare?run=one"])
def test_a_page_fits_a_phone(tmp_path: Path, page: Page, pictures: Path, address: str) -> None:
    watched_run(tmp_path / "runs" / "one")
    page.resize(390, 844, is_phone=True)
    with page_of(tmp_path / "runs") as server:
        page.open(f"{server.url}{address}")
        page.wait("document.querySelector('.rows tbody tr')")
        page.wait_to_fit(390)
        page.picture(pictures / f"phone-{address.partition('?')[0] or 'home'}.png")


def test_runs_are_filtered_ticked_and_compared(tmp_path: Path, page: Page, pictures: Path) -> None:
    for seed in range(3):
        watched_run(tmp_path / "runs" / "ours" / f"seed-{seed}", seed=seed)
    watched_run(tmp_path / "runs" / "plain", algorithm="gpomdp")
    watched_run(tmp_path / "runs" / "half", rounds=4, algorithm="svrpg")
    with page_of(tmp_path / "runs") as server:
        page.open(server.url)
        page.wait("document.querySelectorAll('#runs tbody tr').length === 5")
        assert page.value("document.querySelector('#runs tbody a').textContent") == "half"
        page.value(
            "[...document.querySelectorAll('select')].filter((one) => one.parentNode.textContent.startsWith('state'))"
            ".forEach((one) => { one.value = 'finished'; one.dispatchEvent(new Event('change')); })"
        )
        page.wait("document.querySelectorAll('#runs tbody tr').length === 4")
        page.click("#runs [data-key=final_return]")
        page.picture(pictures / "home.png")
        page.click("#runs thead input")
        page.wait("document.querySelector('button:not([data-key])').textContent === 'Compare 4'")
        page.click("button:not([data-key])")
        page.wait("location.pathname === '/compare' && document.querySelector('#panels canvas')")
        page.wait("document.querySelectorAll('#panels .rows tbody tr').length === 2")
        assert "0, 1, 2" in page.text()
        page.picture(pictures / "compare.png")
        page.value(
            "(() => {const one = document.querySelector('select'); one.value = 'honest';"
            "one.dispatchEvent(new Event('change'))})()"
        )
        page.wait(
            "location.search.includes('axis=honest') && document.body.innerText.includes('sampled by all agents')"
        )


def test_names_with_markup_stay_text(tmp_path: Path, page: Page) -> None:
    folder = watched_run(tmp_path / "runs" / MARKUP)
    (folder / "summary.json").write_text(json.dumps({"failure": MARKUP}))
    (folder / "logs").mkdir()
    (folder / "logs" / "server.log").write_text(f"{MARKUP}\n")
    watched_run(tmp_path / "runs" / "half", rounds=2)
    with page_of(tmp_path / "runs") as server:
        page.open(server.url)
        page.wait("document.querySelectorAll('#runs tbody tr').length === 2")
        assert MARKUP in page.text()
        assert page.value("document.images.length") == 0
        page.value("[...document.querySelectorAll('#runs a')].find((one) => one.textContent.includes('img')).click()")
        page.wait(f"location.pathname === '/run' && {RUN_IS_SHOWN}")
        assert page.value("document.querySelector('h1').textContent") == MARKUP
        assert page.text().count(MARKUP) >= 3
        assert page.value("document.images.length") == 0


def test_a_saved_page_needs_neither_server_nor_network(tmp_path: Path, page: Page, pictures: Path) -> None:
    folder = watched_run(tmp_path / "runs" / MARKUP)
    save_page(folder, tmp_path / "saved.html")
    page.call("Network.enable")
    page.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)
    page.open((tmp_path / "saved.html").as_uri())
    page.wait(RUN_IS_SHOWN)
    assert "Filtered more often than not: agents 1, 2" in page.text()
    assert page.value("document.querySelector('h1').textContent") == MARKUP
    assert page.value("document.images.length") == 0
    page.picture(pictures / "saved.png")


def test_a_run_that_cannot_be_read_says_why(tmp_path: Path, page: Page) -> None:
    (tmp_path / "runs" / "broken").mkdir(parents=True)
    (tmp_path / "runs" / "broken" / "run.sqlite").write_bytes(b"nothing of the kind" * 100)
    with page_of(tmp_path / "runs") as server:
        page.open(server.url)
        page.wait("document.querySelector('.state.unreadable')")
        page.click("#runs a")
        page.wait("document.body.innerText.includes('file is not a database')")


def test_a_folder_without_runs_says_how_to_make_one(tmp_path: Path, page: Page) -> None:
    (tmp_path / "runs").mkdir()
    with page_of(tmp_path / "runs") as server:
        page.open(server.url)
        page.wait("document.body.innerText.includes('There is no run here yet')")
        watched_run(tmp_path / "runs" / "one")
        page.wait("document.querySelectorAll('#runs tbody tr').length === 1")
        assert "There is no run here yet" not in page.text()


def test_a_run_that_is_not_there_is_said_to_be_missing(tmp_path: Path, page: Page) -> None:
    (tmp_path / "runs").mkdir()
    with page_of(tmp_path / "runs") as server:
        page.open(f"{server.url}run?run=missing")
        page.wait("document.querySelector('.link').textContent.includes(\"there is no run 'missing'\")")
        watched_run(tmp_path / "runs" / "missing")
        page.wait(RUN_IS_SHOWN)
    page.problems.clear()  # the browser notes each refused call


def test_an_unfinished_run_says_how_it_is_continued(tmp_path: Path, page: Page) -> None:
    """With its folder as a shell takes it; a finished run does not."""
    for name, rounds in (("half of it's", 3), ("whole", 20)):
        federation = watched_federation()
        target = 10**6 if rounds == 3 else 1
        task = dataclasses.replace(federation.task, trajectories=target)
        records = [watched_round(number) for number in range(1, rounds + 1)]
        write_run(tmp_path / "runs" / name, dataclasses.replace(federation, task=task), records)
    folder = shlex.quote(str(tmp_path / "runs" / "half of it's"))
    with page_of(tmp_path / "runs") as server:
        page.open(f"{server.url}run?run=half%20of%20it%27s")
        page.wait(f"document.querySelector('#resume') && {RUN_IS_SHOWN}")
        assert page.value("document.querySelector('#resume code').innerText") == f"fedpg train --resume {folder}"
        page.open(f"{server.url}run?run=whole")
        page.wait(f"document.querySelector('h1').innerText === 'whole' && {RUN_IS_SHOWN}")
        assert page.value("document.querySelector('#resume')") is None


def test_a_page_without_a_run_has_no_empty_parts(tmp_path: Path, page: Page) -> None:
    watched_run(tmp_path / "runs" / "one")
    with page_of(tmp_path / "runs") as server:
        page.open(f"{server.url}run?run=none")
        page.wait("document.body.innerText.includes(\"there is no run 'none'\")")
        assert page.value("[...document.querySelectorAll('h2')].filter((one) => one.offsetParent).length") == 0
    page.problems.clear()  # the refusal


def test_a_wide_window_shows_every_column(tmp_path: Path, page: Page) -> None:
    watched_run(tmp_path / "runs" / "one")
    page.resize(1600, 900)
    with page_of(tmp_path / "runs") as server:
        for address in ("", "run?run=one"):
            page.open(f"{server.url}{address}")
            page.wait("document.querySelector('table.rows tbody tr')")
            page.wait("[...document.querySelectorAll('.scroll')].every((one) => one.scrollWidth <= one.clientWidth)")
