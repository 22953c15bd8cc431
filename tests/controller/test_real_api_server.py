"""The controller on a real kube-apiserver, with no more rights than config/rbac gives it."""

import asyncio
import json
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.core import LEASE, NAMESPACE
from api.resource import Resource
from controller.assembly import Sources
from controller.runtime.testing import KubeApiServer, install_definitions
from hack import kube_apiserver
from tests.controller.controller_process import ControllerProcess

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
RUNTIMES = Path(__file__).parent / "golden" / "runtimes"
RBAC = {
    kind: Resource("rbac.authorization.k8s.io", "v1", kind, plural, namespaced=namespaced)
    for kind, plural, namespaced in (
        ("Role", "roles", True),
        ("RoleBinding", "rolebindings", True),
        ("ClusterRole", "clusterroles", False),
        ("ClusterRoleBinding", "clusterrolebindings", False),
    )
}
SERVICE_MONITORS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "servicemonitors.monitoring.coreos.com"},
    "spec": {
        "group": "monitoring.coreos.com",
        "scope": "Namespaced",
        "names": {"kind": "ServiceMonitor", "plural": "servicemonitors", "singular": "servicemonitor"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
            },
        ],
    },
}
HPA = {"serving.kserve.io/autoscalerClass": "hpa", "serving.kserve.io/max-scale": "3"}
CUSTOM = {
    "multiModel": True,
    "supportedModelFormats": [{"name": "custom", "autoSelect": True}],
    "containers": [{"name": "server", "image": "example/server:1"}],
    "grpcEndpoint": "unix:/tmp/mm/grpc.sock",
    "grpcDataEndpoint": "port:8001",
}
_EXPECTED_REFUSAL = "clusterservingruntimes.serving.kserve.io is forbidden"
"""Of a controller that serves one namespace, when it looks whether it could read the cluster's."""
AUDIT_LOG = "audit.log"
WRITES = ("apply", "create", "delete", "patch", "replace")


@pytest.fixture(scope="module")
def strict_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApiServer]:
    """A server that lets nobody name an owner whose finalizers he may not change, as OpenShift does."""
    folder = tmp_path_factory.mktemp("strict")
    policy = folder / "audit-policy.json"
    rules = {"omitStages": ["RequestReceived"], "rules": [{"level": "Metadata"}]}
    policy.write_text(json.dumps({"apiVersion": "audit.k8s.io/v1", "kind": "Policy"} | rules))
    flags = (
        "--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
        f"--audit-policy-file={policy}",
        f"--audit-log-path={folder / AUDIT_LOG}",
    )
    server = KubeApiServer(folder, kube_apiserver.binaries(), flags)

    async def start() -> None:
        await server.start()
        files = (ROOT / "config" / "crd").glob("*.yaml")
        definitions = [yaml.load(path.read_text(), Loader=yaml.CSafeLoader) for path in files]
        async with await server.client() as client:
            await install_definitions(client, [*definitions, SERVICE_MONITORS])

    try:
        asyncio.run(start())
        yield server
    finally:
        asyncio.run(server.stop())


async def _grant(client: Any, scope: str, namespace: str, user: str) -> None:
    """Gives a user the rights of the controller's service account."""
    for path in (ROOT / "config" / "rbac").glob("*/*.yaml"):
        for obj in yaml.safe_load_all(path.read_text()):
            if path.parent.name not in {"common", f"{scope}-scope"} or obj["kind"] not in RBAC:
                continue
            resource = RBAC[obj["kind"]]
            name = obj["metadata"]["name"]
            if resource.namespaced:
                obj["metadata"]["namespace"] = namespace
            else:
                obj["metadata"]["name"] = f"{name}-{namespace}"
            if "roleRef" in obj:
                obj["subjects"] = [{"kind": "User", "name": user, "apiGroup": resource.group}]
                if not resource.namespaced:
                    obj["roleRef"]["name"] += f"-{namespace}"
            await client.create(resource, obj)


