"""What users get wrong, and what they are told: reason and text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fvt import models as extra
from fvt.cluster import KubectlError, condition, model_status
from fvt.inference import EIGHT, Inference
from fvt.objects import SKLEARN, isvc, predictor
from fvt.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from fvt.cluster import JSON, Cluster
    from fvt.models import Bucket

WRONG = [
    pytest.param({"path": "sklearn/missing.joblib"}, "ModelLoadFailed", "sklearn/missing.joblib", id="path"),
    pytest.param({"key": "nowhere"}, "ModelLoadFailed", "nowhere", id="key"),
    pytest.param(
        {"parameters": {"bucket": "no-such-bucket"}}, "ModelLoadFailed", "no-such-bucket", id="bucket"
    ),
    pytest.param(
        {"model_format": "abacus"},
        "NoSupportingRuntime",
        "No ServingRuntime supports specified model type and/or protocol",
        id="format",
    ),
    pytest.param(
        {"version": "999"},
        "NoSupportingRuntime",
        "No ServingRuntime supports specified model type and/or protocol",
        id="version",
    ),
    pytest.param(
        {"runtime": "abacus-1.x"},
        "RuntimeNotRecognized",
        "Specified runtime name not recognized",
        id="runtime",
    ),
]


@pytest.mark.parametrize("kind", ["isvc", "predictor"])
@pytest.mark.parametrize(("wrong", "reason", "text"), WRONG)
def test_a_model_that_cannot_be_served_says_why_and_is_served_once_corrected(
    installed: Cluster,
    inference: Inference,
    name: str,
    needs: Callable[[str], None],
    kind: str,
    wrong: dict[str, Any],
    reason: str,
    text: str,
) -> None:
    needs("mlserver")
    make = isvc if kind == "isvc" else predictor
    installed.apply(make(name, **wrong))
    failure = installed.wait_failure(kind, name, reason)
    assert text in failure["message"]
    assert failure["time"]
    assert ("location" in failure) == (reason == "ModelLoadFailed")
    status = installed.status(kind, name)
    assert condition(status) == "False"
    assert model_status(status)["active"] == "FailedToLoad"
    # A key that is kept apart from the spec would be left by apply: the object is replaced whole.
    installed.apply(make(name))
    installed.wait_ready(kind, name)
    assert inference.digit(name) == 8


def test_a_predictor_without_storage_is_told_so(installed: Cluster, name: str) -> None:
    obj = predictor(name)
    del obj["spec"]["storage"]
    installed.apply(obj)
    failure = installed.wait_failure("predictor", name, "ModelLoadFailed")
    assert "Predictor Storage field missing" in failure["message"]


def test_a_corrupt_model_is_told_in_the_servers_words_and_the_others_go_on(
    installed: Cluster, models: Bucket, inference: Inference, name: str, needs: Callable[[str], None]
) -> None:
    needs("mlserver")
    assert models
    good = f"{name}-good"
    try:
        installed.apply(isvc(good), isvc(name, path=extra.CORRUPT))
        failure = installed.wait_failure("isvc", name, "ModelLoadFailed")
        assert "MLServer" in failure["message"]
        installed.wait_ready("isvc", good)
        assert inference.digit(good) == 8
    finally:
        installed.delete("isvc", good)


def test_an_unready_model_is_described_with_its_reason(installed: Cluster, name: str) -> None:
    installed.apply(isvc(name, path="sklearn/missing.joblib"))
    installed.wait_failure("isvc", name, "ModelLoadFailed")
    text = installed.kubectl("describe", "isvc", name)
    assert "ModelLoadFailed" in text
    wait(
        lambda: "LoadFailed" in installed.kubectl("describe", "isvc", name).partition("Events:")[2],
        f"an event LoadFailed of {name}",
    )


def _without(obj: JSON, *path: str) -> JSON:
    part = obj
    for key in path[:-1]:
        part = part[key]
    del part[path[-1]]
    return obj


def _with(obj: JSON, value: object, *path: str) -> JSON:
    part = obj
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return obj


MODEL = ("spec", "predictor", "model")
RUNTIME: JSON = {
    "apiVersion": "serving.kserve.io/v1alpha1",
    "kind": "ServingRuntime",
    "metadata": {"name": "refused"},
    "spec": {
        "multiModel": True,
        "grpcEndpoint": "port:8085",
        "supportedModelFormats": [{"name": "abacus", "autoSelect": True}],
        "containers": [{"name": "server", "image": "example.org/none:1"}],
    },
}


def _runtime(**container: object) -> JSON:
    spec = RUNTIME["spec"] | {"containers": [RUNTIME["spec"]["containers"][0] | container]}
    return RUNTIME | {"spec": spec}


def _scaled(**annotations: str) -> JSON:
    named = {f"serving.kserve.io/{key}": text for key, text in annotations.items()}
    return RUNTIME | {"metadata": {"name": "refused", "annotations": named}}


REFUSED = [
    pytest.param(
        _with(isvc("refused"), {}, "spec", "predictr"), 'unknown field "spec.predictr"', id="unknown field"
    ),
    pytest.param(
        _with(isvc("refused"), "sklearn", *MODEL, "modelFormat"),
        "spec.predictor.model.modelFormat",
        id="wrong type",
    ),
    pytest.param(
        isvc("refused", uri="ftp://bucket/path"),
        "storageUri 'ftp://bucket/path' must be s3://, gs://, pvc://, http:// or https://",
        id="scheme",
    ),
    pytest.param(_without(isvc("refused"), *MODEL, "storage"), "storage", id="no place"),
    pytest.param(_with(isvc("refused"), "s3://b/p", *MODEL, "storageUri"), "storageUri", id="two places"),
    pytest.param(
        _with(isvc("refused"), {}, "spec", "predictor", "sklearn"),
        "has both model and sklearn: keep one",
        id="two forms",
    ),
    pytest.param(_with(predictor("refused"), SKLEARN, "spec", "path"), "path", id="two paths"),
    pytest.param(
        _with(predictor("refused"), {"claimName": "c"}, "spec", "storage", "persistentVolumeClaim"),
        "persistentVolumeClaim",
        id="claim in a predictor",
    ),
    pytest.param(_without(predictor("refused"), "spec", "modelType"), "modelType", id="no type"),
    pytest.param(
        _runtime(readinessProbe={"exec": {"command": ["true"]}}),
        "the mesh decides when the pod is ready: remove the readinessProbe",
        id="readiness probe",
    ),
    pytest.param(_runtime(name="mm"), "rename the container", id="container name"),
    pytest.param(
        _runtime(ports=[{"containerPort": 8080}]), "let the server listen on another port", id="port"
    ),
    pytest.param(
        RUNTIME | {"spec": RUNTIME["spec"] | {"grpcEndpoint": "8085"}}, "grpcEndpoint", id="endpoint"
    ),
    pytest.param(
        RUNTIME | {"spec": RUNTIME["spec"] | {"builtInAdapter": {"serverType": "triton"}}},
        "no container is named as serverType says",
        id="adapter",
    ),
    pytest.param(_scaled(autoscalerClass="keda"), "autoscalerClass", id="autoscaler"),
    pytest.param(
        _scaled(autoscalerClass="hpa", targetUtilizationPercentage="101"),
        "targetUtilizationPercentage",
        id="utilization",
    ),
    pytest.param(
        _scaled(**{"autoscalerClass": "hpa", "min-scale": "3", "max-scale": "2"}), "min-scale", id="scales"
    ),
]


@pytest.mark.parametrize(("obj", "text"), REFUSED)
def test_a_contradiction_is_refused_with_what_to_do(installed: Cluster, obj: JSON, text: str) -> None:
    assert text in installed.refusal(obj)
    with pytest.raises(KubectlError, match="not found"):
        installed.get(obj["kind"], "refused")


def test_a_name_that_the_other_kind_has_is_told(
    installed: Cluster, inference: Inference, name: str, needs: Callable[[str], None]
) -> None:
    needs("mlserver")
    installed.apply(isvc(name))
    installed.wait_ready("isvc", name)
    installed.apply(predictor(name))
    failure = installed.wait_failure("predictor", name, "InvalidPredictorSpec")
    assert name in failure["message"]
    assert inference.infer(name, EIGHT).model_name.startswith(f"{name}__isvc-")


def test_an_isvc_of_kserve_is_left_alone(installed: Cluster, inference: Inference, name: str) -> None:
    obj = isvc(name)
    del obj["metadata"]["annotations"]
    installed.apply(obj)
    # What comes later has been handled when this one is known.
    other = f"{name}-other"
    try:
        installed.apply(isvc(other, "abacus"))
        installed.wait_failure("isvc", other, "NoSupportingRuntime")
        assert installed.status("isvc", name) == {}
        with pytest.raises(grpc.RpcError) as caught:
            inference.digit(name)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    finally:
        installed.delete("isvc", other)
