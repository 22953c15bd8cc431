"""The rules on a real API server: its words are those of the controller's own checks."""

import asyncio
import base64
import copy
import functools
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from api.resource import Resource
from api.v1alpha1 import rules as v1alpha1
from controller import webhook
from controller.runtime.client import Client
from controller.runtime.errors import ApiError, Forbidden, Invalid
from controller.runtime.testing import KubeApiServer
from tests.controller import rule_cases
from tests.controller.conftest import RESOURCES
from tests.controller.rule_cases import ROOT, Case

pytestmark = pytest.mark.e2e

_GROUP = "admissionregistration.k8s.io"
_POLICY = Resource(_GROUP, "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies", namespaced=False)
_BINDING = Resource(
    _GROUP, "v1", "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", namespaced=False
)
_WEBHOOKS = Resource(
    _GROUP,
    "v1",
    "ValidatingWebhookConfiguration",
    "validatingwebhookconfigurations",
    namespaced=False,
)


async def _install_policies(client: Client, namespace: str) -> None:
    """Puts the policies into effect in one namespace: other tests share the server."""
    selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    for file in sorted((ROOT / "config" / "admission").glob("*.yaml")):
        for manifest in yaml.safe_load_all(file.read_text()):
            if manifest["kind"] == _BINDING.kind:
                manifest["metadata"]["name"] += f"-{namespace}"
                manifest["spec"]["matchResources"] = {"namespaceSelector": selector}
            resource = _POLICY if manifest["kind"] == _POLICY.kind else _BINDING
            await client.apply(resource, manifest, field_manager="tests")


async def _in_effect(client: Client, namespace: str) -> None:
    """Waits until both policies refuse what they should; the API server reads them with a delay."""
    wrong = [
        next(case.object for case in cases if case.messages)
        for cases in (rule_cases.INFERENCE_SERVICES, rule_cases.AUTOSCALING)
    ]
    async with asyncio.timeout(60):
        for number, obj in enumerate(wrong):
            refused = False
            while not refused:
                probe = _named(obj, namespace, f"probe-{number}")
                resource = RESOURCES[probe["kind"]]
                try:
                    await client.create(resource, probe)
                except Invalid:
                    refused = True
                else:
                    await client.delete(resource, f"probe-{number}", namespace)
                    await asyncio.sleep(0.1)


def _named(obj: dict[str, Any], namespace: str, name: str) -> dict[str, Any]:
    obj = copy.deepcopy(obj)
    obj["metadata"] = obj["metadata"] | {"name": name}
    if RESOURCES[obj["kind"]].namespaced:
        obj["metadata"]["namespace"] = namespace
    return obj


async def _verdict(client: Client, obj: dict[str, Any], refusal: type[ApiError] = Invalid) -> ApiError | None:
    resource = RESOURCES[obj["kind"]]
    try:
        await client.create(resource, obj)
    except refusal as error:
        return error
    await client.delete(resource, obj["metadata"]["name"], obj["metadata"].get("namespace", ""))
    return None


def _differences(case: Case, error: ApiError | None) -> str:
    """What is not as it should be; empty where all is."""
    if not case.messages:
        return "" if error is None else f"refused: {error}"
    if error is None:
        return "accepted"
    causes = (error.details or {}).get("causes", [])
    told = [cause["message"] for cause in causes]
    if not any(case.fields):
        sound = len(told) == 1 and told[0].endswith(f" denied request: {case.messages[0]}")
        return "" if sound else f"refused with {told}"
    fields = [cause["field"] for cause in causes]
    sound = fields == list(case.fields) and all(
        text.endswith(f": {message}") for text, message in zip(told, case.messages, strict=True)
    )
    return "" if sound else f"refused with {fields} {told}"


@pytest.fixture
async def namespace(kube_client: Client, kube_namespace: str) -> str:
    """A namespace in which the policies are in effect."""
    await _install_policies(kube_client, kube_namespace)
    await _in_effect(kube_client, kube_namespace)
    return kube_namespace


async def test_every_rule_with_objects_that_break_it_and_neighbours_that_do_not(
    kube_client: Client, namespace: str
) -> None:
    wrong = {}
    for number, case in enumerate(rule_cases.ALL):
        error = await _verdict(kube_client, _named(case.object, namespace, f"m-{number}"))
        if difference := _differences(case, error):
            wrong[f"{case.object['kind']} {case.id}"] = difference
    assert wrong == {}


async def test_what_the_project_ships_is_accepted(kube_client: Client, namespace: str) -> None:
    refused = {
        rule_cases.title(obj): error
        for number, obj in enumerate(rule_cases.SAMPLES)
        if (error := await _verdict(kube_client, _named(obj, namespace, f"s-{number}")))
    }
    assert refused == {}


async def test_objects_at_the_bounds_are_accepted(kube_client: Client, namespace: str) -> None:
    ports = [{"containerPort": 20_000 + number} for number in range(200)]
    containers = [{"name": f"c-{number}", "image": "i", "ports": ports} for number in range(20)]
    large = rule_cases.runtime(containers=[*containers, {"name": "mlserver", "image": "i"}])
    assert await _verdict(kube_client, _named(large, namespace, "large")) is None


