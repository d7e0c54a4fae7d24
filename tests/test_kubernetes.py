"""The Kubernetes manifests: valid by the schemas of Kubernetes itself, and the same services as everywhere else."""

from __future__ import annotations

import ipaddress
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from backend.local.services import commands, label_studio_environment
from backend.settings import Settings, secret_knobs

kubernetes_validate = pytest.importorskip("kubernetes_validate")

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy" / "kubernetes"
FILES = sorted(file for file in FOLDER.glob("*.yaml") if file.name != "kustomization.yaml")
# The oldest that is still cared for somewhere, and the newest.
RELEASES = ("1.30", "1.37")
KUBECTL = shutil.which("kubectl")

Json = dict[str, Any]


def documents() -> list[Json]:
    return [document for file in FILES for document in yaml.safe_load_all(file.read_text(encoding="utf-8"))]


def of_kind(*kinds: str) -> dict[str, Json]:
    return {document["metadata"]["name"]: document for document in documents() if document["kind"] in kinds}


def pods() -> dict[str, Json]:
    workloads = of_kind("Deployment", "StatefulSet", "Job")
    return {name: workload["spec"]["template"] for name, workload in workloads.items()}


def containers() -> Iterator[tuple[str, Json]]:
    for name, pod in pods().items():
        for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
            yield f"{name}/{container['name']}", container


def main_container(name: str) -> Json:
    (container,) = pods()[name]["spec"]["containers"]
    return dict(container)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_each_manifest_is_valid(file: Path, release: str) -> None:
    for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
        kubernetes_validate.validate(document, release, strict=True)