@pytest.fixture(params=["namespace", "cluster"])
async def real(request: Any, strict_server: KubeApiServer, idle_world: Any) -> AsyncIterator[Any]:
    """A namespace with nothing in it, and a controller that may do what its role says."""
    scope, namespace = request.param, f"{request.param}-scope-{secrets.token_hex(3)}"
    user = f"controller-{namespace}"
    async with (
        await strict_server.client() as admin,
        await strict_server.client(strict_server.kubeconfig_for(user)) as client,
    ):
        world = type(idle_world)(admin, idle_world.mesh, idle_world.port, namespace)
        await world.create_namespace(namespace)
        await _grant(admin, scope, namespace, user)
        world.controllers_client = client
        world.controllers_kubeconfig = strict_server.kubeconfig_for(user)
        world.environment = replace(world.environment, namespace_scope=scope == "namespace")
        world.sources = Sources(cluster_runtimes=scope == "cluster", monitors=True)
        # The server refuses loopback addresses in Endpoints.
        await world.configure(
            modelMeshEndpoint=f"127.0.0.1:{world.port}",
            allowAnyPVC=True,
            scaleToZero={"gracePeriodSeconds": 0},
        )
        await world.put_secret("model-serving-etcd", {"etcd_connection": {"endpoints": "http://etcd:2379"}})
        await world.put_secret("storage-config", {"a": {"type": "pvc", "name": "claim.of-secret"}})
        yield world


def _exists(obj: Any) -> bool:
    return obj is not None


def _gone(obj: Any) -> bool:
    return obj is None


def _has_port(number: int) -> Any:
    return lambda obj: number in {port["port"] for port in obj["spec"]["ports"]}


def _replicas(count: int) -> Any:
    return lambda obj: obj is not None and obj["spec"]["replicas"] == count


class Counting:
    """A client that counts the writes that go through it, Events apart."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.writes: Counter[tuple[str, str]] = Counter()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name not in WRITES:
            return method

        async def counted(resource: Any, *args: Any, **options: Any) -> Any:
            if resource.kind != "Event":
                self.writes[name, resource.kind] += 1
            return await method(resource, *args, **options)

        return counted


async def _create_everything(world: Any) -> list[str]:
    """Makes a runtime of every kind and a model for each; returns the runtimes' names."""
    kind = "ServingRuntime" if world.environment.namespace_scope else "ClusterServingRuntime"
    names = []
    for path in sorted(RUNTIMES.glob("*.yaml")):
        raw = yaml.safe_load(path.read_text()) | {"kind": kind}
        raw["metadata"].setdefault("annotations", {}).update(HPA)
        await world.create(raw)
        names.append(raw["metadata"]["name"])
    await world.create({"kind": "ServingRuntime", "metadata": {"name": "custom"}, "spec": CUSTOM})
    await world.create_claim("claim-of-model")
    for model_format in ("sklearn", "onnx", "openvino_ir", "pytorch-mar", "custom"):
        name = model_format.replace("_", "-")
        await world.create_isvc(name, model_format, storage=None, storageUri="pvc://claim-of-model/m")
    spec = {"modelType": {"name": "sklearn"}, "storage": {"path": "p", "key": "k"}}
    await world.create({"kind": "Predictor", "metadata": {"name": "predictor"}, "spec": spec})
    return [*names, "custom"]


async def test_everything_is_accepted_once_and_removed_again(real: Any, controller_in: Any) -> None:
    world = real
    world.mesh.say_otherwise("LOADED")
    runtimes = await _create_everything(world)
    async with controller_in(world):
        for name in ("sklearn", "onnx", "openvino-ir", "pytorch-mar", "custom"):
            await world.ready(name)
        await world.until("Predictor", "predictor", lambda o: o["status"]["available"])
        for name in runtimes:
            deployment = await world.until("Deployment", f"modelmesh-serving-{name}", _mounts_claims)
            scaled = name != "custom"
            assert deployment["spec"]["replicas"] == (1 if scaled else 2)
            if scaled:
                await world.until("HorizontalPodAutoscaler", f"modelmesh-serving-{name}", _exists)
        await world.until("Service", "modelmesh-serving", _exists)
        monitor = await world.until("ServiceMonitor", "modelmesh-metrics-monitor", _exists)
        assert monitor["spec"]["endpoints"][0]["port"] == "prometheus"
        await world.until("ConfigMap", "tc-config", _exists)
        await world.settled()

    original = world.controllers_client
    for _ in range(2):
        # The first of the two may have to finish what news on their way told too late.
        world.controllers_client = counting = Counting(original)
        calls = len(world.mesh.calls)
        async with controller_in(world):
            await world.asked(lambda mesh, calls=calls: len(mesh.calls) >= calls + 6)
            await world.settled()
    assert counting.writes == {}

    world.controllers_client = original
    async with controller_in(world):
        await world.delete("InferenceService", "custom")
        await world.until("Deployment", "modelmesh-serving-custom", _replicas(0))
        await world.change("ServingRuntime", "custom", {"spec": {"disabled": True}})
        await world.until("Deployment", "modelmesh-serving-custom", _gone)
        await world.configure(
            modelMeshEndpoint=f"127.0.0.1:{world.port}", metrics={"enabled": False}, headlessService=False
        )
        await world.until("ServiceMonitor", "modelmesh-metrics-monitor", _gone)
        service = await world.until(
            "Service", "modelmesh-serving", lambda o: o and len(o["spec"]["ports"]) == 2
        )
        assert service["spec"]["clusterIP"] != "None"
    for kind in ("ClusterServingRuntime", "ServingRuntime"):
        for runtime in await world.all(kind):
            await world.delete(kind, runtime["metadata"]["name"])


