"""The page of `fedpg watch`: what its addresses give, to whom, and that nothing changes by looking."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from fedpg_common.descriptions import describe
from fedpg_lab.figures.published import published_for
from fedpg_lab.watch.page import OWN_SCRIPTS, SCRIPTS, STYLES, asset, saved
from fedpg_lab.watch.server import WatchServer, open_server
from fedpg_server.storage.store import STORE_NAME, Store
from support.lab import Command, write_run
from support.terminal import Terminal, command_line
from support.watch import ask, ask_json, page_of, watched_round, watched_run

MARKUP = "<img src=x onerror=alert(1)>"


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below, with its time and content."""
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_the_first_page_lists_runs_and_leaves_them_as_they_were(tmp_path: Path) -> None:
    watched_run(tmp_path / "runs" / "deep" / "one")
    watched_run(tmp_path / "runs" / "half", rounds=10)
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / STORE_NAME).write_bytes(b"nothing of the kind")
    before = tree(tmp_path)
    with page_of(tmp_path / "runs") as server:
        home = ask_json(server, "/")
        assert [(run["run"], run["state"]) for run in home["runs"]] == [
            ("half", "unfinished"), ("deep/one", "finished"), ("broken", "unreadable")]  # fmt: skip
        assert home["runs"][1]["attack"] == "sign-flipping"
        for name in ("deep/one", "half", "broken"):
            ask_json(server, f"/run?run={name}")
        ask_json(server, "/compare?run=deep/one&run=half")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", [b"a\xffb", b"a\nb", b"a b&run=c", "é ☃".encode()])
def test_whatever_a_run_is_called_its_page_is_found(tmp_path: Path, name: bytes) -> None:
    watched_run(tmp_path / "plain").rename(tmp_path / os.fsdecode(name))
    with page_of(tmp_path) as server:
        (line,) = ask_json(server, "/")["runs"]
        whole = ask_json(server, f"/run?run={quote(line['run'])}")
    assert whole["run"]["state"] == line["state"] == ("unreadable" if b"\xff" in name else "finished")


@pytest.mark.parametrize("folder", [".", "runs", "runs/", "../work/runs", "runs/one"])
def test_the_folder_may_be_said_in_any_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    watched_run(tmp_path / "work" / "runs" / "one")
    monkeypatch.chdir(tmp_path / "work")
    with page_of(Path(folder)) as server:
        (line,) = ask_json(server, "/")["runs"]
        assert line["run"] == {".": "runs/one", "runs/one": "."}.get(folder, "one")
        assert ask_json(server, f"/run?run={line['run']}")["run"]["rounds"] == 20


def test_a_live_run_is_listed_first(tmp_path: Path) -> None:
    watched_run(tmp_path / "a")
    store = Store.open(watched_run(tmp_path / "z", rounds=3) / STORE_NAME)
    try:
        with page_of(tmp_path) as server:
            assert [(run["run"], run["state"]) for run in ask_json(server, "/")["runs"]] == [
                ("z", "live"), ("a", "finished")]  # fmt: skip
            clock = ask_json(server, "/run?run=z")["clock"]
            assert (clock["source"], clock["round"], clock["votes"], clock["waiting_for"]) == (
                "store", 4, 0, [1, 2, 3, 4, 5])  # fmt: skip
    finally:
        store.close()


def test_a_run_shows_who_is_filtered(tmp_path: Path) -> None:
    watched_run(tmp_path / "one")
    with page_of(tmp_path) as server:
        whole = ask_json(server, "/run?run=one")
    assert whole["run"]["suspects"] == [1, 2]
    assert whole["run"]["byzantine"] == {"1": "sign-flipping", "2": "sign-flipping"}
    rows = {row["agent"]: row for row in whole["agents"]}
    assert (rows[1]["accepted"], rows[1]["filtered"], rows[1]["lately"]) == (0, 20, 0.0)
    assert (rows[5]["accepted"], rows[5]["absent"], rows[5]["verdict"], rows[5]["last_vote"]) == (16, 4, "absent", 19)
    assert whole["curve"]["figures"]["evaluation"] == [10.0 * number for number in range(1, 21)]
    assert whole["run"]["speed"] == pytest.approx(1760 / 0.5)


