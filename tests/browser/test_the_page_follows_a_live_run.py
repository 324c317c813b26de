"""A federation trains, its server is killed and returns, so does the page's own: the page keeps showing the run."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedpg_common.descriptions import describe
from fedpg_lab.local.processes import SERVER, LocalFederation
from support.chromium import Page
from support.watch import page_of

ENDLESS = 1_000_000
"""Trajectories that no test waits for."""
ROUNDS = "Fedpg.page.known.run.rounds"


@contextmanager
def training(folder: Path) -> Iterator[LocalFederation]:
    """Four agents, one of them lying, that train until the test is done; what is killed is started again."""
    federation = describe(
        "CartPole-v1", agents=4, byzantine=1, attack="random-noise", trajectories=ENDLESS, round_timeout_s=60.0
    )
    done = threading.Event()
    with LocalFederation(federation, folder, agents_per_process=4, observers=()) as processes:

        def look_after() -> None:
            while processes.supervise() and not done.wait(0.1):
                pass

        thread = threading.Thread(target=look_after)
        thread.start()
        try:
            yield processes
        finally:
            done.set()
            thread.join()


def test_a_live_run_its_restart_and_the_pages_own(tmp_path: Path, page: Page, pictures: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    with page_of(runs) as server, training(runs / "live") as processes:
        port = server.server_address[1]
        page.open(server.url)
        page.wait("document.querySelector('#runs .state.live')")
        page.click("#runs a")
        page.wait(f"{ROUNDS} >= 5 && Fedpg.page.known.clock.source === 'server'")
        page.wait("document.querySelector('#suspects').textContent.includes('agent 1')")
        page.wait("document.querySelector('#clock').textContent.includes('quorum 3')")
        page.picture(pictures / "live.png")
        processes.send_signal(SERVER, signal.SIGKILL)
        page.wait("document.body.innerText.includes('restart of the server')")
        before = page.value(ROUNDS)
        page.wait(f"{ROUNDS} > {before} && Fedpg.page.known.clock.source === 'server'")
        server.ended.set()
        server.shutdown()
        server.server_close()
        page.wait("document.querySelector('.link.lost')")
        page.picture(pictures / "away.png")
        before = page.value(ROUNDS)
        with page_of(runs, port=port):
            page.wait(f"document.querySelector('.link').textContent === 'connected' && {ROUNDS} > {before}")
    page.problems.clear()  # the browser notes each call to a server that was away