def _mounts_claims(obj: Any) -> bool:
    if obj is None:
        return False
    volumes = obj["spec"]["template"]["spec"]["volumes"]
    claims = {v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v}
    return claims == {"claim.of-secret", "claim-of-model"}


Right = tuple[str, str, str]
"""API group, resource (with its subresource), verb."""
OF_OWNERS: frozenset[Right] = frozenset(
    {
        ("", "namespaces/finalizers", "update"),
        ("", "services/finalizers", "update"),
        ("apps", "deployments/finalizers", "update"),
        ("serving.kserve.io", "clusterservingruntimes/finalizers", "update"),
        ("serving.kserve.io", "servingruntimes/finalizers", "update"),
    }
)
"""Asked for by the admission of owner references, not by requests; `strict_server` enforces it."""
RARE: frozenset[Right] = frozenset({("", "events", "patch"), ("", "secrets", "get")})
"""To count an event that repeats; to read a Secret where Secrets may not be watched."""


def _granted(scope: str) -> set[Right]:
    found: set[Right] = set()
    for path in (ROOT / "config" / "rbac").glob("*/*.yaml"):
        if path.parent.name not in {"common", f"{scope}-scope"}:
            continue
        for obj in yaml.safe_load_all(path.read_text()):
            for rule in obj.get("rules") or ():
                found |= {
                    (group, resource, verb)
                    for group in rule["apiGroups"]
                    for resource in rule["resources"]
                    for verb in rule["verbs"]
                }
    return found


def _used(server: KubeApiServer, user: str) -> set[Right]:
    """What a user has asked for and got."""
    found: set[Right] = set()
    for line in (server.kubeconfig.parents[1] / AUDIT_LOG).read_text().splitlines():
        event = json.loads(line)
        place = event.get("objectRef")
        if event["user"]["username"] != user or not place or event["responseStatus"]["code"] == 403:
            continue
        resource = "/".join(filter(None, (place["resource"], place.get("subresource", ""))))
        found.add((place.get("apiGroup", ""), resource, event["verb"]))
    return found


async def test_the_process_uses_all_of_its_rights_and_needs_no_more(
    real: Any, strict_server: KubeApiServer, tmp_path: Path
) -> None:
    world = real
    world.mesh.say_otherwise("LOADED")
    cluster_scope = not world.environment.namespace_scope
    log = tmp_path / "controller.log"
    process = ControllerProcess(
        world.controllers_kubeconfig,
        world.namespace,
        log,
        "--enable-leader-election",
        NAMESPACE_SCOPE=str(world.environment.namespace_scope).lower(),
    )
    runtimes = await _create_everything(world)
    try:
        await process.work()
        for name in runtimes:
            await world.until("Deployment", f"modelmesh-serving-{name}", _mounts_claims)
        await world.ready("sklearn")
        await world.until("Predictor", "predictor", lambda o: o["status"]["available"])
        await world.until("ServiceMonitor", "modelmesh-metrics-monitor", _exists)
        await world.events("Loaded")
        await world.eventually(lambda: _renewed(world))
        if cluster_scope:
            await _serve_and_leave_a_user_namespace(world)
        await _change_everything(world)
        await _take_everything_back(world)
    finally:
        process.kill()
    assert "forbidden" not in log.read_text().replace(_EXPECTED_REFUSAL, "")

    granted = _granted("cluster" if cluster_scope else "namespace")
    used = _used(strict_server, f"controller-{world.namespace}")
    assert used - granted == set()
    assert sorted(granted - used - OF_OWNERS - RARE) == []


