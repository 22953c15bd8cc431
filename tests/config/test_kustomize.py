"""What config/ builds is what a real API server takes, and what we say of it."""

import asyncio
import copy
import json
import os
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.core import NAMESPACE
from api.resource import Resource
from controller import config
from controller.runtime.errors import ApiError, Forbidden
from controller.runtime.testing import KubeApiServer, install_definitions
from hack import kube_apiserver
from tests.config.conftest import ROOT, objects

CONFIG = ROOT / "config"
ENTRIES = sorted(
    str(path.parent.relative_to(CONFIG))
    for path in CONFIG.rglob("Kustomization")
    if "kind: Kustomization" in path.read_text()
)
DEPENDENCIES = sorted((CONFIG / "dependencies").glob("*.yaml"))
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
FOREIGN = {
    "certificates.cert-manager.io": "Certificate",
    "issuers.cert-manager.io": "Issuer",
    "prometheusrules.monitoring.coreos.com": "PrometheusRule",
    "servicemonitors.monitoring.coreos.com": "ServiceMonitor",
}
"""Kinds of other projects, whose definitions are not ours to test: here they take anything."""
POD = Resource("", "v1", "Pod", "pods")


def _definition(name: str, kind: str) -> dict[str, Any]:
    plural, _, group = name.partition(".")
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": anything}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": name},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [version],
        },
    }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApiServer]:
    """A server with our definitions, those of others, and the namespaces that config/ names."""
    server = KubeApiServer(tmp_path_factory.mktemp("config"), kube_apiserver.binaries())

    async def start() -> None:
        await server.start()
        ours = [yaml.load(path.read_text(), Loader=yaml.CSafeLoader) for path in CONFIG.glob("crd/*.yaml")]
        async with await server.client() as client:
            await install_definitions(client, [*ours, *(_definition(*item) for item in FOREIGN.items())])
            for name, labels in (
                ("modelmesh-serving", {}),
                ("monitoring", {}),
                ("restricted", {"pod-security.kubernetes.io/enforce": "restricted"}),
            ):
                await client.create(NAMESPACE, {"metadata": {"name": name, "labels": labels}})

    try:
        asyncio.run(start())
        yield server
    finally:
        asyncio.run(server.stop())


