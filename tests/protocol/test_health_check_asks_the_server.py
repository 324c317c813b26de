"""The containers' health check: code 0 if and only if the server on this machine says that it serves."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fedpg_common.transport.channels import tls_files
from fedpg_lab.deploy.certificates import make_certificates
from fedpg_lab.local.agent_setup import free_address
from fedpg_server import healthcheck
from fedpg_server.serving.grpc_server import SERVICE_NAME, start_listening
from fedpg_server.serving.service import FederationService
from grpc_health.v1.health_pb2 import HealthCheckResponse


@asynccontextmanager
async def listening(status: int, folder: Path | None = None) -> AsyncIterator[str]:
    """A server on a loopback port that says it is so; gives the port."""
    endpoint = await start_listening(
        "127.0.0.1:0", tls_files(folder), FederationService(authenticated=folder is not None), 1_000_000, agents=1
    )
    await endpoint.monitor.set(SERVICE_NAME, status)
    try:
        yield endpoint.address.rpartition(":")[2]
    finally:
        await endpoint.stop(None)


def code_for(
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    server_folder: Path | None = None,
    own_folder: Path | None = None,
    check_health: Callable[[], int] = healthcheck.main,
) -> int:
    async def check() -> int:
        async with listening(status, server_folder) as port:
            # As the server is told in a container: on every interface, while the check goes over loopback.
            monkeypatch.setenv("FEDPG_LISTEN", f"0.0.0.0:{port}")
            return await asyncio.to_thread(check_health)

    if own_folder:
        monkeypatch.setenv("FEDPG_TLS", str(own_folder))
    else:
        monkeypatch.delenv("FEDPG_TLS", raising=False)
    return asyncio.run(check())


def test_a_server_that_serves_is_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert code_for(HealthCheckResponse.SERVING, monkeypatch) == 0


def test_a_server_that_restores_its_run_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert code_for(HealthCheckResponse.NOT_SERVING, monkeypatch) == 1


def test_no_server_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDPG_LISTEN", free_address())
    monkeypatch.delenv("FEDPG_TLS", raising=False)
    assert healthcheck.main() == 1


def test_it_uses_the_servers_own_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.datetime.now(datetime.UTC)
    make_certificates(tmp_path, 0, ["localhost"], 1, now)
    make_certificates(tmp_path / "strangers", 0, ["localhost"], 1, now)
    server, stranger = tmp_path / "server", tmp_path / "strangers" / "server"
    assert code_for(HealthCheckResponse.SERVING, monkeypatch, server, server) == 0
    assert code_for(HealthCheckResponse.SERVING, monkeypatch, server, stranger) == 1
    assert code_for(HealthCheckResponse.SERVING, monkeypatch, server, None) == 1


def test_checks_are_quick_until_the_server_has_been_healthy_and_then_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    def check() -> int:
        return healthcheck.main(tmp_path / "was-healthy", waited.append)

    assert code_for(HealthCheckResponse.NOT_SERVING, monkeypatch, check_health=check) == 1
    assert code_for(HealthCheckResponse.SERVING, monkeypatch, check_health=check) == 0
    assert waited == []
    assert code_for(HealthCheckResponse.SERVING, monkeypatch, check_health=check) == 0
    assert code_for(HealthCheckResponse.NOT_SERVING, monkeypatch, check_health=check) == 1
    assert waited == [healthcheck.PAUSE_S] * 2


@pytest.mark.parametrize(("name", "value"), [("FEDPG_LISTEN", "nonsense"), ("FEDPG_TLS", "/nowhere")])
def test_bad_settings_fail_with_one_sentence(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    assert healthcheck.main() == 1
    assert capsys.readouterr().err.count("\n") == 1