def test_a_record_with_weights_and_figures_shows_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedpg_lab.watch import adapter

    record = watched_round(1)
    object.__setattr__(record, "weights", {1: None, 3: 0.5})
    object.__setattr__(record, "figures", {"trust": 0.25})
    shown = adapter.round_of(record)
    assert shown.weights == {1: None, 3: 0.5}
    assert shown.figures["trust"] == 0.25


def test_several_runs_are_compared_over_seeds(tmp_path: Path) -> None:
    for seed in range(3):
        watched_run(tmp_path / f"seed-{seed}", seed=seed)
    watched_run(tmp_path / "other", algorithm="gpomdp")
    with page_of(tmp_path) as server:
        query = "&".join(f"run={run}" for run in ("seed-0", "seed-1", "seed-2", "other"))
        found = ask_json(server, f"/compare?{query}&smooth=1")
        assert [(curve["label"], curve["seeds"]) for curve in found["curves"]] == [
            ("GPOMDP K=5, B=2", [0]), ("FedPG-BR K=5, B=2", [0, 1, 2])]  # fmt: skip
        assert found["curves"][1]["mean"] == [10.0 * number for number in range(1, 21)]
        assert found["curves"][0]["half_width"] is None
        assert found["curves"][1]["half_width"] == [0.0] * 20
        honest = ask_json(server, f"/compare?{query}&axis=honest&smooth=1")
        assert honest["curves"][1]["counts"] == [88.0 * number for number in range(1, 21)]


def test_published_points_lie_on_the_published_axis_alone(tmp_path: Path) -> None:
    federation = describe("CartPole-v1", agents=10, trajectories=5000)
    write_run(
        tmp_path / "one",
        federation,
        [watched_round(number, trajectories_total=50 * number) for number in range(1, 101)],
    )
    expected = published_for(federation)
    assert expected
    with page_of(tmp_path) as server:
        (curve,) = ask_json(server, "/compare?run=one")["curves"]
        (honest,) = ask_json(server, "/compare?run=one&axis=honest")["curves"]
    assert [expected.trajectories, expected.final, "final return"] in curve["published"]
    assert len(curve["published"]) == 1 + len(expected.reaches)
    assert honest["published"] == []


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/run?run=../outside", 404, "there is no run"),
        ("/run?run=/etc", 404, "there is no run"),
        ("/events?run=none", 404, "there is no run"),
        ("/compare", 400, "compare 1 to 100 runs, not 0"),
        ("/compare?" + "&".join(f"run={number}" for number in range(300)), 400, "compare 1 to 100 runs, not 300"),
        ("/compare?run=one&smooth=0", 400, "smooth must be"),
        ("/compare?run=one&smooth=x", 400, "smooth must be"),
        ("/nothing", 404, "there is no page"),
        ("/static/../cli.py", 404, "there is no file"),
        ("/static/%2e%2e/cli.py", 404, "there is no file"),
        ("/run?" + "a=1&" * 1100, 400, "the address cannot be read"),
        ("ftp://[", 400, "the address cannot be read"),
    ],
)
def test_what_is_not_there_is_one_sentence(tmp_path: Path, path: str, status: int, says: str) -> None:
    watched_run(tmp_path / "runs" / "one")
    watched_run(tmp_path / "outside")
    with page_of(tmp_path / "runs") as server:
        found, _, content = ask(server, path, Accept="application/json")
    assert found == status
    assert says in json.loads(content)["error"]


