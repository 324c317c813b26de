"""A federation in containers goes through every kind of fault that the kernel can make, each healed in the end: its
parameters are those of the undisturbed run, bit for bit, round by round, and nothing of it is left behind.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fedpg_common.descriptions import describe
from fedpg_common.errors import ExitCode
from fedpg_lab.faults.backend import SERVER, Fault, FaultKind, UnsupportedFaultError
from fedpg_lab.faults.docker.backend import DockerBackend
from fedpg_lab.faults.docker.engine import connect
from fedpg_lab.faults.docker.images import build_helper
from fedpg_lab.faults.docker.probe import probe
from fedpg_lab.runs.folders import RunData, load_run
from support.containers import docker, things_of
from support.fault_watch import STALLING, Watch
from support.lab import Command, digests

TRAJECTORIES = "2000"
NO_DEADLINE_S = "1e5"
"""Every round waits for everybody."""
FEDERATION = describe("CartPole-v1", agents=3, trajectories=int(TRAJECTORIES), round_timeout_s=float(NO_DEADLINE_S))
NETEM = frozenset({FaultKind.LATENCY, FaultKind.CORRUPTION})
NARROW = Fault(FaultKind.BANDWIDTH, (3,), bytes_per_s=20e3)
"""On from the start: however fast the machine, a round takes its time, and the run does not end before the faults."""
SLOWING = [
    Fault(FaultKind.LOSS, (SERVER,), fraction=0.02),
    Fault(FaultKind.SLOW_CPU, (1, SERVER), fraction=0.5),
    Fault(FaultKind.LATENCY, (1, 2), delay_s=0.03, jitter_s=0.02),
    Fault(FaultKind.CORRUPTION, (2,), fraction=0.05),
]
"""Faults with which rounds go on."""
OF_THE_SERVER = [Fault(FaultKind.KILL, (SERVER,)), Fault(FaultKind.STOP, (SERVER,)), Fault(FaultKind.PAUSE, (SERVER,))]
KINDS = frozenset(fault.kind for fault in (NARROW, *STALLING, *SLOWING, *OF_THE_SERVER)) | {FaultKind.RESTART}


@dataclass
class Story:
    """What was seen of it."""

    project: str = ""
    run: RunData | None = None
    logs: list[str] = field(default_factory=list)
    things: list[str] = field(default_factory=list)
    """Containers, networks and volumes in mid-run."""
    left: list[str] = field(default_factory=list)
    """The same when it was closed."""
    quotas: dict[str, int] = field(default_factory=dict)
    """Processor limits in microseconds of 100,000, while SLOW_CPU was active and after it."""
    queues: dict[FaultKind, str] = field(default_factory=dict)
    """The queues in the network of a target, while each fault that slows it down was active."""


@pytest.fixture(scope="module")
def has_netem() -> bool:
    client = connect()
    build_helper(client)  # on an engine that has run no faults yet, it is not there
    return "sch_netem" in probe(client).modules


@pytest.fixture(scope="module")
def story(has_netem: bool, tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("faults") / "run"
    backend = DockerBackend(FEDERATION, folder, seed=0)
    seen = Story()
    try:
        backend.check(KINDS if has_netem else KINDS - NETEM)
        backend.start()
        seen.project = backend._made.name
        seen.things = things_of(seen.project)
        watch = Watch(backend)
        go_through(watch, seen, has_netem)
        watch.to_the_end()
        backend.finish(folder)
    finally:
        backend.close()
    backend.close()
    seen.left = things_of(seen.project)
    seen.run = load_run(folder)
    seen.logs = sorted(path.name for path in (folder / "logs").iterdir())
    return seen


def go_through(watch: Watch[DockerBackend], seen: Story, has_netem: bool) -> None:
    """All faults, one after the other and some together."""
    watch.backend.apply(NARROW)
    seen.queues[FaultKind.BANDWIDTH] = queues_of(seen.project, NARROW.targets[0])
    watch.rounds(1)
    for fault in STALLING:
        watch.backend.apply(fault)
        watch.stands_still_for(fault.targets)
        watch.backend.heal(fault)
        watch.rounds(1)
    for fault in SLOWING if has_netem else [fault for fault in SLOWING if fault.kind not in NETEM]:
        watch.backend.apply(fault)
        seen.queues[fault.kind] = queues_of(seen.project, fault.targets[0])
        if fault.kind is FaultKind.SLOW_CPU:
            seen.quotas["slow"] = quota_of(seen.project, "server")
        watch.rounds(2)
        watch.backend.heal(fault)
    seen.quotas["healed"] = quota_of(seen.project, "server")
    for fault in OF_THE_SERVER:
        watch.backend.apply(fault)
        assert watch.backend.supervise(), "a fault is not the end"
        watch.is_silent()
        watch.backend.heal(fault)
        watch.rounds(1)
    together(watch)
    watch.backend.apply(Fault(FaultKind.RESTART, (SERVER, 2)))
    watch.rounds(1)
    watch.backend.heal(NARROW)


def together(watch: Watch[DockerBackend]) -> None:
    """Who is started again still suffers what is not healed: the rules and the pause outlast the restart."""
    kill, pause, cut_off = (Fault(kind, (2,)) for kind in (FaultKind.KILL, FaultKind.PAUSE, FaultKind.PARTITION))
    for fault in (cut_off, pause, kill):
        watch.backend.apply(fault)
    for fault in (kill, pause, cut_off):
        watch.stands_still_for((2,))
        watch.backend.heal(fault)
    watch.rounds(1)


def container_of(project: str, service: str) -> str:
    labels = (f"label=com.docker.compose.project={project}", f"label=com.docker.compose.service={service}")
    return docker("ps", "--all", "--quiet", *(word for label in labels for word in ("--filter", label))).strip()


def queues_of(project: str, participant: int) -> str:
    name = "server" if participant == SERVER else f"agent-{participant}"
    return docker("exec", container_of(project, f"net-{name}"), "tc", "qdisc", "show")


def quota_of(project: str, service: str) -> int:
    (found,) = json.loads(docker("inspect", container_of(project, service)))
    return int(found["HostConfig"]["CpuQuota"])


@pytest.fixture(scope="module")
def undisturbed(story: Story, tmp_path_factory: pytest.TempPathFactory) -> RunData:
    """The same description without faults, as processes of one container, with the same libraries."""
    name = f"fedpg-test-undisturbed-{os.getpid()}"
    options = ["--agents", "3", "--trajectories", TRAJECTORIES, "--round-timeout", NO_DEADLINE_S, "--no-tensorboard"]
    folder = tmp_path_factory.mktemp("undisturbed")
    try:
        train = ("train", *options, "--out", "/runs", "--name", "run")
        docker("run", "--name", name, "--entrypoint", "fedpg", "fedpg-server", *train)
        docker("cp", f"{name}:/runs/run", str(folder))
    finally:
        docker("rm", "--force", "--volumes", name)
    return load_run(folder / "run")


def test_parameters_are_those_of_the_undisturbed_run_round_by_round(story: Story, undisturbed: RunData) -> None:
    assert story.run is not None
    assert story.run.federation == FEDERATION
    assert story.run.is_complete
    assert not any(record.absent for record in story.run.records)
    assert digests(story.run) == digests(undisturbed)


def test_the_run_folder_is_as_a_local_backend_leaves_it(story: Story) -> None:
    assert story.logs == ["agent-1.log", "agent-2.log", "agent-3.log", "server.log"]
    assert story.run is not None
    assert (story.run.folder / "run.sqlite").is_file()
    assert list((story.run.folder / "checkpoints").iterdir())


def test_nothing_is_left_behind(story: Story) -> None:
    participants = FEDERATION.agents + 1
    assert len(story.things) > 2 * participants
    assert story.left == []


def test_a_slow_processor_is_a_limit_of_the_engine_and_lifted(story: Story) -> None:
    assert story.quotas == {"slow": 50_000, "healed": -1}


def test_a_narrow_link_has_a_queue_each_way(story: Story) -> None:
    narrow = story.queues[FaultKind.BANDWIDTH]
    assert "qdisc tbf 1: dev eth0" in narrow
    assert "qdisc tbf 1: dev ifb0" in narrow
    assert "tbf" not in story.queues[FaultKind.LOSS]


def test_delay_and_damage_are_made_or_refused_in_one_sentence(story: Story, has_netem: bool, tmp_path: Path) -> None:
    if has_netem:
        for kind in NETEM:
            assert "qdisc netem 1: dev eth0" in story.queues[kind]
            assert "qdisc netem 1: dev ifb0" in story.queues[kind]
        return
    backend = DockerBackend(FEDERATION, tmp_path / "run", seed=0)
    with pytest.raises(
        UnsupportedFaultError, match="kernel has no sch_netem, without which there is no latency"
    ) as why:
        backend.check(KINDS)
    assert "\n" not in str(why.value)
    assert things_of(backend._made.name) == []


SCENARIO = f"""
[federation]
task = "CartPole-v1"
agents = 3
trajectories = 300
round_timeout_s = {NO_DEADLINE_S}
[[fault]]
kind = "partition"
split = "server-alone"
at_round = 3
for_s = 1.0
[[fault]]
kind = "kill"
on = "1 agent"
at_round = 5
for_s = 0.5
"""


def test_the_command_reports_on_a_scenario_in_containers(fedpg: Command, tmp_path: Path) -> None:
    (tmp_path / "both.toml").write_text(SCENARIO)
    options = ["--backend", "docker", "--out", tmp_path / "runs"]
    code, output, errors = fedpg("faults", tmp_path / "both.toml", *options)
    assert code == ExitCode.OK, (output, errors)
    assert "violated" not in output
    assert re.search(r"those of a run without faults +holds +(\d+) of \1 rounds, bit for bit", output)
    assert (tmp_path / "runs" / "both" / "faults.html").is_file()
    listings = docker("ps", "--all") + docker("network", "ls") + docker("volume", "ls")
    assert f"fedpg-faults-{os.getpid()}-" not in listings
    assert "fedpg-faults-reference-" not in listings