def _dry_run(kubectl: str, cluster: KubeApiServer, manifests: str) -> subprocess.CompletedProcess[str]:
    kubeconfig = json.loads(cluster.kubeconfig.read_text())
    kubeconfig["contexts"][0]["context"]["namespace"] = "modelmesh-serving"
    inside = cluster.kubeconfig.with_name("modelmesh-serving.kubeconfig")
    inside.write_text(json.dumps(kubeconfig))
    return subprocess.run(
        [kubectl, "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"],
        input=manifests,
        env=os.environ | {"KUBECONFIG": str(inside)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.e2e
@pytest.mark.kube_server
@pytest.mark.parametrize("entry", ENTRIES)
def test_every_kustomization_is_accepted(
    entry: str, kubectl: str, cluster: KubeApiServer, built: Callable[[str], str]
) -> None:
    manifests = built(entry)
    done = _dry_run(kubectl, cluster, manifests)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("serverside-applied") == len(objects(manifests)) > 0


@pytest.mark.e2e
@pytest.mark.kube_server
@pytest.mark.parametrize("path", DEPENDENCIES, ids=lambda path: path.stem)
def test_the_dependencies_are_accepted(path: Path, kubectl: str, cluster: KubeApiServer) -> None:
    done = _dry_run(kubectl, cluster, path.read_text())
    assert done.returncode == 0, done.stderr
    assert not done.stderr


def _templates(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for obj in objects(text):
        if obj["kind"] in {"Deployment", "Job"}:
            yield obj["metadata"]["name"], obj["spec"]["template"]


@pytest.mark.e2e
@pytest.mark.kube_server
async def test_every_pod_of_ours_is_restricted(cluster: KubeApiServer, built: Callable[[str], str]) -> None:
    """Asks the API server's own pod security admission."""
    texts = [built("default"), built("namespace-scope"), built("cert-manager")]
    texts += [path.read_text() for path in DEPENDENCIES]
    pods = [pod for text in texts for pod in _templates(text)]
    assert {name for name, _ in pods} == {"modelmesh-controller", "etcd", "minio", "pvc-init"}
    async with await cluster.client() as client:
        for number, (_, template) in enumerate(pods):
            pod = {
                "metadata": {"name": f"pod-{number}", "namespace": "restricted"},
                "spec": template["spec"] | {"serviceAccountName": "default"},
            }
            await client.create(POD, pod)
        loose = copy.deepcopy(pod) | {"metadata": {"name": "loose", "namespace": "restricted"}}
        del loose["spec"]["containers"][0]["securityContext"]
        with pytest.raises((Forbidden, ApiError), match="restricted"):
            await client.create(POD, loose)


def _images(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        image = node.get("image")
        yield from [image] if isinstance(image, str) else []
        for value in node.values():
            yield from _images(value)
    elif isinstance(node, list):
        for value in node:
            yield from _images(value)


def test_images_are_pinned_and_ours_are_of_this_version(built: Callable[[str], str]) -> None:
    texts = [*map(built, ENTRIES), *(path.read_text() for path in DEPENDENCIES)]
    images = {image for text in texts for image in _images(objects(text))}
    assert all(re.fullmatch(r"[^:@]+:[\w.-]+", image) for image in images), images
    assert not [image for image in images if image.endswith(":latest")]
    ours = {image for image in images if image.startswith("modelmesh/")}
    assert ours == {f"modelmesh/{name}:{VERSION}" for name in ("controller", "adapter", "minio-examples")}


def test_the_shipped_defaults_are_the_controllers_own() -> None:
    """So an installation without the file, such as local mode, behaves the same."""
    text = (CONFIG / "manager" / "config-defaults.yaml").read_text()
    assert config.load((text, "config-defaults.yaml")) == config.load()
    assert yaml.safe_load(text)["modelMeshImage"]["tag"] == VERSION


def test_a_scope_has_the_rights_and_kinds_of_that_scope(built: Callable[[str], str]) -> None:
    def names(entry: str) -> set[str]:
        return {f"{obj['kind']}/{obj['metadata']['name']}" for obj in objects(built(entry))}

    cluster, own = names("default"), names("namespace-scope")
    assert cluster - own == {
        "ClusterRole/modelmesh-controller-role",
        "ClusterRoleBinding/modelmesh-controller-rolebinding",
        "CustomResourceDefinition/clusterservingruntimes.serving.kserve.io",
    }
    assert own - cluster == {
        "Role/modelmesh-controller-role",
        "RoleBinding/modelmesh-controller-rolebinding",
    }


@pytest.mark.parametrize(("entry", "scope"), [("default", "false"), ("namespace-scope", "true")])
def test_the_controller_knows_its_scope(built: Callable[[str], str], entry: str, scope: str) -> None:
    (template,) = (pod for name, pod in _templates(built(entry)) if name == "modelmesh-controller")
    variables = {v["name"]: v.get("value") for v in template["spec"]["containers"][0]["env"]}
    assert variables["NAMESPACE_SCOPE"] == scope


def test_runtimes_are_the_same_in_both_scopes(built: Callable[[str], str]) -> None:
    cluster, own = objects(built("runtimes")), objects(built("namespace-runtimes"))
    assert {obj["kind"] for obj in cluster} == {"ClusterServingRuntime"}
    assert [obj | {"kind": "ServingRuntime"} for obj in cluster] == own
    assert {obj["metadata"]["name"] for obj in own} == {p.stem for p in (ROOT / "runtimes").glob("*.yaml")}
    for obj in own:
        assert obj["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "modelmesh-controller"


def test_the_webhook_waits_for_its_certificate_and_calls_the_right_service(
    built: Callable[[str], str],
) -> None:
    found = {obj["kind"]: obj for obj in objects(built("cert-manager"))}
    volumes = found["Deployment"]["spec"]["template"]["spec"]["volumes"]
    (volume,) = (v for v in volumes if v["name"] == "webhook-certificate")
    assert volume["secret"] == {"secretName": found["Certificate"]["spec"]["secretName"]}
    service = found["ValidatingWebhookConfiguration"]["webhooks"][0]["clientConfig"]["service"]
    host = f"{service['name']}.{service['namespace']}.svc"
    assert host in found["Certificate"]["spec"]["dnsNames"]
    assert (service["name"], service["port"]) == (
        found["Service"]["metadata"]["name"],
        found["Service"]["spec"]["ports"][0]["port"],
    )


def test_example_credentials_are_the_documented_ones_and_marked() -> None:
    found = {
        obj["metadata"]["name"]: obj
        for path in DEPENDENCIES
        for obj in objects(path.read_text())
        if obj["kind"] == "Secret"
    }
    pair = found["minio-credentials"]["stringData"]
    entry = json.loads(found["storage-config"]["stringData"]["localMinIO"])
    assert (entry["access_key_id"], entry["secret_access_key"]) == (pair["access-key"], pair["secret-key"])
    assert pair["access-key"] == "AKIAIOSFODNN7EXAMPLE"
    assert found["minio-credentials"]["metadata"]["labels"]["modelmesh-credentials"] == "documented-example"


def test_an_overlay_may_set_another_namespace(kubectl: str, tmp_path: Path) -> None:
    overlay = {"namespace": "elsewhere", "resources": [os.path.relpath(CONFIG / "default", tmp_path)]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    done = subprocess.run([kubectl, "kustomize", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = objects(done.stdout)
    assert {s["namespace"] for obj in found for s in obj.get("subjects", ())} == {"elsewhere"}
    assert {obj["metadata"].get("namespace", "elsewhere") for obj in found} == {"elsewhere"}