@pytest.mark.parametrize(
    ("host", "is_welcome"),
    [
        ("127.0.0.1", True), ("localhost:8470", True), ("[::1]:8470", True), ("192.0.2.7", True),
        (socket.gethostname(), True), ("evil.example", False), ("localhost.evil.example:8470", False), ("", False),
        ("[", False),
    ],
)  # fmt: skip
def test_only_its_own_names_reach_it(tmp_path: Path, host: str, is_welcome: bool) -> None:
    with page_of(tmp_path) as server:
        status, _, content = ask(server, "/", Host=host)
    assert status == (200 if is_welcome else 403)
    assert b"the server's" in content or is_welcome


def test_it_answers_no_other_method(tmp_path: Path) -> None:
    with page_of(tmp_path) as server:
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            assert ask(server, "/", method)[0] == 501
        status, headers, content = ask(server, "/", "HEAD")
    assert (status, content) == (200, b"")
    assert int(headers["Content-Length"]) > 100


def test_pages_load_nothing_from_elsewhere(tmp_path: Path) -> None:
    watched_run(tmp_path / "one")
    with page_of(tmp_path) as server:
        for path in ("/", "/run?run=one", "/compare?run=one"):
            status, headers, content = ask(server, path, Accept="text/html,*/*")
            assert status == 200
            policy = headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            for link in re.findall(rb'(?:src|href)="([^"]*)"', content):
                assert link.startswith((b"/static/", b"data:"))
        for name in (*STYLES, *SCRIPTS):
            assert ask(server, f"/static/{name}")[0] == 200
    own = [asset("style.css") or "", *(asset(f"{name}.js") or "" for name in OWN_SCRIPTS)]
    for text in own:
        assert "://" not in text
        assert not re.search(r"innerHTML\s*=[^=]|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text)


def test_vendored_files_are_what_their_checksums_say() -> None:
    vendor = resources.files("fedpg_lab.watch") / "static" / "vendor"
    sums = {name: digest for digest, name in map(str.split, (vendor / "SHA256SUMS").read_text().splitlines())}
    assert set(sums) == {name.removeprefix("vendor/") for name in (*STYLES, *SCRIPTS) if name.startswith("vendor/")}
    for name, digest in sums.items():
        assert hashlib.sha256((vendor / name).read_bytes()).hexdigest() == digest
    about = (vendor / "README.txt").read_text()
    assert re.search(r"uPlot \d+\.\d+\.\d+", about)
    assert "MIT" in about


def events_of(server: WatchServer, path: str) -> tuple[http.client.HTTPConnection, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=300)
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.getheader("Content-Type") == "text/event-stream; charset=utf-8"
    return connection, answer


def next_event(answer: Any) -> Any:
    while not (line := answer.readline()).startswith(b"data: "):
        assert line, "the stream ended"
    return json.loads(line[6:])


def test_events_bring_what_is_new(tmp_path: Path) -> None:
    folder = watched_run(tmp_path / "one", rounds=3)
    store = Store.open(folder / STORE_NAME)
    try:
        state = store.latest_state()[1]
        with page_of(tmp_path) as server:
            connection, answer = events_of(server, "/events?run=one")
            first = next_event(answer)
            assert first["reset"]
            assert first["run"]["rounds"] == 3
            store.finish_round(watched_round(4), state)
            second = next_event(answer)
            assert "reset" not in second
            assert (second["curve"]["start"], second["curve"]["figures"]["evaluation"]) == (3, [40.0])
            assert second["run"]["rounds"] == 4
            connection.close()
            again, answer = events_of(server, "/events?run=one")
            assert next_event(answer)["curve"]["rounds"] == 4
            again.close()
            connection, answer = events_of(server, "/events")
            assert [run["run"] for run in next_event(answer)["runs"]] == ["one"]
            watched_run(tmp_path / "two")
            assert [run["run"] for run in next_event(answer)["runs"]] == ["one", "two"]
            connection.close()
    finally:
        store.close()


def test_a_saved_page_holds_everything_and_no_name_ends_its_data(tmp_path: Path, fedpg: Command) -> None:
    folder = watched_run(tmp_path / "one")
    code, out, _ = fedpg("watch", folder, "--save", tmp_path / "one.html")
    assert (code, out.strip()) == (0, f"Saved the page of {folder}: {tmp_path / 'one.html'}")
    text = (tmp_path / "one.html").read_text(encoding="utf-8")
    assert not re.search(r'<(?:script|link|img)[^>]*(?:src|href)="(?!data:)', text)
    data = re.search(r'<script type="application/json" id="saved">(.*?)</script>', text, re.DOTALL)
    assert data
    assert json.loads(data.group(1))["run"]["suspects"] == [1, 2]
    evil = saved({"run": {"note": "</script><script>alert(1)</script>"}}, MARKUP)
    assert "<script>alert" not in evil
    assert MARKUP not in evil


def test_a_folder_without_runs_says_how_to_make_one(tmp_path: Path) -> None:
    watching = Terminal(command_line("fedpg", "watch", tmp_path, "--port", "0", "--no-browser"), columns=300)
    watching.read_until(f"There is no run yet: fedpg train --out {tmp_path} makes one there")
    watching.press_ctrl_c()
    assert watching.end().code == 0
    watched_run(tmp_path / "run")
    watching = Terminal(command_line("fedpg", "watch", tmp_path, "--port", "0", "--no-browser"), columns=300)
    watching.read_until("(Ctrl-C ends it)")
    watching.press_ctrl_c()
    assert "no run yet" not in watching.end().output


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["missing"], 6, "there is no folder missing: fedpg train --out missing makes one there"),
        (["file"], 6, "file is not a folder"),
        (["folder", "--port", "70000"], 2, "--port must be 0 to 65535, not 70000"),
        (["folder", "--save", "page.html"], 6, "there is no run in folder"),
        (["run", "--save", "nowhere/page.html"], 6, "cannot write nowhere/page.html"),
        (["broken", "--save", "page.html"], 6, "file is not a database"),
        (["folder", "--host", "256.256.256.256", "--port", "0"], 5, "the page cannot be served at 256.256.256.256:0"),
    ],
)
def test_mistakes_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fedpg: Command, arguments: list[str], code: int, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").touch()
    watched_run(Path("run"))
    Path("broken").mkdir()
    Path("broken", STORE_NAME).write_bytes(b"nothing of the kind" * 100)
    found, _, text = fedpg("watch", *arguments)
    assert found == code
    assert says in text
    assert text.count("\n") == 1
    assert not os.path.exists("page.html")


