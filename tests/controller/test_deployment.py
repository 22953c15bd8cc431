"""Deployments compared with golden files; `MODELMESH_UPDATE_GOLDEN=1 pytest …` writes them anew."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.v1alpha1 import ClusterServingRuntime, ServingRuntime
from controller import config
from controller.deployment import PodContext, Tls, build
from controller.deployment.storage import image_tag
from controller.errors import InvalidRuntimeError

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parents[2]
TAGS = "modelMeshImage: {tag: of-this-version}\nstorageHelperImage: {tag: of-this-version}"
"""So that a release changes no golden file."""


def _context(spec: dict[str, Any], settings: str = "", **changes: Any) -> PodContext:
    raw = {"metadata": {"name": "r", "uid": "u"}, "spec": {"multiModel": True} | spec}
    runtime = ServingRuntime.parse(raw)
    fixed: dict[str, Any] = {
        "runtime": runtime,
        "namespace": "ns",
        "configuration": config.load((TAGS, "tags"), (settings, "settings")),
        "controller": "modelmesh-serving",
        "etcd_secret": "model-serving-etcd",
        "storage_secret": "storage-config",
        "replicas": 2,
    }
    return PodContext(**(fixed | changes))


def _mlserver(settings: str = "", **changes: Any) -> PodContext:
    raw = yaml.safe_load((ROOT / "runtimes" / "mlserver-1.x.yaml").read_text())
    raw["metadata"] |= {"uid": "00000000-0000-0000-0000-000000000001", "namespace": "modelmesh-serving"}
    return _context(
        {"containers": []},
        settings,
        runtime=ServingRuntime.parse(raw),
        namespace="modelmesh-serving",
        **changes,
    )


def _shipped(name: str, settings: str = "", **changes: Any) -> PodContext:
    raw = yaml.safe_load((GOLDEN / "runtimes" / f"{name}.yaml").read_text())
    raw["metadata"] |= {"uid": "00000000-0000-0000-0000-000000000001"}
    return _context(
        {"containers": []},
        settings,
        runtime=ClusterServingRuntime.parse(raw),
        namespace="modelmesh-serving",
        **changes,
    )


CUSTOM = {
    "containers": [
        {
            "name": "custom",
            "image": "example/custom:1",
            "resources": {"limits": {"memory": "1Gi"}},
            "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
        },
    ],
    "volumes": [{"name": "scratch", "emptyDir": {}}],
    "grpcEndpoint": "unix:///tmp/mm/grpc.sock",
    "grpcDataEndpoint": "port:8001",
    "supportedModelFormats": [{"name": "custom", "version": "1", "autoSelect": True}],
    "labels": {"team": "a"},
    "imagePullSecrets": [{"name": "two"}, {"name": "one"}],
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
}
SOCKETS = {
    "grpcEndpoint": "unix:///tmp/mm/grpc.sock",
    "grpcDataEndpoint": "unix:/tmp/mm/data.sock",
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]},
                    {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]},
                ],
            },
        },
    },
}
BARE = "metrics: {enabled: false}\nrestProxy: {enabled: false}\ngrpcMaxMessageSizeBytes: 0"
CUSTOM_SETTINGS = """
imagePullSecrets: [{name: one}]
runtimePodLabels: {team: b, tier: x}
serviceAccountName: account
enableAccessLogging: true
payloadProcessors: ["http://one", "http://two"]
internalModelMeshEnvVars:
  - {name: BOOTSTRAP_CLEARANCE_PERIOD_MS, value: "0"}
  - {name: KV_STORE, value: elsewhere}
  - {name: SHUTDOWN_TIMEOUT_MS, value: "1"}
