"""Whatever the environment says of proxies, a federation's own traffic goes straight to its address."""

from __future__ import annotations

import ast
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fedpg_server.healthcheck import main as check_health
from support.protocol import idle_federation, serving_in_a_thread
from support.terminal import ROOT, command_line, environment

VARIABLES = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
OPENERS = {"insecure_channel", "secure_channel"}
HOME = "common/fedpg_common/transport/channels.py"


class Proxy:
    """Listens, counts who comes, and hangs up."""

    def __init__(self) -> None:
        """It listens from here on."""
        self.heads: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def variables(self) -> dict[str, str]:
        """An environment that sends everything here."""
        url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        return {**dict.fromkeys(VARIABLES, url), "no_proxy": "", "NO_PROXY": ""}

    def _serve(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
                with caller:
                    caller.settimeout(10)
                    self.heads.append(caller.recv(1000))
            except OSError:
                if self._listener.fileno() < 0:
                    return

    def close(self) -> None:
        """Stop listening."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy that is not to be used."""
    made = Proxy()
    yield made
    made.close()


@contextmanager
def proxied(monkeypatch: pytest.MonkeyPatch, proxy: Proxy) -> Iterator[None]:
    """This process's environment says to use it."""
    with monkeypatch.context() as patch:
        for name, value in proxy.variables.items():
            patch.setenv(name, value)
        yield


def run(proxy: Proxy, folder: Path, command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command_line(command, *arguments),
        cwd=folder, env=environment(**proxy.variables), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_training_with_colluding_attackers(proxy: Proxy, tmp_path: Path) -> None:
    ended = run(
        proxy, tmp_path, "fedpg", "train", "--agents", "4", "--byzantine", "2", "--attack", "fedpg",
        "--trajectories", "40", "--name", "run",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert proxy.heads == []
    logs = "".join(path.read_text() for path in (tmp_path / "runs" / "run" / "logs").iterdir())
    assert "attacking alone" not in logs


def test_an_experiment_and_a_scenario(proxy: Proxy, tmp_path: Path) -> None:
    federation = 'task = "CartPole-v1"\nagents = 2\ntrajectories = 20\n'
    (tmp_path / "one.toml").write_text(f'title = "One"\nseeds = 1\n[[federation]]\n{federation}')
    (tmp_path / "calm.toml").write_text(f'title = "Calm"\n[federation]\n{federation}')
    for command, file in (("experiment", "one.toml"), ("faults", "calm.toml")):
        ended = run(proxy, tmp_path, "fedpg", command, file)
        assert ended.returncode == 0, ended.stderr
    assert proxy.heads == []


def test_status_and_health(proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving_in_a_thread(tmp_path, idle_federation(3, 1)) as address:
        ended = run(proxy, tmp_path, "fedpg", "status", "--server", address)
        assert ended.returncode == 0, ended.stderr
        with proxied(monkeypatch, proxy):
            monkeypatch.setenv("FEDPG_LISTEN", address)
            check_health()  # the server has not said that it serves, which this gets to hear
    assert proxy.heads == []


@pytest.mark.parametrize(
    ("command", "arguments"),
    [("fedpg", ("status",)), ("fedpg-agent", ("--agent", "1", "--connect-timeout", "0.5"))],
)
def test_a_proxy_is_used_where_that_is_asked_for(
    proxy: Proxy, tmp_path: Path, command: str, arguments: tuple[str, ...]
) -> None:
    ended = run(proxy, tmp_path, command, *arguments, "--server", "127.0.0.1:1", "--use-proxy")
    assert ended.returncode == 3, ended.stderr
    assert any(head.startswith(b"CONNECT 127.0.0.1:1 ") for head in proxy.heads)


def test_channels_are_opened_in_one_place() -> None:
    elsewhere = {
        str(path.relative_to(ROOT))
        for folder in ("common", "server", "client", "lab")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Attribute) and node.attr in OPENERS)
        or (isinstance(node, ast.alias) and node.name in OPENERS)
    }
    assert elsewhere == {HOME}
