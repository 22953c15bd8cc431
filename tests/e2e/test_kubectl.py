"""What `kubectl` shows and does, against the API server of a running cluster."""

import json
import subprocess
import time

import pytest
import yaml

from tests.e2e.conftest import Machine, isvc, until


def test_the_pods_of_the_tutorial_run(digits: Machine) -> None:
    rows = [line.split() for line in digits.kubectl("get", "pods").stdout.splitlines()]
    assert rows[0] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    pods = {row[0]: row[1:3] for row in rows[1:]}
    assert pods["etcd"] == pods["minio"] == ["1/1", "Running"]
    assert any(name.startswith("modelmesh-controller-") for name in pods)
    serving = [name for name in pods if name.startswith("modelmesh-serving-mlserver-1.x-")]
    assert len(serving) == 1
    assert pods[serving[0]] == ["3/3", "Running"]


@pytest.mark.parametrize(
    "resource",
    ["isvc", "inferenceservices", "predictors", "servingruntimes", "pods", "deployments", "events"],
)
@pytest.mark.parametrize("output", ["wide", "yaml", "name"])
def test_resources_can_be_listed_in_every_form(digits: Machine, resource: str, output: str) -> None:
    found = digits.kubectl("get", resource, "-o", output).stdout
    if output == "yaml":
        assert yaml.safe_load(found)["kind"] == "List"
    elif resource != "predictors":
        assert len(found.splitlines()) >= 1


def test_the_columns_of_an_inference_service_are_kserves(digits: Machine) -> None:
    header, row = digits.kubectl("get", "isvc", "digits").stdout.splitlines()
    assert header.split() == [
        "NAME",
        "URL",
        "READY",
        "PREV",
        "LATEST",
        "PREVROLLEDOUTREVISION",
        "LATESTREADYREVISION",
        "AGE",
    ]
    assert row.split()[:3] == ["digits", "grpc://modelmesh-serving.modelmesh-serving:8033", "True"]


def test_describe_shows_components_conditions_and_model_status(digits: Machine) -> None:
    text = " ".join(digits.kubectl("describe", "isvc", "digits").stdout.split())
    for part in (
        "Grpc URL: grpc://modelmesh-serving.modelmesh-serving:8033",
        "Rest URL: http://modelmesh-serving.modelmesh-serving:8008",
        "Type: PredictorReady",
        "Type: Ready",
        "Failed Copies: 0",
        "Total Copies: 1",
        "Active Model State: Loaded",
        "Transition Status: UpToDate",
    ):
        assert part in text


def test_describe_works_for_everything_that_runs(digits: Machine) -> None:
    for resource in ("pods", "deployments", "services", "servingruntimes", "configmaps", "secrets"):
        assert "Name:" in digits.kubectl("describe", resource).stdout


def test_logs_of_a_container_can_be_read(digits: Machine) -> None:
    pod = digits.get("pods", "-l", "modelmesh-service=modelmesh-serving")["items"][0]["metadata"]["name"]
    assert "mlserver" in digits.kubectl("logs", pod, "-c", "mlserver").stdout
    assert len(digits.kubectl("logs", pod, "-c", "mlserver", "--tail=2").stdout.splitlines()) == 2


def test_a_patch_changes_an_object(digits: Machine) -> None:
    digits.kubectl("label", "isvc", "digits", "team=a")
    assert digits.get("isvc", "-l", "team=a")["items"][0]["metadata"]["name"] == "digits"
    patch = json.dumps({"metadata": {"labels": {"team": None}}})
    digits.kubectl("patch", "isvc", "digits", "--type=merge", "-p", patch)
    assert digits.get("isvc", "-l", "team=a")["items"] == []
    operations = [{"op": "add", "path": "/metadata/annotations/note", "value": "x"}]
    digits.kubectl("patch", "isvc", "digits", "--type=json", "-p", json.dumps(operations))
    assert digits.get("isvc", "digits")["metadata"]["annotations"]["note"] == "x"


def test_applying_the_same_manifest_changes_nothing(digits: Machine) -> None:
    manifest = isvc("digits", path="sklearn/mnist-svm.joblib")
    digits.apply(manifest)
    assert digits.apply(manifest).strip().endswith("unchanged")


def test_a_watch_shows_a_model_becoming_ready(cluster: Machine, name: str) -> None:
    watch = subprocess.Popen(
        ["kubectl", "get", "isvc", "-w", "-o", 'jsonpath={.metadata.name} {.status.url}{"\\n"}'],
        env=cluster.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        cluster.apply(isvc(name, path="sklearn/mnist-svm.joblib"))
        assert watch.stdout is not None
        deadline = time.monotonic() + 60
        for line in watch.stdout:
            assert time.monotonic() < deadline
            if line.split() == [name, "grpc://modelmesh-serving.modelmesh-serving:8033"]:
                break
    finally:
        watch.kill()
        watch.communicate()


def test_a_deleted_model_is_gone_for_kubectl_and_clients(cluster: Machine, name: str) -> None:
    cluster.apply(isvc(name, path="sklearn/mnist-svm.joblib"))
    cluster.wait_ready(name)
    assert cluster.infer_rest(name).status_code == 200
    cluster.kubectl("delete", "isvc", name)
    assert cluster.kubectl("get", "isvc", name, check=False).returncode == 1
    until(lambda: cluster.infer_rest(name).status_code == 404, "the model to be gone")


@pytest.mark.parametrize(
    ("model_format", "path"),
    [("xgboost", "xgboost/breast-cancer.json"), ("lightgbm", "lightgbm/breast-cancer.bst")],
)
def test_the_other_formats_answer_too(cluster: Machine, name: str, model_format: str, path: str) -> None:
    cluster.apply(isvc(name, path=path, model_format=model_format))
    cluster.wait_ready(name)
    answer = cluster.infer_rest(name, [0.5] * 30)
    assert answer.status_code == 200, answer.text
    assert 0 <= answer.json()["outputs"][0]["data"][0] <= 1


def test_a_scaled_deployment_and_a_deleted_pod_come_back(digits: Machine) -> None:
    selector = ("-l", "modelmesh-service=modelmesh-serving")
    (pod,) = digits.get("pods", *selector)["items"]
    digits.kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=5")

    def replaced() -> bool:
        items = digits.get("pods", *selector)["items"]
        ready = [
            item for item in items if all(s["ready"] for s in item["status"].get("containerStatuses", []))
        ]
        return len(items) == len(ready) == 1 and items[0]["metadata"]["name"] != pod["metadata"]["name"]

    until(replaced, "another pod")
    until(lambda: digits.infer_rest("digits").status_code == 200, "the model to be served again")
