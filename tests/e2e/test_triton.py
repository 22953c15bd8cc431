"""Local mode with Triton beside MLServer: an ONNX model and a Python model, by gRPC and REST."""

from __future__ import annotations

import base64
import json
import struct
from typing import TYPE_CHECKING

import grpc
import httpx
import obstore
import pytest
from obstore.store import S3Store

from api.proto import kfs_inference_v2_pb2 as v2
from api.proto import kfs_inference_v2_pb2_grpc as v2_grpc
from local.manifests import ACCESS_KEY, BUCKET, SECRET_KEY
from tests.adapters.triton_models import OBJECTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import Machine


def isvc(name: str, model_format: str, path: str, **model: str) -> str:
    storage = {"key": "localMinIO", "path": path}
    manifest = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "annotations": {"serving.kserve.io/deploymentMode": "ModelMesh"}},
        "spec": {
            "predictor": {"model": {"modelFormat": {"name": model_format}, "storage": storage, **model}}
        },
    }
    return json.dumps(manifest)


@pytest.fixture
def triton(machine: Machine) -> Machine:
    """A cluster with both runtimes and the models in its bucket."""
    machine.local("up", "--detach", "--runtimes", "mlserver,triton", "--no-samples")
    store = S3Store(
        BUCKET,
        endpoint=machine.home.read_state().s3_endpoint,
        access_key_id=ACCESS_KEY,
        secret_access_key=SECRET_KEY,
        region="us-south",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )
    for key, content in OBJECTS.items():
        obstore.put(store, key, content)
    return machine


def test_an_onnx_and_a_python_model_answer_by_grpc_and_rest(triton: Machine) -> None:
    runtimes = triton.kubectl("get", "servingruntimes").stdout
    assert "tensorflow" in runtimes
    assert "sklearn" in runtimes
    # The first has to choose its runtime by its format, the second names it.
    triton.apply(isvc("relu", "onnx", "onnx/relu.onnx"))
    triton.apply(isvc("upper", "python", "python/upper", runtime="triton-2.x"))
    triton.wait_ready("relu")
    triton.wait_ready("upper")

    request = v2.ModelInferRequest(model_name="relu")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    tensor.contents.fp32_contents.extend([1, 2, 3, 4])
    with grpc.insecure_channel(f"127.0.0.1:{triton.grpc_port}") as channel:
        answer = v2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=60)
    assert struct.unpack("<3f", answer.raw_output_contents[0]) == (60, 70, 80)

    def requests() -> Iterator[v2.ModelInferRequest]:
        for number in range(3):
            request.inputs[0].contents.fp32_contents[:] = [number, 2, 3, 4]
            yield request

    with grpc.insecure_channel(f"127.0.0.1:{triton.grpc_port}") as channel:
        stream = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=v2.ModelInferRequest.SerializeToString,
        )
        answers = list(stream(requests(), timeout=60))
    # Each answer is a ModelStreamInferResponse, whose bytes end with the tensor's.
    assert [struct.unpack("<3f", answer[-12:]) for answer in answers] == [
        (60, 69, 78),
        (60, 70, 80),
        (60, 71, 82),
    ]

    def ask(model: str, **tensor: object) -> list[object]:
        url = f"http://127.0.0.1:{triton.rest_port}/v2/models/{model}/infer"
        done = httpx.post(url, json={"inputs": [tensor]}, timeout=60)
        assert done.status_code == 200, done.text
        data: list[object] = done.json()["outputs"][0]["data"]
        return data

    assert ask("relu", name="x", datatype="FP32", shape=[1, 4], data=[1, 2, 3, 4]) == [60, 70, 80]
    (text,) = ask("upper", name="text", datatype="BYTES", shape=[1, 1], data=["models"])
    assert base64.b64decode(str(text)) == b"MODELS"
