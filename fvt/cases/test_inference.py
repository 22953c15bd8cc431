"""What clients of the inference endpoints get, by V2 gRPC, REST and TensorFlow Serving's gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from api.proto import kfs_inference_v2_pb2 as v2
from fvt.inference import EIGHT, Inference
from fvt.objects import isvc

if TYPE_CHECKING:
    from collections.abc import Callable

    from fvt.cluster import Cluster

INFER = "/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture
def digits(installed: Cluster, name: str, needs: Callable[[str], None]) -> str:
    """The digit model, served."""
    needs("mlserver")
    installed.apply(isvc(name))
    installed.wait_ready("isvc", name)
    return name


def test_both_protocols_give_the_same_answer(digits: str, inference: Inference) -> None:
    by_grpc = inference.infer(digits, EIGHT)
    by_rest = inference.rest_row(digits, EIGHT).json()
    (output,) = by_rest["outputs"]
    assert by_rest["model_name"] == by_grpc.model_name
    assert (output["name"], output["datatype"]) == ("predict", by_grpc.outputs[0].datatype)
    assert output["shape"] == list(by_grpc.outputs[0].shape)
    assert output["data"] == list(by_grpc.outputs[0].contents.int64_contents) == [8]


def test_an_unknown_model_is_not_found_on_both_protocols(digits: str, inference: Inference) -> None:
    assert digits
    with pytest.raises(grpc.RpcError) as caught:
        inference.digit("nobody")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    answer = inference.rest_row("nobody", EIGHT)
    assert (answer.status_code, answer.json()["error"]) == (404, caught.value.details())


def test_a_wrong_shape_gets_the_servers_words_on_both_protocols(digits: str, inference: Inference) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        inference.infer(digits, [1.0, 2.0, 3.0])
    assert "64 features" in str(caught.value.details())
    answer = inference.rest_row(digits, [1.0, 2.0, 3.0])
    assert answer.status_code >= 400
    assert "64 features" in answer.json()["error"]
    assert inference.digit(digits) == 8


def test_a_broken_body_is_refused_by_rest(digits: str, inference: Inference) -> None:
    answer = inference.rest(digits, {"name": "predict", "shape": [1, 64], "datatype": "FP32"})
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_a_model_is_found_by_its_header(digits: str, inference: Inference) -> None:
    request = v2.ModelInferRequest(model_name=digits)
    row = request.inputs.add(name="predict", shape=[1, 64], datatype="FP32")
    row.contents.fp32_contents.extend(EIGHT)
    answer = inference.call(INFER, request.SerializeToString(), mm_vmodel_id=digits)
    assert list(v2.ModelInferResponse.FromString(answer).outputs[0].contents.int64_contents) == [8]


def test_the_metadata_of_a_model_is_told_on_both_protocols(digits: str, inference: Inference) -> None:
    by_grpc = inference.metadata(digits)
    answer = inference.rest_get(f"/v2/models/{digits}")
    assert answer.status_code == 200, answer.text
    assert answer.json()["name"] == by_grpc.name
    assert digits in by_grpc.name


def test_a_model_is_ready_by_rest(digits: str, inference: Inference) -> None:
    assert inference.rest_get(f"/v2/models/{digits}/ready").status_code == 200
    assert inference.rest_get("/v2/health/ready").status_code == 200
    assert inference.rest_get("/v2/health/live").status_code == 200


def test_a_request_above_the_limit_is_refused_and_the_next_one_served(
    digits: str, inference: Inference
) -> None:
    row = [1.0] * (5 * 1024 * 1024)
    with pytest.raises(grpc.RpcError) as caught:
        inference.infer(digits, row)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert inference.digit(digits) == 8
