"""What the shipped runtimes promise: formats, labels and the first format, as users know them."""

from pathlib import Path

import pytest
import yaml

from api.v1alpha1 import ServingRuntime
from controller.labels import runtime_labels

RUNTIMES = Path(__file__).parent.parent.parent / "runtimes"

LABELS = {
    "mlserver-1.x": "mt:lightgbm mt:lightgbm:3 mt:sklearn mt:sklearn:0 mt:xgboost mt:xgboost:1 pv:grpc-v2",
    "ovms-1.x": "mt:openvino_ir mt:openvino_ir:opset1 pv:grpc-v1",
    "torchserve-0.x": "mt:pytorch-mar mt:pytorch-mar:0",
    "triton-2.x": "mt:keras mt:keras:2 mt:onnx mt:onnx:1 mt:pytorch mt:pytorch:1 mt:tensorflow "
    "mt:tensorflow:1 mt:tensorflow:2 mt:tensorrt mt:tensorrt:7 pv:grpc-v2",
}
FIRST = {
    "mlserver-1.x": "sklearn",
    "ovms-1.x": "openvino_ir",
    "torchserve-0.x": "pytorch-mar",
    "triton-2.x": "tensorflow",
}


def test_every_shipped_runtime_is_known_here() -> None:
    assert {file.stem for file in RUNTIMES.glob("*.yaml")} == set(LABELS)


@pytest.mark.parametrize("name", sorted(LABELS))
def test_a_runtime_has_the_labels_and_the_first_format_that_users_know(name: str) -> None:
    runtime = ServingRuntime.model_validate(yaml.safe_load((RUNTIMES / f"{name}.yaml").read_text()))
    assert runtime.metadata.name == name
    assert sorted(runtime_labels(name, runtime.spec, rest=False)) == [*LABELS[name].split(), f"rt:{name}"]
    assert runtime.spec.supported_model_formats[0].name == FIRST[name]
    assert runtime.metadata.labels == {"name": f"modelmesh-serving-{name}-SR"}


@pytest.mark.parametrize("path", sorted(RUNTIMES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_namespace_of_restricted_pods_takes_the_model_servers(path: Path) -> None:
    for container in yaml.safe_load(path.read_text())["spec"]["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["runAsNonRoot"] is True
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
