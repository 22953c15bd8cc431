"""Every format on every runtime that can run here, as InferenceService and as Predictor."""

from __future__ import annotations

import json
import struct
from base64 import b64decode
from typing import TYPE_CHECKING, Any

import pytest

from api.proto import tensorflow_serving_pb2 as tfs
from fvt import models as extra
from fvt.inference import EIGHT, Inference
from fvt.objects import LIGHTGBM, SKLEARN, XGBOOST, framework_isvc, isvc, predictor

if TYPE_CHECKING:
    from collections.abc import Callable

    from fvt.cluster import JSON, Cluster
    from fvt.models import Bucket

MLSERVER = [
    pytest.param("sklearn", "0", SKLEARN, EIGHT, id="sklearn"),
    pytest.param("xgboost", "1", XGBOOST, [0.5] * 30, id="xgboost"),
    pytest.param("lightgbm", "3", LIGHTGBM, [0.5] * 30, id="lightgbm"),
]
PIXELS = [0.0] * 784


def answers(inference: Inference, model: str, model_format: str, row: list[float]) -> None:
    """Ask by both protocols; the digit is an eight, and a tumour is benign with some probability."""
    by_grpc = inference.infer(model, row)
    by_rest = inference.rest_row(model, row)
    assert by_rest.status_code == 200, by_rest.text
    data = by_rest.json()["outputs"][0]["data"]
    concrete = by_rest.json()["model_name"]
    assert by_grpc.model_name == concrete
    assert concrete.startswith(f"{model}__")
    if model_format == "sklearn":
        assert data == list(by_grpc.outputs[0].contents.int64_contents) == [8]
    else:
        assert 0 <= data[0] <= 1


@pytest.mark.parametrize(("model_format", "version", "path", "row"), MLSERVER)
@pytest.mark.parametrize("with_version", [False, True], ids=["any", "version"])
def test_an_isvc_on_mlserver_answers(
    installed: Cluster,
    inference: Inference,
    name: str,
    needs: Callable[[str], None],
    model_format: str,
    version: str,
    path: str,
    row: list[float],
    *,
    with_version: bool,
) -> None:
    needs("mlserver")
    installed.apply(isvc(name, model_format, path, version=version if with_version else ""))
    installed.wait_ready("isvc", name)
    answers(inference, name, model_format, row)


@pytest.mark.parametrize(("model_format", "version", "path", "row"), MLSERVER)
def test_a_predictor_on_mlserver_answers(
    installed: Cluster,
    inference: Inference,
    name: str,
    needs: Callable[[str], None],
    model_format: str,
    version: str,
    path: str,
    row: list[float],
) -> None:
    needs("mlserver")
    installed.apply(predictor(name, model_format, path, version=version))
    status = installed.wait_ready("predictor", name)
    assert status["available"] is True
    assert status["grpcEndpoint"] == f"grpc://modelmesh-serving.{installed.namespace}:8033"
    assert status["httpEndpoint"] == f"http://modelmesh-serving.{installed.namespace}:8008"
    answers(inference, name, model_format, row)


@pytest.mark.parametrize(("model_format", "version", "path", "row"), MLSERVER)
def test_an_isvc_of_the_old_form_answers(
    installed: Cluster,
    inference: Inference,
    name: str,
    needs: Callable[[str], None],
    model_format: str,
    version: str,
    path: str,
    row: list[float],
) -> None:
    needs("mlserver")
    assert version
    installed.apply(framework_isvc(name, model_format, path))
    installed.wait_ready("isvc", name)
    answers(inference, name, model_format, row)


def test_the_ids_of_concrete_models_are_the_originals(
    installed: Cluster, inference: Inference, needs: Callable[[str], None]
) -> None:
    needs("mlserver")
    name = "example-sklearn-isvc"
    try:
        installed.apply(isvc(name))
        installed.wait_ready("isvc", name)
        assert inference.infer(name, EIGHT).model_name == f"{name}__isvc-6b2eb0b8bf"
    finally:
        installed.delete("isvc", name)


@pytest.mark.parametrize("kind", ["isvc", "predictor"])
@pytest.mark.parametrize("schema", ["", extra.SCHEMA], ids=["", "with-schema"])
def test_an_onnx_model_on_triton_answers(
    installed: Cluster,
    models: Bucket,
    inference: Inference,
    name: str,
    needs: Callable[[str], None],
    kind: str,
    schema: str,
) -> None:
    needs("triton")
    assert models
    make = isvc if kind == "isvc" else predictor
    installed.apply(make(name, "onnx", extra.RELU, schema=schema))
    installed.wait_ready(kind, name)
    answer = inference.infer(name, [1.0, 2.0, 3.0, 4.0], tensor="x")
    assert struct.unpack("<3f", answer.raw_output_contents[0]) == (60, 70, 80)
    assert inference.rest_row(name, [1.0, 2.0, 3.0, 4.0], "x").json()["outputs"][0]["data"] == [60, 70, 80]


def test_a_python_model_on_the_runtime_it_names_answers(
    installed: Cluster, models: Bucket, inference: Inference, name: str, needs: Callable[[str], None]
) -> None:
    needs("triton")
    assert models
    installed.apply(isvc(name, "python", extra.UPPER, runtime="triton-2.x"))
    installed.wait_ready("isvc", name)
    tensor = {"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": ["loud"]}
    (text,) = inference.rest(name, tensor).json()["outputs"][0]["data"]
    assert b64decode(text) == b"LOUD"


