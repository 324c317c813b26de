"""deploy/kubernetes.yaml: what Kubernetes' own schemas accept, and a federation in itself."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from fedpg_common.derived_seeds import attackers_secret
from fedpg_common.descriptions import describe
from fedpg_common.errors import ExitCode
from fedpg_lab.deploy.compose_settings import RING_PORT

MANIFEST = Path(__file__).parents[2] / "deploy" / "kubernetes.yaml"
VERSIONS = ("1.31", "1.34", "1.37")
"""StatefulSets have had a first ordinal other than 0 for good since 1.31."""


def resources() -> dict[tuple[str, str], dict[str, Any]]:
    documents = list(yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8")))
    found = {(document["kind"], document["metadata"]["name"]): document for document in documents}
    assert len(found) == len(documents)
    return found


def pod_specs() -> dict[str, dict[str, Any]]:
    workloads = {name: resource for (kind, name), resource in resources().items() if kind in ("Job", "StatefulSet")}
    return {name: resource["spec"]["template"]["spec"] for name, resource in workloads.items()}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_resource_fits_its_schema(version: str) -> None:
    for resource in resources().values():
        assert kubernetes_validate.validate(resource, version, strict=True) == version


def test_the_schemas_refuse_what_is_misspelt() -> None:
    job = resources()["Job", "server"]
    job["spec"]["backofLimit"] = 3
    with pytest.raises(kubernetes_validate.ValidationError, match="backofLimit"):
        kubernetes_validate.validate(job, VERSIONS[0], strict=True)


def test_the_ordinals_are_the_agents_of_one_federation() -> None:
    settings = resources()["ConfigMap", "federation"]["data"]
    sets = {name: resource["spec"] for (kind, name), resource in resources().items() if kind == "StatefulSet"}
    indices = {
        name: list(range(spec["ordinals"]["start"], spec["ordinals"]["start"] + spec["replicas"]))
        for name, spec in sets.items()
    }
    federation = describe(
        settings["FEDPG_TASK"],
        agents=int(settings["FEDPG_AGENTS"]),
        byzantine=int(settings["FEDPG_BYZANTINE"]),
        attack=settings["FEDPG_ATTACK"],
        algorithm=settings["FEDPG_ALGORITHM"],
        seed=int(settings["FEDPG_SEED"]),
    )
    assert sorted(chain(*indices.values())) == list(range(1, federation.agents + 1))
    assert indices["byzantine"] == list(federation.byzantine)
    for spec in pod_specs().values():
        for container in spec["containers"] + spec.get("initContainers", []):
            variables = {variable["name"]: variable for variable in container.get("env", [])}
            if container["name"] != "server":
                source = variables["FEDPG_AGENT"]["valueFrom"]["fieldRef"]["fieldPath"]
                assert source == "metadata.labels['apps.kubernetes.io/pod-index']"


def test_the_attackers_meet_at_the_first_of_them() -> None:
    (agent,) = pod_specs()["byzantine"]["containers"]
    variables = {variable["name"]: variable.get("value") for variable in agent["env"]}
    assert variables["FEDPG_RING"] == f"byzantine-1.byzantine:{RING_PORT}"
    assert variables["FEDPG_RING_LISTEN"] == f"0.0.0.0:{RING_PORT}"
    assert variables["FEDPG_ATTACKERS"] == "1,2,3"
    (port,) = resources()["Service", "byzantine"]["spec"]["ports"]
    assert port["port"] == RING_PORT


def test_services_lead_to_the_pods_they_name() -> None:
    for (kind, name), service in resources().items():
        if kind == "Service":
            workload = resources().get(("Job", name)) or resources()["StatefulSet", name]
            assert service["spec"]["selector"].items() <= workload["spec"]["template"]["metadata"]["labels"].items()


def test_every_container_is_hardened() -> None:
    for spec in pod_specs().values():
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        for container in spec["containers"] + spec.get("initContainers", []):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_an_agents_container_sees_its_own_key_alone() -> None:
    for name, spec in pod_specs().items():
        secrets = {volume["name"] for volume in spec["volumes"] if "secret" in volume}
        for container in spec["containers"]:
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted & secrets == ({"certs"} if name == "server" else set())


def test_a_mistake_is_not_repeated() -> None:
    rules = resources()["Job", "server"]["spec"]["podFailurePolicy"]["rules"]
    (codes,) = [rule["onExitCodes"]["values"] for rule in rules if rule["action"] == "FailJob"]
    assert codes == [ExitCode.USAGE, ExitCode.ADDRESS, ExitCode.STORAGE]


def test_the_attackers_share_the_secret_that_the_launchers_derive() -> None:
    settings = resources()["ConfigMap", "federation"]["data"]
    holders = {
        name: [variable for variable in container["env"] if variable["name"] == "FEDPG_ATTACKERS_SECRET"]
        for name, spec in pod_specs().items()
        for container in spec["containers"]
    }
    attackers = range(1, int(settings["FEDPG_BYZANTINE"]) + 1)
    secret = attackers_secret(int(settings["FEDPG_SEED"]), attackers)
    assert [found[0]["value"] for found in holders.values() if found] == [secret]


def test_memory_is_limited() -> None:
    for spec in pod_specs().values():
        for container in spec["containers"]:
            assert container["resources"]["limits"]["memory"]


def test_every_pod_is_called_and_calls_only_where_the_protocol_needs_it() -> None:
    policies = {name: entry["spec"] for (kind, name), entry in resources().items() if kind == "NetworkPolicy"}
    names = {spec["podSelector"].get("matchLabels", {}).get("app.kubernetes.io/name") for spec in policies.values()}
    (everyone,) = policies["agents"]["podSelector"]["matchExpressions"]
    labels = {f"fedpg-{name}" for name in pod_specs()}
    assert names - {None} | set(everyone["values"]) == labels
    assert all(spec["policyTypes"] == ["Ingress", "Egress"] for spec in policies.values())
    (way_in,) = policies["server"]["ingress"]
    assert [port["port"] for port in way_in["ports"]] == [50051]
    assert "egress" not in policies["server"]
    assert "ingress" not in policies["agents"]
    for way in policies["ring"]["ingress"] + policies["ring"]["egress"]:
        assert [port["port"] for port in way["ports"]] == [RING_PORT]