def test_the_check_finds_mistakes() -> None:
    broken = of_kind("Deployment")["backend"]
    broken["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, RELEASES[-1], strict=True)


def test_every_file_is_in_the_kustomization() -> None:
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    assert sorted(kustomization["resources"]) == [file.name for file in FILES]
    named = {image["name"] for image in kustomization["images"]}
    assert {container["image"] for _, container in containers()} == named
    assert all(image["newTag"][0].isdigit() for image in kustomization["images"])


@pytest.mark.skipif(KUBECTL is None, reason="kubectl isn't installed")
@pytest.mark.parametrize("folder", ["kubernetes", "kubernetes-gpu"])
def test_kustomize_builds_what_is_valid(folder: str) -> None:
    command = [str(KUBECTL), "kustomize", str(ROOT / "deploy" / folder)]
    built = list(yaml.safe_load_all(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert len(built) == len(documents())
    for document in built:
        kubernetes_validate.validate(document, RELEASES[-1], strict=True)
    asking = {
        document["metadata"]["name"]
        for document in built
        if document["kind"] == "Deployment" and "nvidia.com/gpu" in json.dumps(document)
    }
    assert asking == ({"backend", "worker", "trainer"} if folder == "kubernetes-gpu" else set())
    tags = {word for document in built for word in json.dumps(document).split('"') if word.startswith("ris-studio:")}
    assert len(tags) == 1
    assert tags.pop().endswith("-gpu") is (folder == "kubernetes-gpu")


def test_each_command_is_the_one_that_ris_up_runs() -> None:
    for name, command in commands("0.0.0.0", 8080).items():
        container = main_container(name)
        assert container["args"] == list(command)
        # The image's entry point stays.
        assert "command" not in container


def test_label_studio_gets_the_environment_of_ris_up_and_one_opening() -> None:
    environment = {entry["name"]: entry["value"] for entry in main_container("label-studio")["env"]}
    address = of_kind("Service")["backend"]["spec"]["clusterIP"]
    wanted = label_studio_environment("/data", f"{address}/32")
    assert {name: environment[name] for name in wanted} == wanted
    database = {entry["name"]: entry["value"] for entry in main_container("postgres")["env"]}
    assert environment["POSTGRE_NAME"] == database["POSTGRES_DB"]
    assert environment["POSTGRE_USER"] == database["POSTGRES_USER"]
    assert environment["POSTGRE_PASSWORD_FILE"] == database["POSTGRES_PASSWORD_FILE"]


def test_another_address_has_another_list() -> None:
    command = [sys.executable, "-m", "backend.local.services", "10.43.7.7"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    networks = [ipaddress.ip_network(part) for part in printed.strip().split(",")]
    assert not any(ipaddress.ip_address("10.43.7.7") in network for network in networks)
    for closed in ("10.43.7.6", "10.43.7.8", "10.96.77.10", "127.0.0.1", "169.254.169.254", "::1"):
        assert any(ipaddress.ip_address(closed) in network for network in networks), closed


def test_settings_are_those_of_the_containers_and_known() -> None:
    settings = of_kind("ConfigMap")["settings"]["data"]
    known = {f"RIS_{name}".upper() for name in Settings.model_fields}
    known |= {f"RIS_{name}_FILE".upper() for name in secret_knobs()}
    assert set(settings) <= known
    composed = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["x-settings"]
    shared = {name: value for name, value in composed.items() if "$" not in value}
    assert {name: settings[name] for name in shared} == shared
    for name in ("backend", "worker", "trainer", "valkey", "connect"):
        assert main_container(name)["envFrom"] == [{"configMapRef": {"name": "settings"}}]


def test_no_secret_is_in_a_manifest() -> None:
    assert not of_kind("Secret")
    for name, container in containers():
        for entry in container.get("env", ()):
            assert ("PASSWORD" not in entry["name"]) or entry["name"].endswith("_FILE"), name


def test_nothing_may_do_more_than_it_must() -> None:
    for pod in pods().values():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["fsGroup"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    for name, container in containers():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert container["resources"]["limits"]["memory"], name
        assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name


def test_what_is_mounted_is_there() -> None:
    claims = set(of_kind("PersistentVolumeClaim"))
    for name, pod in pods().items():
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        own = of_kind("StatefulSet").get(name, {}).get("spec", {}).get("volumeClaimTemplates", [])
        there = set(volumes) | {claim["metadata"]["name"] for claim in own}
        for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
            assert {mount["name"] for mount in container["volumeMounts"]} <= there
        used = {
            volume["persistentVolumeClaim"]["claimName"]
            for volume in volumes.values()
            if "persistentVolumeClaim" in volume
        }
        assert used <= claims
        assert volumes["secrets"]["secret"] == {"secretName": "secrets", "defaultMode": 0o400}


def test_what_runs_on_is_watched() -> None:
    for name in pods():
        container = main_container(name)
        probes = {"readinessProbe", "livenessProbe", "startupProbe"} & set(container)
        assert len(probes) == (0 if name == "connect" else 3), name


def test_queue_and_database_are_nobody_elses_business() -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in pods().items()}
    reach = {}
    for name, policy in of_kind("NetworkPolicy").items():
        assert policy["spec"]["podSelector"]["matchLabels"] == {"app": name}
        (rule,) = policy["spec"]["ingress"]
        assert rule["ports"] == [{"port": of_kind("Service")[name]["spec"]["ports"][0]["port"]}]
        wanted = [source["podSelector"]["matchLabels"] for source in rule["from"]]
        reach[name] = {pod for pod, own in labels.items() if any(own.items() >= label.items() for label in wanted)}
    assert reach == {
        "postgres": {"label-studio"},
        "valkey": {"backend", "worker", "trainer"},
        "backend": {"label-studio", "worker", "trainer", "connect"},
    }


def test_services_find_their_pods_and_none_is_public() -> None:
    for name, service in of_kind("Service").items():
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP"
        selector = service["spec"]["selector"].items()
        chosen = [pod for pod, template in pods().items() if template["metadata"]["labels"].items() >= selector]
        assert chosen == [name]
        port = service["spec"]["ports"][0]["port"]
        assert main_container(name)["ports"] == [{"containerPort": port}]
