"""Local mode with MLServer, Triton and TorchServe side by side: `make test-torchserve`, gigabytes of it."""

from __future__ import annotations

import struct

import grpc
import pytest

from api.proto import kfs_inference_v2_pb2 as v2
from api.proto import kfs_inference_v2_pb2_grpc as v2_grpc
from tests.adapters.torchserve_e2e import doubler, predictions
from tests.adapters.triton_models import RELU_ONNX
from tests.e2e.conftest import Machine, isvc

pytestmark = pytest.mark.timeout(600)


def test_three_model_servers_serve_side_by_side(machine: Machine) -> None:
    machine.local("up", "--detach", "--runtimes", "mlserver,triton,torchserve")
    machine.put("onnx/relu.onnx", RELU_ONNX)
    machine.put("torch/doubler.mar", doubler())
    machine.apply(isvc("digits", path="sklearn/mnist-svm.joblib"))
    machine.apply(isvc("relu", path="onnx/relu.onnx", model_format="onnx"))
    machine.apply(isvc("doubler", path="torch/doubler.mar", model_format="pytorch-mar"))
    for name in ("digits", "relu", "doubler"):
        machine.wait_ready(name)
    assert list(machine.infer("digits").outputs[0].contents.int64_contents) == [8]
    request = v2.ModelInferRequest(model_name="relu")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    tensor.contents.fp32_contents.extend([1, 2, 3, 4])
    with grpc.insecure_channel(f"127.0.0.1:{machine.grpc_port}") as channel:
        answer = v2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=60)
        assert struct.unpack("<3f", answer.raw_output_contents[0]) == (60, 70, 80)
        method, message = predictions("doubler", 21)
        assert b"42.0" in channel.unary_unary(method)(message, timeout=60)
