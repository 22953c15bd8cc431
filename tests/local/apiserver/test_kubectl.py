"""The real kubectl on the server: what a user of local mode types."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from api.core import DEPLOYMENT, EVENT, POD
from api.resource import Resource
from controller.runtime.client import PatchKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from controller.runtime.apiserver import Core

pytestmark = pytest.mark.e2e

JSON = dict[str, Any]
NAMESPACE = "modelmesh-serving"
ISVC = Resource("serving.kserve.io", "v1beta1", "InferenceService", "inferenceservices")
NAME = "example-sklearn-isvc"


def _ready(core: Core, status: str) -> None:
    conditions = [{"type": "PredictorReady", "status": status}, {"type": "Ready", "status": status}]
    patch = {"status": {"url": "grpc://modelmesh-serving.modelmesh-serving:8033", "conditions": conditions}}
    core.patch(core.kind(ISVC), NAME, NAMESPACE, patch, PatchKind.MERGE, subresource="status")


def _pod(core: Core) -> None:
    containers = [{"name": "mm", "image": "i"}, {"name": "mlserver", "image": "i"}]
    pod = {
        "metadata": {"name": "p", "namespace": NAMESPACE},
        "spec": {"containers": containers, "nodeName": "local"},
    }
    core.create(core.kind(POD), pod)
    status = {
        "phase": "Running",
        "podIP": "127.0.0.1",
        "containerStatuses": [
            {"name": "mm", "ready": True, "restartCount": 1, "state": {"running": {}}},
            {"name": "mlserver", "ready": False, "restartCount": 0, "state": {"running": {}}},
        ],
    }
    core.patch(core.kind(POD), "p", NAMESPACE, {"status": status}, PatchKind.MERGE, subresource="status")


def _event(core: Core) -> None:
    isvc = core.get(core.kind(ISVC), NAME, NAMESPACE).object
    event = {
        "metadata": {"name": "e", "namespace": NAMESPACE},
        "involvedObject": {"kind": "InferenceService", "name": NAME, "namespace": NAMESPACE}
        | {"uid": isvc["metadata"]["uid"], "apiVersion": "serving.kserve.io/v1beta1"},
        "type": "Warning",
        "reason": "FailedToLoad",
        "message": "no such object in the bucket",
        "source": {"component": "modelmesh-controller"},
        "firstTimestamp": isvc["metadata"]["creationTimestamp"],
        "lastTimestamp": isvc["metadata"]["creationTimestamp"],
        "count": 1,
    }
    core.create(core.kind(EVENT), event)


def _deployment(core: Core) -> None:
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    core.create(core.kind(DEPLOYMENT), {"metadata": {"name": "web", "namespace": NAMESPACE}, "spec": spec})


def _columns(text: str) -> list[list[str]]:
    return [line.split() for line in text.strip().splitlines()]


async def test_apply_creates_then_finds_unchanged_then_updates(kubectl: Any, isvc: JSON) -> None:
    full_name = f"inferenceservice.serving.kserve.io/{NAME}"
    assert await kubectl("apply", "-f", "-", stdin=json.dumps(isvc)) == f"{full_name} created\n"
    assert await kubectl("apply", "-f", "-", stdin=json.dumps(isvc)) == f"{full_name} unchanged\n"
    isvc["spec"]["predictor"]["model"]["storage"]["path"] = "other"
    assert await kubectl("apply", "-f", "-", stdin=yaml.safe_dump(isvc)) == f"{full_name} configured\n"
    path = "jsonpath={.spec.predictor.model.storage.path}"
    assert await kubectl("get", "isvc", NAME, "-o", path) == "other"


async def test_server_side_apply_and_its_conflict(kubectl: Any, isvc: JSON) -> None:
    text = json.dumps(isvc)
    assert "serverside-applied" in await kubectl("apply", "--server-side", "-f", "-", stdin=text)
    other = text.replace("mnist-svm", "other")
    refused = await kubectl.run("apply", "--server-side", "--field-manager=me", "-f", "-", stdin=other)
    assert refused.code != 0
    assert (
        'conflict with "kubectl" using serving.kserve.io/v1beta1: .spec.predictor.model.storage.path'
        in refused.err
    )
    forced = ("apply", "--server-side", "--force-conflicts", "--field-manager=me", "-f", "-")
    assert "serverside-applied" in await kubectl(*forced, stdin=other)


async def test_get_prints_the_columns_of_the_tutorial(core: Core, kubectl: Any, isvc: JSON) -> None:
    await kubectl("apply", "-f", "-", stdin=json.dumps(isvc))
    head, row = _columns(await kubectl("get", "isvc"))
    assert head[:3] == ["NAME", "URL", "READY"]
    assert row[0] == NAME
    _ready(core, "True")
    row = _columns(await kubectl("get", "inferenceservices.serving.kserve.io", NAME, "-o", "wide"))[1]
    assert row[:3] == [NAME, "grpc://modelmesh-serving.modelmesh-serving:8033", "True"]
    assert (
        await kubectl("get", "isvc", "-o", "name")
    ).strip() == f"inferenceservice.serving.kserve.io/{NAME}"
    listed = json.loads(await kubectl("get", "isvc", "-A", "-o", "json"))
    assert [item["metadata"]["name"] for item in listed["items"]] == [NAME]
    shown = yaml.safe_load(await kubectl("get", "isvc", NAME, "-o", "yaml"))
    assert shown["spec"] == isvc["spec"]


async def test_get_serving_runtimes(kubectl: Any) -> None:
    runtime = {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": "mlserver-1.x"},
        "spec": {
            "supportedModelFormats": [{"name": "sklearn", "version": "0"}, {"name": "xgboost"}],
            "containers": [{"name": "mlserver", "image": "i"}],
        },
    }
    await kubectl("apply", "-f", "-", stdin=json.dumps(runtime))
    head, row = _columns(await kubectl("get", "servingruntimes"))
    assert head == [
        *("NAME", "DISABLED", "MODELTYPE", "CONTAINERS"),
        *("READY", "PODS", "MODELS", "MEMORY", "AGE"),
    ]
    assert row[:3] == ["mlserver-1.x", "sklearn", "mlserver"]


async def test_describe_shows_conditions_and_events(core: Core, kubectl: Any, isvc: JSON) -> None:
    await kubectl("apply", "-f", "-", stdin=json.dumps(isvc))
    _ready(core, "False")
    _event(core)
    described = await kubectl("describe", "isvc", NAME)
    assert "PredictorReady" in described
    assert "no such object in the bucket" in described
    _pod(core)
    assert "Running" in await kubectl("describe", "pod", "p")
    _deployment(core)
    assert "RollingUpdate" in await kubectl("describe", "deployment", "web")


async def test_get_pods_deployments_events(core: Core, kubectl: Any, isvc: JSON) -> None:
    await kubectl("apply", "-f", "-", stdin=json.dumps(isvc))
    _pod(core)
    _deployment(core)
    _event(core)
    head, row = _columns(await kubectl("get", "pods", "-o", "wide"))
    assert head == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"]
    assert (row[:4], row[5:]) == (["p", "1/2", "Running", "1"], ["127.0.0.1", "local"])
    head, row = _columns(await kubectl("get", "deploy"))
    assert head == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    assert row[:2] == ["web", "0/1"]
    assert "no such object in the bucket" in await kubectl("get", "events")
    assert "no such object in the bucket" in await kubectl("events", "--for", f"inferenceservice/{NAME}")
    assert "deployment.apps/web" in await kubectl("get", "all")


async def test_an_unknown_field_is_refused_by_name(kubectl: Any, isvc: JSON) -> None:
    model = isvc["spec"]["predictor"]["model"]
    model["modelFromat"] = model.pop("modelFormat")
    refused = await kubectl.run("apply", "-f", "-", stdin=json.dumps(isvc))
    assert refused.code == 1
    assert 'strict decoding error: unknown field "spec.predictor.model.modelFromat"' in refused.err
    warned = await kubectl("apply", "--validate=warn", "-f", "-", stdin=json.dumps(isvc))
    assert 'Warning: unknown field "spec.predictor.model.modelFromat"' in warned


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"name": 5}, "spec.predictor.model.modelFormat.name"),
        ("sklearn", "spec.predictor.model.modelFormat"),
    ],
)
async def test_a_wrong_type_is_refused_by_field(kubectl: Any, isvc: JSON, value: Any, message: str) -> None:
    isvc["spec"]["predictor"]["model"]["modelFormat"] = value
    refused = await kubectl.run("apply", "-f", "-", stdin=json.dumps(isvc))
    assert refused.code == 1
    assert f'The InferenceService "{NAME}" is invalid' in refused.err
    assert message in refused.err
    assert "must be of type" in refused.err


async def test_built_in_kinds_are_checked_and_explained(kubectl: Any) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringdata": {"k": "v"}}
    refused = await kubectl.run("apply", "-f", "-", stdin=json.dumps(secret))
    assert refused.code == 1
    assert 'strict decoding error: unknown field "stringdata"' in refused.err
    warned = await kubectl("apply", "--validate=warn", "-f", "-", stdin=json.dumps(secret))
    assert 'Warning: unknown field "stringdata"' in warned
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": ["a"]}
    refused = await kubectl.run("apply", "-f", "-", stdin=json.dumps(config))
    assert refused.code == 1
    assert "data in body must be of type object" in refused.err
    assert "image\t<string>" in await kubectl("explain", "pod.spec.containers")
    assert "template\t<PodTemplateSpec> -required-" in await kubectl("explain", "deployment.spec")
    assert "limits\t<map[string]" in await kubectl("explain", "pod.spec.containers.resources")


async def test_text_that_is_no_manifest_is_refused(kubectl: Any) -> None:
    assert "error" in (await kubectl.run("apply", "-f", "-", stdin="a: [")).err
    no_kind = await kubectl.run("apply", "-f", "-", stdin="apiVersion: v1\n")
    assert "kind" in no_kind.err
    unknown = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "Inference", "metadata": {"name": "x"}}
    assert (
        'no matches for kind "Inference"'
        in (await kubectl.run("apply", "-f", "-", stdin=json.dumps(unknown))).err
    )


async def test_edits_by_patch_label_and_annotate(kubectl: Any, isvc: JSON) -> None:
    await kubectl("apply", "-f", "-", stdin=json.dumps(isvc))
    merge = {"spec": {"predictor": {"model": {"storage": {"path": "x"}}}}}
    assert "patched" in await kubectl("patch", "isvc", NAME, "--type", "merge", "-p", json.dumps(merge))
    operation = {"op": "replace", "path": "/spec/predictor/model/storage/key", "value": "y"}
    assert "patched" in await kubectl("patch", "isvc", NAME, "--type", "json", "-p", json.dumps([operation]))
    assert "labeled" in await kubectl("label", "isvc", NAME, "a=b")
    assert "annotated" in await kubectl("annotate", "isvc", NAME, "note=hi")
    shown = json.loads(await kubectl("get", "isvc", "-l", "a=b", "-o", "json"))["items"][0]
    assert shown["spec"]["predictor"]["model"]["storage"] == {"path": "x", "key": "y"}
    assert shown["metadata"]["annotations"]["note"] == "hi"
    assert NAME not in await kubectl("get", "isvc", "-l", "a!=b")


async def test_scale_and_strategic_patch_of_a_deployment(core: Core, kubectl: Any) -> None:
    _deployment(core)
    assert "scaled" in await kubectl("scale", "deployment", "web", "--replicas=3")
    assert "image updated" in await kubectl("set", "image", "deployment/web", "c=other")
    spec = core.get(core.kind(DEPLOYMENT), "web", NAMESPACE).object["spec"]
    assert (spec["replicas"], spec["template"]["spec"]["containers"][0]["image"]) == (3, "other")


async def test_delete_waits_until_the_object_is_gone(kubectl: Any, isvc: JSON) -> None:
    await kubectl("apply", "-f", "-", stdin=json.dumps(isvc))
    assert "deleted" in await kubectl("delete", "isvc", NAME)
    again = await kubectl.run("delete", "isvc", NAME)
    assert f'inferenceservices.serving.kserve.io "{NAME}" not found' in again.err
    assert "No resources found" in await kubectl("get", "isvc")


async def test_creating_built_in_objects(kubectl: Any) -> None:
    assert "created" in await kubectl("create", "ns", "extra")
    assert "created" in await kubectl("create", "configmap", "c", "--from-literal=k=v")
    assert "created" in await kubectl("create", "secret", "generic", "s", "--from-literal=k=v")
    assert await kubectl("get", "secret", "s", "-o", "jsonpath={.data.k}") == "dg=="
    assert "extra" in await kubectl("get", "namespaces")
    assert "deleted" in await kubectl("delete", "ns", "extra")


async def test_logs_of_a_container(core: Core, kubectl: Any) -> None:
    _pod(core)
    assert await kubectl("logs", "p", "-c", "mlserver", "--tail=1") == "mlserver line 2\n"
    assert "followed" in await kubectl("logs", "p", "-c", "mm", "-f")
    assert "previous terminated container" in (await kubectl.run("logs", "p", "-c", "mm", "-p")).err


async def test_explain_and_api_resources(kubectl: Any) -> None:
    explained = await kubectl("explain", "isvc.spec.predictor")
    assert "InferenceService" in explained
    assert "model\t<Object>" in explained
    assert "inferenceservices" in await kubectl("api-resources", "--api-group=serving.kserve.io")
    assert "v1.32" in await kubectl("version")


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110 -- polls another process
            await asyncio.sleep(0.05)


async def test_wait_returns_when_the_condition_becomes_true(core: Core, kubectl: Any, isvc: JSON) -> None:
    await kubectl("apply", "-f", "-", stdin=json.dumps(isvc))
    _ready(core, "False")
    timed_out = await kubectl.run("wait", "--for=condition=Ready", f"isvc/{NAME}", "--timeout=1s")
    assert timed_out.code == 1
    waiting = asyncio.ensure_future(kubectl("wait", "--for=condition=Ready", f"isvc/{NAME}", "--timeout=20s"))

    async def watched() -> bool:
        return bool(core._store._subscriptions[core.kind(ISVC).storage_key])

    await _until(watched)
    _ready(core, "True")
    assert "condition met" in await waiting


async def test_get_watch_prints_each_change(core: Core, kubectl: Any, isvc: JSON) -> None:
    await kubectl("apply", "-f", "-", stdin=json.dumps(isvc))
    process = await kubectl.start("get", "isvc", "-w")
    try:
        async with asyncio.timeout(30):
            assert b"READY" in await process.stdout.readline()
            assert NAME.encode() in await process.stdout.readline()
            _ready(core, "True")
            assert b"grpc://" in await process.stdout.readline()
    finally:
        process.terminate()
        await process.wait()
