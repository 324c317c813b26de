"""Whether a Docker engine and the kernel under it can make the faults of a scenario: asked before it starts."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fedpg_lab.faults.backend import FaultKind, UnsupportedFaultError
from fedpg_lab.faults.docker.engine import engine_errors
from fedpg_lab.faults.docker.images import HELPER
from fedpg_lab.faults.docker.network_needs import Kernel, probe_script, read_probe, refusal


def check_kinds(client: Any, kinds: Collection[FaultKind]) -> Kernel:
    """What the kernel can do, if that is enough. Raises UnsupportedFaultError with one sentence if not; EngineError."""
    with engine_errors("asking the engine what it can do"):
        engine = client.info()
    if FaultKind.SLOW_CPU in kinds and not (engine.get("CpuCfsPeriod") and engine.get("CpuCfsQuota")):
        raise UnsupportedFaultError(
            "the Docker engine cannot limit processor time, without which there is no slow-cpu: "
            "use another engine, or --backend local"
        )
    kernel = probe(client)
    reason = refusal(kinds, kernel)
    if reason:
        raise UnsupportedFaultError(reason)
    return kernel


def probe(client: Any) -> Kernel:
    """Find out what the kernel can do, in a network namespace that is gone afterwards. Raises EngineError."""
    with engine_errors("trying what the kernel can do"):
        helper = client.containers.create(
            HELPER,
            ["sh", "-c", probe_script()],
            network_mode="none",
            cap_drop=["ALL"],
            cap_add=["NET_ADMIN", "NET_RAW"],
            security_opt=["no-new-privileges:true"],
            read_only=True,
            tmpfs={"/run": ""},
        )
        try:
            helper.start()
            helper.wait()
            output: bytes = helper.logs(stderr=False)
        finally:
            helper.remove(force=True)
    return read_probe(output.decode("utf-8", errors="replace"))