async def _renewed(world: Any) -> bool:
    lease = await world.client.get(LEASE, "modelmesh-controller-leader-lock", world.namespace)
    return bool(lease["spec"]["renewTime"] != lease["spec"]["acquireTime"])


async def _serve_and_leave_a_user_namespace(world: Any) -> None:
    user = f"user-of-{world.namespace}"
    await world.create_namespace(user)
    await world.enable(user)
    first = await world.until("Secret", "model-serving-etcd", _exists, user)
    await world.put_secret("model-serving-etcd", {"etcd_connection": {"endpoints": "http://other:2379"}})
    await world.until("Secret", "model-serving-etcd", lambda o: o["data"] != first["data"], user)
    await world.enable(user, None)
    await world.until("Secret", "model-serving-etcd", _gone, user)


async def _change_everything(world: Any) -> None:
    """Has each kind of object that the controller makes changed in place."""
    scaled = "ServingRuntime" if world.environment.namespace_scope else "ClusterServingRuntime"
    more = {"metadata": {"annotations": {"serving.kserve.io/max-scale": "5"}}}
    await world.change(scaled, "mlserver-1.x", more)
    await world.until(
        "HorizontalPodAutoscaler", "modelmesh-serving-mlserver-1.x", lambda o: o["spec"]["maxReplicas"] == 5
    )
    await world.configure(
        modelMeshEndpoint=f"127.0.0.1:{world.port}", metrics={"scheme": "https"}, restProxy={"port": 9000}
    )
    await world.until(
        "ServiceMonitor",
        "modelmesh-metrics-monitor",
        lambda o: o["spec"]["endpoints"][0]["scheme"] == "https",
    )
    await world.until(
        "Service", "modelmesh-serving", lambda o: 9000 in {p["port"] for p in o["spec"]["ports"]}
    )


async def _take_everything_back(world: Any) -> None:
    """Has each kind of object that the controller makes deleted."""
    await world.change("ServingRuntime", "custom", {"spec": {"disabled": True}})
    await world.until("Deployment", "modelmesh-serving-custom", _gone)
    scaled = "ServingRuntime" if world.environment.namespace_scope else "ClusterServingRuntime"
    none = {"metadata": {"annotations": {"serving.kserve.io/autoscalerClass": "none"}}}
    await world.change(scaled, "mlserver-1.x", none)
    await world.until("HorizontalPodAutoscaler", "modelmesh-serving-mlserver-1.x", _gone)
    await world.configure(
        modelMeshEndpoint=f"127.0.0.1:{world.port}", metrics={"enabled": False}, headlessService=False
    )
    await world.until("ServiceMonitor", "modelmesh-metrics-monitor", _gone)
    await world.until(
        "Service", "modelmesh-serving", lambda o: o is not None and o["spec"].get("clusterIP") != "None"
    )
    for kind in ("ClusterServingRuntime", "ServingRuntime"):
        for runtime in await world.all(kind):
            await world.delete(kind, runtime["metadata"]["name"])
    await world.until("ConfigMap", "tc-config", _gone)


@pytest.mark.parametrize("real", ["cluster"], indirect=True)
async def test_a_user_namespace_is_served_and_let_go(real: Any, controller_in: Any) -> None:
    world = real
    user = f"user-of-{world.namespace}"
    await world.create_namespace(user)
    await world.create_runtime("ClusterServingRuntime")
    async with controller_in(world):
        await world.enable(user)
        await world.until("Secret", "model-serving-etcd", _exists, user)
        await world.until("Deployment", "modelmesh-serving-mlserver-1.x", _exists, user)
        service = await world.until("Service", "modelmesh-serving", _exists, user)
        assert service["metadata"]["ownerReferences"][0]["kind"] == NAMESPACE.kind
        await world.enable(user, None)
        for kind, name in (
            ("Secret", "model-serving-etcd"),
            ("Deployment", "modelmesh-serving-mlserver-1.x"),
            ("Service", "modelmesh-serving"),
            ("ConfigMap", "tc-config"),
        ):
            await world.until(kind, name, _gone, user)
    await world.delete("ClusterServingRuntime", "mlserver-1.x")