restProxy: {enabled: false}
metrics: {enabled: false}
tls: {clientAuth: require}
"""


@pytest.mark.parametrize(
    ("name", "context"),
    [
        ("mlserver-1.x", _shipped("mlserver-1.x")),
        ("ovms-1.x", _shipped("ovms-1.x")),
        ("torchserve-0.x", _shipped("torchserve-0.x")),
        ("triton-2.x", _shipped("triton-2.x")),
        ("mlserver-1.x-bare", _shipped("mlserver-1.x", BARE, replicas=0)),
        ("mlserver-1.x-claims", _shipped("mlserver-1.x", claims=("a", "b.c"))),
        ("custom-sockets", _context(CUSTOM | SOCKETS)),
        ("custom-without-helper", _context(CUSTOM | {"storageHelper": {"disabled": True}})),
        (
            "custom-puller-tls",
            _context(CUSTOM, CUSTOM_SETTINGS, claims=("claim",), tls=Tls("tls-secret", has_ca=True)),
        ),
    ],
)
def test_equals_the_golden_file(name: str, context: PodContext) -> None:
    built = build(context)
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("MODELMESH_UPDATE_GOLDEN"):
        path.write_text(yaml.dump(built, Dumper=_Plain, sort_keys=False, width=110))
    assert built == yaml.safe_load(path.read_text())


class _Plain(yaml.SafeDumper):
    """Writes shared parts out in full."""

    def ignore_aliases(self, data: object) -> bool:
        del data
        return True


def _container(context: PodContext, name: str) -> dict[str, Any]:
    containers = build(context)["spec"]["template"]["spec"]["containers"]
    return next(container for container in containers if container["name"] == name)


def _env(container: dict[str, Any]) -> dict[str, Any]:
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in container["env"]}


def test_the_mesh_is_the_last_container() -> None:
    for context in (_mlserver(), _context(CUSTOM)):
        assert build(context)["spec"]["template"]["spec"]["containers"][-1]["name"] == "mm"


def test_there_is_no_rest_sidecar_and_the_mesh_owns_its_port() -> None:
    names = [c["name"] for c in build(_mlserver())["spec"]["template"]["spec"]["containers"]]
    assert names == ["mlserver", "mlserver-adapter", "mm"]
    mesh = _container(_mlserver("restProxy: {port: 9000}"), "mm")
    assert {"name": "http", "containerPort": 9000} in mesh["ports"]
    assert _env(mesh)["MM_SVC_REST_PORT"] == "9000"
    off = _container(_mlserver("restProxy: {enabled: false}"), "mm")
    assert _env(off)["MM_SVC_REST_PORT"] == "0"
    assert "http" not in {port["name"] for port in off["ports"]}


def test_one_port_name_grpc_in_the_pod() -> None:
    containers = build(_context(CUSTOM))["spec"]["template"]["spec"]["containers"]
    names = [port.get("name") for container in containers for port in container.get("ports", ())]
    assert names.count("grpc") == 1


def test_a_disabled_storage_helper_gives_no_puller() -> None:
    context = _context(CUSTOM | {"storageHelper": {"disabled": True}})
    pod = build(context)["spec"]["template"]["spec"]
    assert [container["name"] for container in pod["containers"]] == ["custom", "mm"]
    assert "storage-config" not in {volume["name"] for volume in pod["volumes"]}
    mesh = _container(context, "mm")
    assert _env(mesh)["INTERNAL_GRPC_SOCKET_PATH"] == "/tmp/mm/grpc.sock"  # noqa: S108
    # The data endpoint is a port, the management endpoint a socket: the mesh needs its folder.
    assert {"name": "domain-socket", "mountPath": "/tmp/mm"} in mesh["volumeMounts"]  # noqa: S108


def test_sockets_in_two_folders_are_refused() -> None:
    with pytest.raises(InvalidRuntimeError, match="share a folder"):
        build(_context(CUSTOM | {"grpcDataEndpoint": "unix:/other/data.sock"}))


def test_the_architecture_is_added_to_each_of_the_users_terms() -> None:
    def term(zone: str) -> dict[str, Any]:
        return {"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]}

    required = {"nodeSelectorTerms": [term("a"), term("b")]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    built = build(_context(CUSTOM | {"affinity": affinity}))["spec"]["template"]["spec"]["affinity"]
    terms = built["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert [[e["key"] for e in t["matchExpressions"]] for t in terms] == [["zone", "kubernetes.io/arch"]] * 2


def test_adapter_variables_of_the_runtime_replace_ours() -> None:
    spec = {
        "containers": [{"name": "triton", "image": "registry:5000/triton@sha256:1"}],
        "grpcEndpoint": "port:9999",
        "builtInAdapter": {
            "serverType": "triton",
            "runtimeManagementPort": 8001,
            "env": [{"name": "MEM_BUFFER_BYTES", "value": "7"}, {"name": "MORE", "value": "x"}],
        },
    }
    annotations = {"maxLoadingConcurrency": "2", "perModelConcurrencyLimit": "3"}
    runtime = ServingRuntime.parse({"metadata": {"name": "r", "annotations": annotations}, "spec": spec})
    env = _env(_container(_context(spec, runtime=runtime), "triton-adapter"))
    assert env["ADAPTER_PORT"] == "9999"
    assert env["RUNTIME_DATA_ENDPOINT"] == "port:8001"
    assert env["MEM_BUFFER_BYTES"] == "7"
    assert env["MORE"] == "x"
    assert env["RUNTIME_VERSION"] == ""
    assert env["LOADING_CONCURRENCY"] == "2"
    assert env["LIMIT_PER_MODEL_CONCURRENCY"] == "3"


def test_the_kubelet_asks_an_adapter_how_it_is() -> None:
    adapter = _container(_mlserver(), "mlserver-adapter")
    assert _env(adapter)["ADAPTER_METRICS_PORT"] == "11881"
    assert adapter["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": 11881}
    assert adapter["ports"] == [{"name": "mm-adapter", "containerPort": 11881}]


@pytest.mark.parametrize(("port", "asked"), [("9100", 9100), ("0", None), ("health", None)])
def test_the_probe_of_an_adapter_follows_the_port_of_the_runtime(port: str, asked: int | None) -> None:
    raw = yaml.safe_load((ROOT / "runtimes" / "mlserver-1.x.yaml").read_text())
    raw["spec"]["builtInAdapter"]["env"] = [{"name": "ADAPTER_METRICS_PORT", "value": port}]
    context = _context({"containers": []}, runtime=ServingRuntime.parse(raw))
    adapter = _container(context, "mlserver-adapter")
    assert _env(adapter)["ADAPTER_METRICS_PORT"] == port
    assert adapter.get("livenessProbe", {}).get("httpGet", {}).get("port") == asked


@pytest.mark.parametrize(
    ("image", "asked"),
    [
        ("modelmesh/adapter", True),
        ("registry.example.com:5000/mirror/modelmesh/adapter", True),
        ("kserve/modelmesh-runtime-adapter", False),
        ("example/mymodelmesh/adapter", False),
    ],
)
def test_an_image_that_may_have_no_health_is_not_killed_for_it(image: str, *, asked: bool) -> None:
    adapter = _container(_mlserver(f"storageHelperImage: {{name: '{image}'}}"), "mlserver-adapter")
    assert ("livenessProbe" in adapter) is ("ADAPTER_METRICS_PORT" in _env(adapter)) is asked


@pytest.mark.parametrize(
    ("image", "tag"),
    [
        ("a/b:1.3.2", "1.3.2"),
        ("host:5000/a/b:1", "1"),
        ("host:5000/a/b", ""),
        ("a:1@sha256:2", "1"),
        ("a", ""),
    ],
)
def test_image_tags(image: str, tag: str) -> None:
    assert image_tag(image) == tag


@pytest.mark.parametrize("spec", [CUSTOM, SOCKETS | CUSTOM], ids=["puller", "sockets"])
def test_our_containers_are_restricted_and_the_users_keep_what_they_need(spec: dict[str, Any]) -> None:
    spec = spec | {
        "containers": [
            {"name": "silent", "image": "example/server:1"},
            {"name": "root", "image": "example/server:1", "securityContext": {"runAsUser": 0}},
        ],
    }
    contexts = {c["name"]: c["securityContext"] for c in _containers(_context(spec))}
    assert contexts.pop("silent") == {"capabilities": {"drop": ["ALL"]}}
    assert contexts.pop("root") == {"runAsUser": 0}
    assert contexts
    assert all(_is_restricted(context) for context in contexts.values())


def test_adapters_are_restricted() -> None:
    contexts = {c["name"]: c["securityContext"] for c in _containers(_mlserver())}
    assert _is_restricted(contexts["mlserver-adapter"])
    assert _is_restricted(contexts["mm"])


def _containers(context: PodContext) -> list[dict[str, Any]]:
    containers: list[dict[str, Any]] = build(context)["spec"]["template"]["spec"]["containers"]
    return containers


def _is_restricted(context: dict[str, Any]) -> bool:
    """Whether a container keeps the Pod Security Standard *restricted* by itself."""
    return (
        context["allowPrivilegeEscalation"] is False
        and context["runAsNonRoot"] is True
        and context["capabilities"] == {"drop": ["ALL"]}
        and context["seccompProfile"]["type"] == "RuntimeDefault"
    )


def test_pods_of_a_runtime_spread_over_zones_and_nodes_but_run_anyway() -> None:
    template = build(_mlserver())["spec"]["template"]
    constraints = template["spec"]["topologySpreadConstraints"]
    assert [c["topologyKey"] for c in constraints] == [
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    ]
    for constraint in constraints:
        assert constraint["whenUnsatisfiable"] == "ScheduleAnyway"
        assert constraint["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