async def test_the_webhook_refuses_with_the_same_words(
    kube_client: Client, kube_namespace: str, tmp_path: Path
) -> None:
    authority = trustme.CA()
    pair = authority.issue_cert("127.0.0.1")
    pair.private_key_pem.write_to_path(tmp_path / "tls.key")
    pair.cert_chain_pems[0].write_to_path(tmp_path / "tls.crt")
    manifest = next(yaml.safe_load_all((ROOT / "config" / "webhook" / "webhook.yaml").read_text()))
    (hook,) = manifest["webhooks"]
    async with webhook.serving(tmp_path, 0) as port:
        hook["clientConfig"] = {
            "url": f"https://127.0.0.1:{port}{webhook.PATH}",
            "caBundle": base64.b64encode(authority.cert_pem.bytes()).decode(),
        }
        hook["namespaceSelector"] = {"matchLabels": {"kubernetes.io/metadata.name": kube_namespace}}
        await kube_client.create(_WEBHOOKS, manifest)
        try:
            wrong = _named(rule_cases.AUTOSCALING[3].object, kube_namespace, "hooked")
            async with asyncio.timeout(60):
                error = None
                while error is None:
                    error = await _verdict(kube_client, wrong, Forbidden)
            assert 'webhook "servingruntime.modelmesh-webhook-server.default" denied' in str(error)
            assert rule_cases.AUTOSCALING[3].messages[0] in str(error)
            sound = _named(rule_cases.runtime(), kube_namespace, "sound")
            assert await _verdict(kube_client, sound, Forbidden) is None
        finally:
            await kube_client.delete(_WEBHOOKS, manifest["metadata"]["name"])


async def test_an_object_from_before_the_rules_can_change_elsewhere(
    kube_client: Client, kube_namespace: str
) -> None:
    isvcs = RESOURCES["InferenceService"]
    await kube_client.create(isvcs, _named(rule_cases.isvc({}), kube_namespace, "old"))
    await _install_policies(kube_client, kube_namespace)
    await _in_effect(kube_client, kube_namespace)
    await kube_client.patch(isvcs, "old", kube_namespace, {"metadata": {"labels": {"a": "b"}}})
    with pytest.raises(Invalid, match="names no model"):
        await kube_client.patch(isvcs, "old", kube_namespace, {"spec": {"predictor": {"minReplicas": 1}}})
    await kube_client.delete(isvcs, "old", kube_namespace)


def _kubectl(binary: str, kubeconfig: Path, *args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [binary, "--kubeconfig", str(kubeconfig), *args]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)


Kubectl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def kubectl(
    kube_server: KubeApiServer, kube_namespace: str
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The kubectl that KUBECTL names, else the one on PATH, in a namespace of its own."""
    binary = os.environ.get("KUBECTL") or shutil.which("kubectl")
    if binary is None:
        pytest.skip("there is no kubectl on PATH (KUBECTL names another one)")
    return functools.partial(_kubectl, binary, kube_server.kubeconfig, "-n", kube_namespace)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("servingruntime.spec.containers.resources.limits", "FIELD: limits <map[string]Object>"),
        ("servingruntime.spec.containers.env.valueFrom.secretKeyRef.key", "FIELD: key <string>"),
        ("clusterservingruntime.spec.builtInAdapter.serverType", "Kind of server"),
        ("servingruntime.status.memory", "Memory for models"),
        ("predictor.spec.storage", "Where the model's files are"),
        ("predictor.status.conditions", "aspect of an object's state"),
        ("isvc.spec.predictor.model.storage", "Where the model's files are"),
        ("isvc.spec.predictor.containers.ports.containerPort", "FIELD: containerPort <integer>"),
    ],
)
def test_kubectl_explains_every_field(kubectl: Kubectl, field: str, text: str) -> None:
    done = kubectl("explain", field)
    assert done.returncode == 0, done.stderr
    assert text in done.stdout


def test_kubectl_shows_a_refusal_and_the_columns(kubectl: Kubectl) -> None:
    wrong = json.dumps(rule_cases.runtime(container={"name": "mm"}))
    done = kubectl("apply", "-f", "-", stdin=wrong)
    assert done.returncode == 1
    assert "spec.containers: Invalid value" in done.stderr
    assert v1alpha1.CONTAINER_NAMES.message in done.stderr
    done = kubectl("apply", "-f", "-", stdin=json.dumps(rule_cases.runtime()))
    assert done.returncode == 0, done.stderr
    ready = {"type": "Ready", "status": "True", "reason": "PodsReady", "message": "m"}
    status = {
        "conditions": [ready],
        "pods": {"desired": 2, "ready": 2},
        "models": 7,
        "memory": {"capacity": "2048Mi", "used": "120Mi"},
    }
    done = kubectl(
        "patch",
        "servingruntime",
        "m",
        "--subresource=status",
        "--type=merge",
        "-p",
        json.dumps({"status": status}),
    )
    assert done.returncode == 0, done.stderr
    header, row = kubectl("get", "servingruntimes").stdout.splitlines()
    assert header.split() == [
        "NAME",
        "DISABLED",
        "MODELTYPE",
        "CONTAINERS",
        "READY",
        "PODS",
        "MODELS",
        "MEMORY",
        "AGE",
    ]
    assert row.split()[:-1] == ["m", "mlserver", "True", "2", "7", "120Mi"]
