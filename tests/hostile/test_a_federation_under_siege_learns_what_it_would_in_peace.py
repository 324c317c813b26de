"""While outsiders and one of the members attack, the run ends, and its parameters are those of an undisturbed run.

The attacks go on for as long as the run lasts: `make test-hostile TRAJECTORIES=5000` makes that longer. Everything is
on loopback.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg.v1 import federation_pb2_grpc
from fedpg_common.transport.channels import TlsFiles, open_channel, tls_files
from fedpg_server.storage.store import STORE_NAME, Store
from support.hostile_callers import MEMBERS, OUTSIDERS, Attack, Siege, Target

TRAJECTORIES = int(os.environ.get("FEDPG_HOSTILE_TRAJECTORIES", "150"))
AGENTS, HOSTILE = 3, 3
START_S, END_S = 180.0, 120.0 + 20.0 * TRAJECTORIES
"""Time limits that only end a test which would otherwise hang."""
MEMORY_MAX_BYTES = 700 * 2**20
LOG_MAX_BYTES = 64 * 1024
BOUND = re.compile(r"run (\w+) at (127\.0\.0\.1:\d+)")


def files_of(folder: Path) -> TlsFiles:
    """A participant's files."""
    files = tls_files(folder)
    assert files is not None
    return files


def digests(run: Path) -> list[str]:
    """Of the parameters after each round."""
    with Store.read(run / STORE_NAME) as store:
        return [record.parameters_digest for record in store.records()]


def command(*arguments: object) -> list[str]:
    """A command of FedPG's, in this environment."""
    module, *rest = arguments
    return [sys.executable, "-m", str(module), *map(str, rest)]


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everybody's certificates."""
    folder = tmp_path_factory.mktemp("tls") / "certs"
    subprocess.run(command("fedpg_lab", "certs", "--agents", AGENTS, "--out", folder), check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def peace(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the run comes to if nobody attacks."""
    out = tmp_path_factory.mktemp("peace")
    train = command("fedpg_lab", "train", "--agents", AGENTS, "--trajectories", TRAJECTORIES, "--out", out)
    subprocess.run([*train, "--name", "run"], check=True, capture_output=True, timeout=END_S)
    return digests(out / "run")


@dataclass
class Server:
    """A server process."""

    process: subprocess.Popen[bytes]
    log: Path
    run_id: str
    address: str

    def peak_bytes(self) -> int:
        """The most memory that it has taken so far."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return 0  # it has just ended


@contextmanager
def serving(folder: Path, certs: Path, *options: object) -> Iterator[Server]:
    """A server with its log in `folder`, until it has ended by itself or is killed here."""
    log = folder / f"server-{len(list(folder.glob('server-*')))}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command("fedpg_server", "--tls", certs / "server", *options), stdout=file, stderr=file
        )
    try:
        ends_s = time.monotonic() + START_S
        while (found := BOUND.search(log.read_text())) is None:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < ends_s, "the server does not start"
            time.sleep(0.05)
        yield Server(process, log, found[1], found[2])
    finally:
        process.kill()
        process.wait()


@contextmanager
def agents(address: str, certs: Path, folder: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The agents, each with its own certificate, the hostile one's honest half among them."""
    with ExitStack() as stack:
        processes = []
        for index in range(1, AGENTS + 1):
            file = stack.enter_context((folder / f"agent-{index}.log").open("wb"))
            arguments = ("--server", address, "--agent", index, "--tls", certs / f"agent-{index}", "--patience", END_S)
            process = subprocess.Popen(command("fedpg_client", *arguments), stdout=file, stderr=file)
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        yield processes


def target_of(server: Server, certs: Path) -> Target:
    """What the attackers know of a server."""
    member = files_of(certs / f"agent-{HOSTILE}")
    return Target(server.address, certs / "agent-1" / "ca.pem", member, HOSTILE, server.run_id)


def run_options(out: Path) -> list[object]:
    """Of the run whose parameters are compared."""
    return ["--agents", AGENTS, "--trajectories", TRAJECTORIES, "--round-timeout", 1000, "--out", out]


def check(siege: Siege, server: Server, peak_bytes: int) -> None:
    """What held besides the parameters."""
    assert not siege.broken, siege.broken
    log = server.log.read_text()
    assert "Traceback" not in log, log
    assert "\x1b" not in log
    assert len(log) < LOG_MAX_BYTES + 200 * TRAJECTORIES, f"{len(log)} bytes of log"
    assert peak_bytes < MEMORY_MAX_BYTES, f"{peak_bytes / 1e6:.0f} MB"


def rounds_done(server: Server, certs: Path) -> int:
    """How far the run is, as the operator is told; 0 while nobody answers."""
    channel = open_channel(server.address, 2**20, files_of(certs / "operator"))
    try:
        status = federation_pb2_grpc.FederationStub(channel).GetStatus(pb.GetStatusRequest(), timeout=30.0)
    finally:
        channel.close()
    return int(status.latest.round)


@pytest.mark.parametrize("attacks", [OUTSIDERS, MEMBERS], ids=["outsiders", "a member"])
def test_attackers_change_nothing(tmp_path: Path, certs: Path, peace: list[str], attacks: Sequence[Attack]) -> None:
    run = tmp_path / "run"
    with (
        serving(tmp_path, certs, "--listen", "127.0.0.1:0", *run_options(run)) as server,
        Siege(target_of(server, certs), attacks) as siege,
        agents(server.address, certs, tmp_path) as processes,
    ):
        peak_bytes = 0
        ends_s = time.monotonic() + END_S
        while server.process.poll() is None:
            assert time.monotonic() < ends_s, server.log.read_text()
            peak_bytes = max(peak_bytes, server.peak_bytes())
            time.sleep(0.1)
        assert server.process.returncode == 0, server.log.read_text()
        assert [process.wait(timeout=END_S) for process in processes] == [0] * AGENTS
    check(siege, server, peak_bytes)
    assert digests(run) == peace


def test_a_server_killed_and_resumed_under_all_attacks_goes_on(tmp_path: Path, certs: Path, peace: list[str]) -> None:
    run = tmp_path / "run"
    with ExitStack() as stack:
        first = stack.enter_context(serving(tmp_path, certs, "--listen", "127.0.0.1:0", *run_options(run)))
        target = target_of(first, certs)
        sieges = [stack.enter_context(Siege(target, attacks)) for attacks in (OUTSIDERS, MEMBERS)]
        processes = stack.enter_context(agents(first.address, certs, tmp_path))
        while rounds_done(first, certs) < 1:
            time.sleep(0.1)
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait()
        with serving(tmp_path, certs, "--listen", first.address, "--resume", "--out", run) as second:
            assert second.process.wait(timeout=END_S) == 0, second.log.read_text()
            assert [process.wait(timeout=END_S) for process in processes] == [0] * AGENTS
    for siege in sieges:
        check(siege, second, 0)
    assert digests(run) == peace
