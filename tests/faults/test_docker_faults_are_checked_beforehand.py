"""What a Docker engine, its kernel or a Compose file cannot do is said in one sentence, before anything is started."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from docker.errors import ImageNotFound
from fedpg_common.descriptions import describe
from fedpg_common.errors import ExitCode, UsageError
from fedpg_lab.faults.backend import FaultKind, UnsupportedFaultError
from fedpg_lab.faults.docker import backend as docker_backend
from fedpg_lab.faults.docker import engine as docker_engine
from fedpg_lab.faults.docker.backend import DockerBackend
from fedpg_lab.faults.docker.engine import EngineError
from fedpg_lab.faults.docker.images import check_participants
from fedpg_lab.faults.docker.network_needs import FLAVOURS, probe_script, read_probe, refusal
from fedpg_lab.faults.docker.probe import check_kinds
from support.lab import Command

NFT, LEGACY = FLAVOURS
DETOUR = "ifb, sch_ingress, cls_u32 and act_mirred"
QUEUES = ["sch_netem", "sch_tbf", DETOUR]
TABLES = ["iptables", "xt_statistic", "ipt_REJECT"]
EVERYTHING = [*QUEUES, *(f"{flavour} {name}" for flavour in FLAVOURS for name in TABLES)]


def kernel_without(*missing: str) -> str:
    return "\n".join(line for line in EVERYTHING if not any(line.endswith(name) for name in missing))


class FakeHelper:
    def __init__(self, output: str) -> None:
        self.output = output
        self.done: list[str] = []

    def start(self) -> None:
        self.done.append("start")

    def wait(self) -> None:
        self.done.append("wait")

    def logs(self, stderr: bool) -> bytes:
        assert not stderr
        return self.output.encode()

    def remove(self, force: bool) -> None:
        assert force
        self.done.append("remove")


class FakeEngine:
    """An engine that has some images, over a kernel for which the probe prints this."""

    def __init__(self, output: str, images: Iterable[str] = (), can_limit_cpu: bool = True) -> None:
        self.helper = FakeHelper(output)
        self.created: dict[str, Any] = {}
        self._images = set(images)
        self._can_limit_cpu = can_limit_cpu
        self.api = self.containers = self.images = self

    def info(self) -> dict[str, bool]:
        return {"CpuCfsPeriod": self._can_limit_cpu, "CpuCfsQuota": self._can_limit_cpu}

    def create(self, image: str, command: list[str], **options: Any) -> FakeHelper:
        self.created = {"image": image, "command": command, **options}
        return self.helper

    def get(self, name: str) -> str:
        if name not in self._images:
            raise ImageNotFound(f"no such image: {name}")
        return name


def test_a_kernel_with_everything_makes_every_fault() -> None:
    assert refusal(frozenset(FaultKind), read_probe("\n".join(EVERYTHING))) is None


@pytest.mark.parametrize(
    ("missing", "kinds"),
    [
        ("sch_netem", {FaultKind.LATENCY, FaultKind.CORRUPTION}),
        ("sch_tbf", {FaultKind.BANDWIDTH}),
        (DETOUR, {FaultKind.LATENCY, FaultKind.BANDWIDTH, FaultKind.CORRUPTION}),
        ("xt_statistic", {FaultKind.LOSS}),
        ("ipt_REJECT", {FaultKind.RESET}),
        ("iptables", {FaultKind.PARTITION, FaultKind.BLACK_HOLE, FaultKind.LOSS, FaultKind.RESET}),
    ],
)
def test_what_is_missing_is_named_with_the_kinds_that_need_it(missing: str, kinds: set[FaultKind]) -> None:
    kernel = read_probe(kernel_without(missing))
    sentence = refusal(frozenset(FaultKind), kernel)
    assert sentence is not None
    assert f"has no {missing}, without which there is no" in sentence
    for kind in FaultKind:
        assert (refusal({kind}, kernel) is None) == (kind not in kinds)
        assert (f"no {kind.value}" in sentence) == (kind in kinds)
    assert "--backend local" in sentence


def test_faults_of_the_program_need_nothing_of_the_kernel() -> None:
    kinds = {FaultKind.KILL, FaultKind.STOP, FaultKind.RESTART, FaultKind.PAUSE, FaultKind.SLOW_CPU}
    assert refusal(kinds, read_probe("")) is None


def test_the_iptables_that_can_do_more_is_taken() -> None:
    assert read_probe("\n".join(EVERYTHING)).restore == NFT
    legacy_alone = [line for line in EVERYTHING if not line.startswith(NFT)]
    assert read_probe("\n".join(legacy_alone)).restore == LEGACY
    assert refusal({FaultKind.LOSS, FaultKind.RESET}, read_probe("\n".join(legacy_alone))) is None
    without_loss = [line for line in EVERYTHING if line != f"{NFT} xt_statistic"]
    assert read_probe("\n".join(without_loss)).restore == LEGACY


def test_the_kernel_is_asked_in_a_namespace_of_its_own_with_no_more_rights_than_that_takes() -> None:
    engine = FakeEngine("\n".join(EVERYTHING))
    check_kinds(engine, frozenset(FaultKind))
    assert engine.helper.done == ["start", "wait", "remove"]
    assert engine.created["command"] == ["sh", "-c", probe_script()]
    assert engine.created["network_mode"] == "none"
    assert engine.created["cap_drop"] == ["ALL"]
    assert engine.created["cap_add"] == ["NET_ADMIN", "NET_RAW"]
    assert not engine.created.get("privileged")


def test_an_engine_that_cannot_limit_processors_is_refused_where_that_is_wanted() -> None:
    engine = FakeEngine("\n".join(EVERYTHING), can_limit_cpu=False)
    check_kinds(engine, frozenset({FaultKind.KILL}))
    with pytest.raises(UnsupportedFaultError, match="no slow-cpu"):
        check_kinds(engine, frozenset({FaultKind.SLOW_CPU}))


def test_without_a_dockerfile_the_images_must_be_there() -> None:
    check_participants(FakeEngine("", images=["fedpg-server", "fedpg-agent"]), root=None)
    with pytest.raises(UnsupportedFaultError, match="no image fedpg-agent, and this installation has no Dockerfile"):
        check_participants(FakeEngine("", images=["fedpg-server"]), root=None)


def test_a_machine_without_docker_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UnsupportedFaultError, match=r"a Docker engine with Compose is needed: .*No such file"):
        docker_engine.connect()


def test_a_docker_command_that_fails_says_why_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docker").write_text("#!/bin/sh\necho building >&2\necho 'the disk is full' >&2\nexit 17\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(EngineError, match=r"^`docker compose` failed with code 17: the disk is full$"):
        docker_engine.run_docker(["compose", "up"])


def test_the_command_ends_with_one_sentence_and_starts_nothing(
    fedpg: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FakeEngine(kernel_without("sch_netem"), images=["fedpg-server", "fedpg-agent"])
    monkeypatch.setattr(docker_backend, "connect", lambda: engine)
    monkeypatch.setattr(docker_backend, "build_helper", lambda client: None)
    monkeypatch.setattr(DockerBackend, "start", lambda self: pytest.fail("it is started"))
    code, output, errors = fedpg("faults", "lossy-link", "--backend", "docker", "--out", tmp_path / "runs")
    assert code == ExitCode.USAGE
    assert output == ""
    (sentence,) = errors.splitlines()
    assert sentence.startswith(
        "fedpg: scenario lossy-link, backend docker: the Docker engine's kernel has no sch_netem"
    )
    assert not (tmp_path / "runs").exists()


def test_what_no_compose_file_holds_is_refused_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    federation = describe("CartPole-v1")
    odd = replace(federation, task=replace(federation.task, name="a: b"))
    monkeypatch.setattr(docker_backend, "connect", lambda: FakeEngine(""))
    with pytest.raises(UsageError, match="cannot hold the task name 'a: b'"):
        DockerBackend(odd, tmp_path, seed=0).check(frozenset())
