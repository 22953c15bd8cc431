"""What users get wrong, and what they are told."""

import json
from typing import Any

import grpc
import pytest

from tests.e2e.conftest import Machine, isvc, until

PATH = "sklearn/mnist-svm.joblib"


def test_an_unknown_field_is_refused_and_named(cluster: Machine) -> None:
    manifest = isvc("bad", path=PATH).replace('"predictor":', '"predictr": {}, "predictor":')
    done = cluster.kubectl("apply", "-f", "-", stdin=manifest, check=False)
    assert done.returncode == 1
    assert 'unknown field "spec.predictr"' in done.stdout


def test_a_wrong_type_is_refused_and_named(cluster: Machine) -> None:
    manifest = isvc("bad", path=PATH).replace('{"name": "sklearn"}', '"sklearn"')
    done = cluster.kubectl("apply", "-f", "-", stdin=manifest, check=False)
    assert done.returncode == 1
    assert "spec.predictor.model.modelFormat" in done.stdout


def test_a_contradiction_is_refused_and_the_message_says_what_to_do(cluster: Machine) -> None:
    manifest = isvc("bad", uri="ftp://bucket/path")
    done = cluster.kubectl("apply", "-f", "-", stdin=manifest, check=False)
    assert done.returncode == 1
    assert "storageUri 'ftp://bucket/path' must be s3://, gs://, pvc://, http:// or https://" in done.stdout


def test_a_wrong_runtime_is_refused_and_the_message_says_what_to_do(cluster: Machine) -> None:
    runtime = cluster.get("servingruntime", "mlserver-1.x")
    runtime["metadata"] = {"name": "wrong"}
    runtime["spec"]["containers"][0]["readinessProbe"] = {"exec": {"command": ["true"]}}
    done = cluster.kubectl("apply", "-f", "-", stdin=json.dumps(runtime), check=False)
    assert done.returncode == 1
    assert "the mesh decides when the pod is ready: remove the readinessProbe" in done.stdout


def test_a_runtime_shows_its_pods_models_and_memory(digits: Machine) -> None:
    def shown() -> dict[str, Any]:
        status: dict[str, Any] = digits.get("servingruntime", "mlserver-1.x").get("status", {})
        return status if status.get("models") else {}

    until(shown, "the runtime to show its models")
    status = shown()
    assert status["pods"]["ready"] == status["pods"]["desired"] == 1
    assert status["memory"]["capacity"].endswith("Mi")
    assert (status["conditions"][0]["type"], status["conditions"][0]["status"]) == ("Ready", "True")


def test_a_missing_object_is_named_and_fixing_the_path_recovers(cluster: Machine, name: str) -> None:
    cluster.apply(isvc(name, path="sklearn/missing.joblib"))
    failure = cluster.wait_failed(name)
    assert failure["reason"]
    assert "sklearn/missing.joblib" in failure["message"]
    assert cluster.condition(name) == "False"
    cluster.apply(isvc(name, path=PATH))
    cluster.wait_ready(name)
    assert cluster.infer(name).outputs[0].contents.int64_contents[0] == 8


def test_an_unknown_storage_key_is_named(cluster: Machine, name: str) -> None:
    cluster.apply(isvc(name, path=PATH, key="nowhere"))
    failure = cluster.wait_failed(name)
    assert "nowhere" in failure["message"]
    cluster.apply(isvc(name, path=PATH))
    cluster.wait_ready(name)


def test_an_unknown_format_is_named(cluster: Machine, name: str) -> None:
    cluster.apply(isvc(name, path=PATH, model_format="abacus"))

    def info() -> dict[str, str]:
        return cluster.isvc(name).get("modelStatus", {}).get("lastFailureInfo", {})

    until(info, "the failure to be shown")
    assert info()["reason"] == "NoSupportingRuntime"
    assert "No ServingRuntime supports specified model type" in info()["message"]
    assert cluster.condition(name) == "False"
    cluster.apply(isvc(name, path=PATH))
    cluster.wait_ready(name)


def test_a_corrupt_file_is_reported_and_other_models_go_on(digits: Machine, name: str) -> None:
    digits.put("sklearn/corrupt.joblib", b"this is not a model")
    digits.apply(isvc(name, path="sklearn/corrupt.joblib"))
    before = digits.container_pid("mlserver")
    failure = digits.wait_failed(name)
    assert failure["reason"] == "ModelLoadFailed"
    assert "MLServer" in failure["message"]
    assert digits.infer("digits").outputs[0].contents.int64_contents[0] == 8
    assert digits.container_pid("mlserver") == before
    digits.apply(isvc(name, path=PATH))
    digits.wait_ready(name)


def test_a_wrong_shape_gets_the_servers_code_and_message_on_both_protocols(digits: Machine) -> None:
    with pytest.raises(grpc.RpcError) as directly:
        digits.infer("digits__isvc-6b2eb0b8bf", [1.0, 2.0, 3.0], port=digits.server_port())
    with pytest.raises(grpc.RpcError) as caught:
        digits.infer("digits", [1.0, 2.0, 3.0])
    assert "64 features" in directly.value.details()
    assert (caught.value.code(), caught.value.details()) == (directly.value.code(), directly.value.details())
    answer = digits.infer_rest("digits", [1.0, 2.0, 3.0])
    assert (answer.status_code, answer.json()["error"]) == (500, directly.value.details())


def test_an_unknown_model_is_not_found_on_both_protocols(digits: Machine) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        digits.infer("nobody")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    answer = digits.infer_rest("nobody")
    assert answer.status_code == 404
    assert answer.json()["error"] == caught.value.details() == "vmodel not found: nobody"


def test_an_oversized_request_is_refused_on_both_protocols(digits: Machine) -> None:
    pixels = [1.0] * (5 * 1024 * 1024)
    with pytest.raises(grpc.RpcError) as caught:
        digits.infer("digits", pixels)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert digits.infer_rest("digits", pixels).status_code == 413
    assert digits.infer("digits").outputs[0].contents.int64_contents[0] == 8
