"""The adapters of Triton and OpenVINO keep the whole contract: minutes, by `make test-conformance` only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import obstore
import pytest

from adapters.ovms import OpenVINOAdapter
from adapters.triton import TritonAdapter
from modelmesh.conformance.inference import v2_request
from tests.adapters.test_conformance import model_at, not_passed
from tests.adapters.triton_models import OBJECTS, RELU_ONNX

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


async def test_the_triton_adapter_keeps_the_contract(
    s3: Any, triton: Any, triton_root: Path, run_adapter: Callable[..., Any]
) -> None:
    for key in ("python/upper/config.pbtxt", "python/upper/1/model.py"):
        obstore.put(s3.store(), f"conformance/{key}", OBJECTS[key])
    obstore.put(s3.store(), "conformance/broken.onnx", b"this is no ONNX")
    text = {"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": ["models"]}
    model = model_at("conformance/python/upper", "conformance/broken.onnx", "python")
    variables = triton.adapter_variables(triton_root, s3.entry()) | {
        "LIMIT_PER_MODEL_CONCURRENCY": "3",
        "LOADING_CONCURRENCY": "2",
    }
    async with run_adapter(TritonAdapter, triton_root, **variables) as adapter:
        assert await not_passed(adapter, triton, model, v2_request({"inputs": [text]})) == {}


async def test_the_openvino_adapter_keeps_the_contract_before_the_stand_in(
    s3: Any, ovms_server: Any, ovms_root: Path, run_adapter: Callable[..., Any]
) -> None:
    obstore.put(s3.store(), "conformance/relu.onnx", RELU_ONNX)
    obstore.put(s3.store(), "conformance/broken.onnx", b"this is no ONNX")
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
    model = model_at("conformance/relu.onnx", "conformance/broken.onnx", "onnx")
    variables = ovms_server.adapter_variables(ovms_root, s3.entry())
    async with run_adapter(OpenVINOAdapter, ovms_root, **variables) as adapter:
        others = await not_passed(adapter, ovms_server, model, v2_request({"inputs": [tensor]}))
    assert others == {"load-concurrency": "does not apply: limitModelConcurrency is not set"}
