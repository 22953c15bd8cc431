"""Local mode with the STAND-IN for OpenVINO Model Server: an IR by V2, REST and TensorFlow Serving's API."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest

from api.proto import kfs_inference_v2_pb2 as v2
from api.proto import kfs_inference_v2_pb2_grpc as v2_grpc
from api.proto import tensorflow_serving_pb2 as tfs
from api.proto import tensorflow_serving_pb2_grpc as tfs_grpc
from local import environments
from tests.adapters import openvino_models
from tests.e2e.conftest import isvc

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import Machine

DIGITS, ANSWER = [1.0, 2.0, 3.0, 4.0], (60, 70, 80)


@pytest.fixture
def ovms(machine: Machine, tmp_path: Path) -> Machine:
    """A cluster with the runtime, and an IR in its bucket."""
    machine.local("up", "--detach", "--runtimes", "ovms", "--no-samples")
    environment = environments.ensure("ovms", machine.home.environments)
    for name, content in openvino_models.make(environment, tmp_path / "ir").items():
        machine.put(f"openvino/relu/{name}", content)
    return machine


def test_an_ir_answers_by_v2_rest_and_tfs(ovms: Machine) -> None:
    assert "openvino_ir" in ovms.kubectl("get", "servingruntimes").stdout
    ovms.apply(isvc("relu", path="openvino/relu", model_format="openvino_ir"))
    ovms.wait_ready("relu")

    prediction = tfs.PredictRequest()
    prediction.model_spec.name = "relu"
    tensor = prediction.inputs["x"]
    tensor.dtype = tfs.DT_FLOAT
    for size in (1, 4):
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = struct.pack("<4f", *DIGITS)
    request = v2.ModelInferRequest(model_name="relu")
    given = request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    given.contents.fp32_contents.extend(DIGITS)
    with grpc.insecure_channel(f"127.0.0.1:{ovms.grpc_port}") as channel:
        predicted = tfs_grpc.PredictionServiceStub(channel).Predict(prediction, timeout=60)
        answer = v2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=60)
        prediction.model_spec.name = "absent"
        with pytest.raises(grpc.RpcError) as raised:
            tfs_grpc.PredictionServiceStub(channel).Predict(prediction, timeout=60)
    assert struct.unpack("<3f", predicted.outputs["y"].tensor_content) == ANSWER
    assert predicted.model_spec.name.startswith("relu__isvc-")
    assert struct.unpack("<3f", answer.raw_output_contents[0]) == ANSWER
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]

    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": DIGITS}]}
    done = httpx.post(f"http://127.0.0.1:{ovms.rest_port}/v2/models/relu/infer", json=body, timeout=60)
    assert done.status_code == 200, done.text
    assert done.json()["outputs"][0]["data"] == list(ANSWER)
