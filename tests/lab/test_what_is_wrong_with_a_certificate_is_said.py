"""A certificate of another authority, host, purpose or time is told in a sentence, at either end and by its own end."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from fedpg_common.errors import ExitCode, RefusedError, UsageError
from fedpg_common.transport.channels import server_credentials, tls_files
from fedpg_lab.deploy.certificates import make_certificates
from fedpg_lab.local.status import fetch_status
from support.lab import Command

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
TIMEOUT_S = 60.0
EXPIRED = "has expired: `fedpg certs` renews it (unless this machine's clock is wrong)"


def certificates(
    folder: Path, at: datetime.datetime = NOW, name: str = "localhost", authority: Path | None = None
) -> Path:
    """Certificates for a server of that name and two agents, made at that time, for five days."""
    make_certificates(folder, 2, [name], 5, at, authority)
    return folder


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Somebody who shows the certificate in a folder, whatever it is worth; gives the address."""
    authority, certificate, key = (folder / name for name in ("ca.pem", "cert.pem", "key.pem"))
    server = grpc.server(ThreadPoolExecutor(1))
    shown = [(key.read_bytes(), certificate.read_bytes())]
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials(shown, authority.read_bytes(), True))
    server.start()
    try:
        yield f"localhost:{port}"
    finally:
        server.stop(None)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificates(tmp_path_factory.mktemp("certificates") / "good")


@pytest.mark.parametrize(
    ("at", "name", "is_foreign", "what"),
    [
        (NOW, "localhost", True, "is not signed by the authority in ca.pem here"),
        (NOW, "elsewhere.example", False, "is for another host name: `fedpg certs --server-name` adds names to it"),
        (
            NOW - 6 * DAY,
            "localhost",
            False,
            "has expired: `fedpg certs` renews it (unless this machine's clock is wrong)",
        ),
        (NOW + 3 * DAY, "localhost", False, "is not valid yet, by this machine's clock: set the clock"),
    ],
)
def test_the_servers_is_told_to_whoever_calls(
    tmp_path: Path, good: Path, at: datetime.datetime, name: str, is_foreign: bool, what: str
) -> None:
    shown = certificates(tmp_path / "shown", at, name, None if is_foreign else good / "authority")
    with serving(shown / "server") as address, pytest.raises(RefusedError) as refused:
        fetch_status(address, tls_files(good / "operator"), TIMEOUT_S)
    assert str(refused.value) == f"the certificate of the server at {address} {what}"


@pytest.mark.parametrize(("at", "what"), [(NOW - 6 * DAY, "has expired on "), (NOW + 3 * DAY, ": set the clock")])
def test_ones_own_is_not_even_shown_out_of_its_time(
    tmp_path: Path, good: Path, at: datetime.datetime, what: str
) -> None:
    own = certificates(tmp_path / "own", at, authority=good / "authority")
    with pytest.raises(UsageError, match=r"the TLS certificate .*agent-1/cert\.pem ") as refused:
        tls_files(own / "agent-1")
    assert what in str(refused.value)


def test_a_key_of_another_certificate_is_named(tmp_path: Path, good: Path) -> None:
    mixed = shutil.copytree(good / "agent-1", tmp_path / "mixed")
    shutil.copy(good / "agent-2" / "key.pem", mixed)
    with pytest.raises(UsageError, match=r"key\.pem is the key of another certificate than .*cert\.pem"):
        tls_files(mixed)


def test_a_server_does_not_start_with_an_agents(tmp_path: Path, good: Path) -> None:
    """No agent would take it for the server's: each would say that the host name is another."""
    files = tls_files(good / "agent-1")
    assert files is not None
    with pytest.raises(UsageError, match=r"is not for a server \(CN=agent-1\): give the folder `server`"):
        server_credentials(files)
    own = tls_files(good / "server")
    assert own is not None
    assert server_credentials(own)


def test_status_ends_with_the_code_of_a_refusal(tmp_path: Path, good: Path, fedpg: Command) -> None:
    with serving(certificates(tmp_path / "foreign") / "server") as address:
        code, _, said = fedpg("status", "--server", address, "--tls", good / "operator")
    assert (code, said.splitlines()[-1].endswith("is not signed by the authority in ca.pem here")) == (
        ExitCode.REFUSED,
        True,
    )
