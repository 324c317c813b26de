"""A server and agents on machines of their own, over a network with TLS, train what a local run trains.

The machines are network namespaces, each with an address of its own, joined by virtual cables and a switch. They live
in a namespace of this test's own, so they need no root, touch nothing outside, and are gone with its processes.
"""

from __future__ import annotations

import datetime
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fedpg_common.errors import ExitCode
from fedpg_lab.deploy.certificates import make_certificates
from fedpg_lab.runs.folders import load_run
from support.containers import PATIENCE_S
from support.lab import digests, run_federation, small_federation

AGENTS = 4
SERVER = "10.77.0.100"
NETWORK = f"""
set -eu
mount -t tmpfs tmpfs /run
ip link add name switch0 type bridge
ip link set switch0 up
machine() {{ # NAME ADDRESS
    ip netns add "$1"
    ip link add name "to-$1" type veth peer name eth0 netns "$1"
    ip link set "to-$1" master switch0 up
    ip -n "$1" link set lo up
    ip -n "$1" address add "$2/24" dev eth0
    ip -n "$1" link set eth0 up
}}
on() {{ # NAME MODULE ARGUMENTS...
    name=$1 module=$2
    shift 2
    ip netns exec "$name" "$PYTHON" -c "from $module import main; main()" "$@"
}}
machine server {SERVER}
on server fedpg_server.cli --task CartPole-v1 --agents {AGENTS} --byzantine 1 --trajectories 60 --out run \\
    --listen {SERVER}:50051 --tls certs/server --no-tensorboard 2> server.log &
server=$!
agent() {{ # INDEX [ATTACK]
    machine "agent-$1" "10.77.0.$1"
    on "agent-$1" fedpg_client.cli --server {SERVER}:50051 --agent "$1" --attack "${{2:-}}" \\
        --tls "certs/agent-$1" 2> "agent-$1.log" &
    agents="${{agents:-}} $!"
}}
agent 1 random-noise
agent 2
agent 3
on agent-2 fedpg_client.cli --server {SERVER}:50051 --agent 4 --tls certs/agent-2 2> impostor.log && exit 1
echo "impostor $?"
agent 4
for process in $agents $server; do
    wait "$process"
    echo "ended $?"
done
"""


@pytest.fixture(autouse=True)
def _tools() -> None:
    for tool in ("unshare", "ip"):
        assert shutil.which(tool), f"separate machines are tried on Linux, with the command `{tool}`"


def test_separate_machines_train_what_one_machine_trains(tmp_path: Path) -> None:
    make_certificates(tmp_path / "certs", AGENTS, [SERVER], 1, datetime.datetime.now(datetime.UTC))
    namespaces = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child"]
    ended = subprocess.run(
        [*namespaces, "sh", "-c", NETWORK], cwd=tmp_path, env={**os.environ, "PYTHON": sys.executable},
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    logs = {path.stem: path.read_text(encoding="utf-8") for path in sorted(tmp_path.glob("*.log"))}
    assert ended.returncode == 0, (ended.stderr, logs)
    assert ended.stdout.split("\n")[:-1] == [f"impostor {ExitCode.REFUSED}", *["ended 0"] * (AGENTS + 1)]
    for index in range(1, AGENTS + 1):
        assert f"agent {index} joined from ipv4:10.77.0.{index}:" in logs["server"]
    assert "refused ipv4:10.77.0.2:" in logs["server"]
    local = run_federation(small_federation(agents=AGENTS), tmp_path / "local")
    assert digests(load_run(tmp_path / "run")) == digests(local)
