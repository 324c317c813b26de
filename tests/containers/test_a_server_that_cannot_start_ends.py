"""A setting that makes no sense ends `up` with an error, and nothing is left running or tried for ever."""

from __future__ import annotations

import time

from fedpg_common.errors import ExitCode
from support.containers import AGENTS, PATIENCE_S, project


def test_an_unknown_task() -> None:
    with project("nonsense", TASK="nonsense") as federation:
        assert federation.compose("up", "--build", "--detach", check=False, timeout_s=3000.0).returncode != 0
        deadline_s = time.monotonic() + PATIENCE_S
        while (server := federation.inspect("server"))["State"]["Status"] != "exited":
            assert time.monotonic() < deadline_s
            time.sleep(0.2)
        assert server["State"]["ExitCode"] == ExitCode.USAGE
        assert server["RestartCount"] == 3
        assert "unknown task 'nonsense': choose one of CartPole-v1" in federation.server_log()
        assert {federation.inspect(agent)["State"]["Status"] for agent in AGENTS} == {"created"}
        assert federation.compose("wait", "server", check=False).returncode == ExitCode.USAGE