def test_the_metadata_of_an_onnx_model_names_its_tensors(
    installed: Cluster, models: Bucket, inference: Inference, name: str, needs: Callable[[str], None]
) -> None:
    needs("triton")
    assert models
    installed.apply(isvc(name, "onnx", extra.RELU))
    installed.wait_ready("isvc", name)
    found = inference.metadata(name)
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in found.inputs] == [
        ("x", "FP32", [-1, 4])
    ]
    assert [(tensor.name, list(tensor.shape)) for tensor in found.outputs] == [("y", [-1, 3])]


@pytest.mark.parametrize(
    ("model_format", "path"), [("xgboost", "xgboost/mushroom.json"), ("lightgbm", "lightgbm/mushroom.bst")]
)
def test_the_originals_mushrooms_are_told_from_poison(
    installed: Cluster,
    inference: Inference,
    name: str,
    needs: Callable[[str], None],
    model_format: str,
    path: str,
) -> None:
    needs("mlserver")
    installed.apply(isvc(name, model_format, path))
    installed.wait_ready("isvc", name)
    answer = inference.rest_row(name, [0.0] * 126)
    assert answer.status_code == 200, answer.text
    assert 0 <= answer.json()["outputs"][0]["data"][0] <= 1


def test_the_originals_onnx_digits_on_triton_answer(
    installed: Cluster, inference: Inference, name: str, needs: Callable[[str], None]
) -> None:
    needs("triton")
    installed.apply(isvc(name, "onnx", "onnx/mnist.onnx"))
    installed.wait_ready("isvc", name)
    picture = {"name": "Input3", "shape": [1, 1, 28, 28], "datatype": "FP32", "data": PIXELS}
    answer = inference.rest(name, picture)
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"][0]["shape"] == [1, 10]


def test_a_file_of_keras_on_triton_answers_as_keras_did(
    installed: Cluster, models: Bucket, inference: Inference, name: str, needs: Callable[[str], None]
) -> None:
    needs("triton")
    assert models
    asked = json.loads((extra.KERAS_FILES / "answers.json").read_text())["images-2"]
    installed.apply(isvc(name, "keras", extra.KERAS))
    installed.wait_ready("isvc", name)
    tensors = [_tensor(tensor, values) for tensor, values in asked["inputs"].items()]
    answer = inference.rest(name, *tensors)
    assert answer.status_code == 200, answer.text
    outputs = {output["name"]: output["data"] for output in answer.json()["outputs"]}
    assert outputs == {
        output: pytest.approx(_tensor(output, values)["data"], abs=1e-5)
        for output, values in asked["outputs"].items()
    }


def _tensor(name: str, values: Any) -> JSON:
    """Return nested lists as a tensor of the V2 protocol."""
    shape = [len(values)]
    while isinstance(values[0], list):
        shape.append(len(values[0]))
        values = [each for value in values for each in value]
    return {"name": name, "datatype": "FP32", "shape": shape, "data": values}


@pytest.mark.parametrize(
    ("model_format", "path", "runtime"),
    [("openvino_ir", "openvino/mnist", ""), ("onnx", "onnx/mnist.onnx", "ovms-1.x")],
    ids=["ir", "onnx"],
)
def test_a_model_on_openvinos_server_answers_as_tensorflow_serving_and_v2(
    installed: Cluster,
    inference: Inference,
    name: str,
    needs: Callable[[str], None],
    model_format: str,
    path: str,
    runtime: str,
) -> None:
    """On the native cluster the server is a stand-in around the real OpenVINO."""
    needs("ovms")
    installed.apply(isvc(name, model_format, path, runtime=runtime))
    installed.wait_ready("isvc", name)
    request = tfs.PredictRequest()
    request.model_spec.name = name
    tensor = request.inputs["Input3"]
    tensor.dtype = tfs.DT_FLOAT
    for size in (1, 1, 28, 28):
        tensor.tensor_shape.dim.add(size=size)
    tensor.float_val.extend(PIXELS)
    raw = inference.call("/tensorflow.serving.PredictionService/Predict", request.SerializeToString())
    (output,) = tfs.PredictResponse.FromString(raw).outputs.values()
    assert [dim.size for dim in output.tensor_shape.dim] == [1, 10]


def test_an_archive_on_torchserve_answers(
    installed: Cluster, inference: Inference, name: str, needs: Callable[[str], None]
) -> None:
    needs("torchserve")
    installed.apply(isvc(name, "pytorch-mar", "pytorch-mar/mnist.mar"))
    installed.wait_ready("isvc", name)
    entry = _field(1, b"data") + _field(2, str(PIXELS).encode())
    request = _field(1, name.encode()) + _field(3, entry)
    answer = inference.call("/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions", request)
    # PredictionResponse has one field: what the handler gave, as bytes.
    assert answer[0] == _field(1, b"")[0]
    assert 0 <= int(answer[2:]) <= 9


def _field(number: int, content: bytes) -> bytes:
    """Return a field of a protobuf message: bytes, a text, or a message."""
    size, varint = len(content), b""
    while size > 127:
        varint += bytes([size % 128 + 128])
        size //= 128
    return bytes([number * 8 + 2]) + varint + bytes([size]) + content
