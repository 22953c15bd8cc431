"""An installation of KServe ModelMesh is replaced in place, and its users' objects stay as they are."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.v1alpha1 import Predictor, ServingRuntime
from api.v1beta1 import InferenceService
from controller import config
from tests.install import original
from tests.install.conftest import ROOT, Machine, Rollouts

pytestmark = [pytest.mark.e2e, pytest.mark.kube_server]

NAMESPACE = "modelmesh-serving"


def _apply(machine: Machine, folder: Path, objects: list[dict[str, Any]]) -> str:
    path = folder / "objects.json"
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    return machine.must("kubectl", "apply", "-n", NAMESPACE, "--validate=strict", "-f", str(path))


def _spec(machine: Machine, kind: str, name: str) -> Any:
    return json.loads(machine.must("kubectl", "get", kind, name, "-n", NAMESPACE, "-o", "json"))["spec"]


def test_it_replaces_the_original_and_takes_its_samples_unchanged(
    machine: Machine, rollouts: Callable[[], Rollouts], tmp_path: Path
) -> None:
    machine.must("kubectl", "create", "namespace", NAMESPACE)
    _apply(machine, tmp_path, [original.controller(), *original.settings()])
    with rollouts():
        machine.must("hack/install.sh", "--namespace", NAMESPACE)

    pod = _spec(machine, "deployment", "modelmesh-controller")["template"]["spec"]
    assert "affinity" not in pod
    assert pod["containers"][0]["image"].startswith("modelmesh/controller:")
    assert [volume["name"] for volume in pod["volumes"]] == ["config-defaults", "tmp"]
    secret = machine.must("kubectl", "get", "secret", "storage-config", "-n", NAMESPACE, "-o", "json")
    assert list(json.loads(secret)["data"]) == ["localMinIO", "ours"]

    runtimes = [
        yaml.safe_load(path.read_text())
        for path in sorted((ROOT / "tests" / "controller" / "golden" / "runtimes").glob("*.yaml"))
    ]
    samples = [
        *runtimes,
        *original.custom_runtimes(),
        *original.predictors(),
        *original.inference_services(),
    ]
    _apply(machine, tmp_path, samples)
    for sample in samples:
        kept = _spec(machine, sample["kind"], sample["metadata"]["name"])
        assert kept == sample["spec"]


@pytest.mark.parametrize(
    ("kind", "samples"),
    [
        (ServingRuntime, original.custom_runtimes()),
        (Predictor, original.predictors()),
        (InferenceService, original.inference_services()),
    ],
)
def test_the_controller_reads_all_of_the_samples(kind: Any, samples: list[dict[str, Any]]) -> None:
    for sample in samples:
        assert kind.parse(sample).dump()["spec"] == sample["spec"]


def test_the_configuration_of_the_original_is_read_and_what_it_cannot_steer_is_named() -> None:
    *_, config_map = original.settings()
    configuration = config.load((config.user_text(config_map), "model-serving-config"))
    assert configuration.pods_per_runtime == 2
    assert configuration.ignored == ("restProxy.image",)