def test_a_port_in_use_is_refused_or_passed_over(tmp_path: Path, fedpg: Command) -> None:
    with page_of(tmp_path) as server:
        port = server.server_address[1]
        code, _, text = fedpg("watch", tmp_path, "--port", port)
        assert code == 5
        assert f"the page cannot be served at 127.0.0.1:{port}" in text
    first = open_server(server.catalogue, "127.0.0.1", None)
    second = open_server(server.catalogue, "127.0.0.1", None)
    assert first.server_address[1] != second.server_address[1]
    first.server_close()
    second.server_close()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_it_ends_on_a_signal_while_a_page_listens(tmp_path: Path, number: signal.Signals, code: int) -> None:
    watched_run(tmp_path / "one")
    command = command_line("fedpg", "watch", tmp_path / "one", "--port", "0")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        url = re.search(r"at (http://127\.0\.0\.1:\d+/run\?run=\.) \(Ctrl-C ends it\)", process.stdout.readline())
        assert url
        connection = http.client.HTTPConnection(urlsplit(url.group(1)).netloc, timeout=300)
        connection.request("GET", "/events?run=.")
        assert next_event(connection.getresponse())["run"]["rounds"] == 20
        process.send_signal(number)
        try:
            assert process.wait(300) == code
        finally:
            process.kill()
        assert process.stderr.read() == ""
        connection.close()
