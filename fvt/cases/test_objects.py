"""What kubectl shows of the installation and its objects."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from typing import TYPE_CHECKING

import httpx
import pytest

from fvt.cluster import CONTROLLER_PODS, RUNTIME_PODS, SERVICE
from fvt.forward import Forward
from fvt.objects import isvc
from fvt.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from fvt.cluster import JSON, Cluster


def test_the_service_is_headless_and_has_its_ports(installed: Cluster) -> None:
    spec = installed.get("service", SERVICE)["spec"]
    assert spec["clusterIP"] == "None"
    assert spec["selector"] == {"modelmesh-service": SERVICE}
    ports = {port["name"]: port["port"] for port in spec["ports"]}
    assert (ports["grpc"], ports["http"]) == (8033, 8008)


def test_the_constraints_of_types_are_told_to_the_mesh(
    installed: Cluster, needs: Callable[[str], None]
) -> None:
    needs("mlserver")
    content = installed.get("configmap", "tc-config")["binaryData"]
    constraints = json.loads(b64decode(content["type_constraints"]))
    assert constraints["rt:mlserver-1.x"] == {"required": ["rt:mlserver-1.x"]}
    assert constraints["mt:sklearn"] == {"required": ["mt:sklearn"]}
    assert constraints["_default"] == {"required": ["_no_runtime"]}
    paths = json.loads(b64decode(content["dataplane_api_config"]))
    assert paths["rpcConfigs"]["inference.GRPCInferenceService/ModelInfer"]["idExtractionPath"] == [1]


def test_a_runtime_tells_of_its_pods(installed: Cluster, needs: Callable[[str], None]) -> None:
    needs("mlserver")

    def look() -> JSON:
        status = installed.status("servingruntime", "mlserver-1.x")
        assert status["pods"]["ready"] == status["pods"]["desired"] == 1, status
        return status

    status = wait(look, "mlserver-1.x to tell of its pod")
    assert status["conditions"][0]["status"] == "True"


@pytest.mark.parametrize("selector", [CONTROLLER_PODS, RUNTIME_PODS])
def test_our_containers_keep_to_the_restricted_standard(installed: Cluster, selector: str) -> None:
    pods = installed.items("pods", selector)
    assert pods
    for pod in pods:
        for container in pod["spec"]["containers"]:
            if container["name"] in {"manager", "mm", "puller"} or container["name"].endswith("-adapter"):
                context = pod["spec"].get("securityContext", {}) | container["securityContext"]
                assert context["allowPrivilegeEscalation"] is False, container["name"]
                assert context["capabilities"]["drop"] == ["ALL"], container["name"]
                assert context["runAsNonRoot"] is True, container["name"]
                assert context["seccompProfile"] == {"type": "RuntimeDefault"}, container["name"]


def test_a_runtime_of_kserves_is_left_alone(installed: Cluster, name: str) -> None:
    """The one after it is acted on, so this one has been seen."""
    theirs, ours = f"{name}-theirs", f"{name}-ours"

    def runtime(called: str, **fields: object) -> JSON:
        spec = {
            "grpcEndpoint": "port:8085",
            "replicas": 0,
            "supportedModelFormats": [{"name": called}],
            "containers": [{"name": "server", "image": "example.org/none:1"}],
        }
        metadata = {"name": called}
        api_version = "serving.kserve.io/v1alpha1"
        return {
            "apiVersion": api_version,
            "kind": "ServingRuntime",
            "metadata": metadata,
            "spec": spec | fields,
        }

    try:
        installed.apply(runtime(theirs))
        installed.apply(runtime(ours, multiModel=True))
        wait(lambda: installed.find("deployment", f"{SERVICE}-{ours}"), f"the Deployment of {ours}")
        assert installed.find("deployment", f"{SERVICE}-{theirs}") is None
        installed.delete("servingruntime", ours)
        wait(lambda: not installed.find("deployment", f"{SERVICE}-{ours}"), f"the Deployment of {ours} to go")
    finally:
        installed.delete("servingruntime", theirs, ours)


def test_a_watch_sees_a_model_become_ready(
    installed: Cluster, name: str, needs: Callable[[str], None]
) -> None:
    needs("mlserver")
    installed.apply(isvc(name))
    waited = installed.kubectl("wait", "--for=condition=Ready", f"isvc/{name}", "--timeout=90s")
    assert "condition met" in waited


def test_the_columns_of_an_isvc_are_kserves(
    installed: Cluster, name: str, needs: Callable[[str], None]
) -> None:
    needs("mlserver")
    installed.apply(isvc(name))
    installed.wait_ready("isvc", name)
    header, row = installed.kubectl("get", "isvc", name).splitlines()
    assert header.split() == [
        *("NAME", "URL", "READY", "PREV", "LATEST"),
        *("PREVROLLEDOUTREVISION", "LATESTREADYREVISION", "AGE"),
    ]
    assert row.split()[:3] == [name, f"grpc://{SERVICE}.{installed.namespace}:8033", "True"]


def test_events_tell_the_life_of_a_model(installed: Cluster, name: str, needs: Callable[[str], None]) -> None:
    needs("mlserver")
    installed.apply(isvc(name))
    installed.wait_ready("isvc", name)

    def look() -> bool:
        events = installed.items("events")
        seen = {event["reason"] for event in events if event["involvedObject"]["name"] == name}
        assert {"Registered", "Loaded"} <= seen, seen
        return True

    wait(look, f"events of {name}")


def test_prometheus_finds_the_metrics_of_an_instance(
    installed: Cluster, name: str, needs: Callable[[str], None]
) -> None:
    needs("mlserver")
    installed.apply(isvc(name))
    installed.wait_ready("isvc", name)
    (pod,) = installed.ready_pods(f"name={SERVICE}-mlserver-1.x")
    annotations = pod["metadata"]["annotations"]
    assert annotations["prometheus.io/scrape"] == "true"
    port, path = int(annotations["prometheus.io/port"]), annotations["prometheus.io/path"]
    with Forward(installed, f"pod/{pod['metadata']['name']}", port) as forward:
        url = f"{annotations['prometheus.io/scheme']}://{forward.address()}{path}"
        text = httpx.get(url, trust_env=False).text
    samples = dict(line.split(" ") for line in text.splitlines() if re.match(r"modelmesh_\w+ \S+$", line))
    assert float(samples["modelmesh_instance_models_total"]) >= 1
    assert float(samples["modelmesh_instance_capacity_bytes"]) > 0
