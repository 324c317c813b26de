"""While a server restores its run it says NOT_SERVING and UNAVAILABLE, then SERVING; a signal ends it cleanly."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path

import grpc
import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg.v1 import federation_pb2_grpc
from fedpg_common.descriptions import describe
from fedpg_common.errors import ExitCode
from fedpg_server import server as server_module
from fedpg_server.server import ServerOptions, serve
from fedpg_server.serving.grpc_server import SERVICE_NAME
from fedpg_server.storage.store import STORE_NAME, Store
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from support.protocol import CALL_TIMEOUT_S, open_aio_channel

Health = health_pb2.HealthCheckResponse


async def health_of(channel: grpc.aio.Channel, service: str) -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    return int((await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=CALL_TIMEOUT_S)).status)


async def until_serving(channel: grpc.aio.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    async for update in stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE_NAME), timeout=CALL_TIMEOUT_S):
        if update.status == Health.SERVING:
            return


async def offered_services(channel: grpc.aio.Channel) -> set[str]:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    async for reply in stub.ServerReflectionInfo(iter([request]), timeout=CALL_TIMEOUT_S):
        return {service.name for service in reply.list_services_response.service}
    return set()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, ExitCode.TERMINATED), (signal.SIGINT, ExitCode.INTERRUPTED)]
)
def test_not_serving_then_serving_then_ended_by_a_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: ExitCode
) -> None:
    released = threading.Event()
    open_store = server_module._open_store

    def slow_open_store(*arguments: object) -> Store:
        assert released.wait(CALL_TIMEOUT_S)
        return open_store(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(server_module, "_open_store", slow_open_store)

    async def play() -> ExitCode:
        bound: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        options = ServerOptions(tmp_path, "127.0.0.1:0", describe("CartPole-v1", agents=2), observers=())
        served = asyncio.create_task(serve(options, bound.set_result))
        async with open_aio_channel(await bound) as channel:
            stub = federation_pb2_grpc.FederationStub(channel)
            assert await health_of(channel, SERVICE_NAME) == Health.NOT_SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Join(pb.JoinRequest(agent=1), timeout=CALL_TIMEOUT_S)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert caught.value.details() == "the server is restoring the run; try again"
            released.set()
            await until_serving(channel)
            assert (await stub.Join(pb.JoinRequest(agent=1), timeout=CALL_TIMEOUT_S)).agents == 2
            status = await stub.GetStatus(pb.GetStatusRequest(), timeout=CALL_TIMEOUT_S)
            assert (status.task, status.algorithm, status.quorum) == ("CartPole-v1", "fedpg-br", 2)
            assert await offered_services(channel) >= {SERVICE_NAME, "grpc.health.v1.Health"}
            os.kill(os.getpid(), number)
            return await served

    assert asyncio.run(play()) is code
    store = Store.open(tmp_path / STORE_NAME)
    assert store.run_id, "the store was closed in order and its lock released"
    store.close()
