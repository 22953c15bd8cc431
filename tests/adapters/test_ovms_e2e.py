"""The OpenVINO adapter with the STAND-IN for the server, over the real OpenVINO, and a real S3 server."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import obstore
import pytest

from adapters.ovms import OpenVINOAdapter
from api.proto import tensorflow_serving_pb2 as tfs
from api.proto.kfs_inference_v2_pb2 import ModelInferRequest, ModelMetadataRequest
from api.proto.kfs_inference_v2_pb2_grpc import GRPCInferenceServiceStub
from api.proto.model_runtime_pb2 import RuntimeStatusResponse
from api.proto.tensorflow_serving_pb2_grpc import PredictionServiceStub
from tests.adapters import openvino_models
from tests.adapters.servers import refused
from tests.adapters.triton_models import RELU_ONNX

pytestmark = pytest.mark.e2e

CONFIG = "model_config_list.json"
ROWS, ANSWER = [1.0, 2.0, 3.0, 4.0, -1.0, -1.0, -1.0, -1.0], [60, 70, 80, 0, 0, 0]


@pytest.fixture(scope="session")
def _stored(s3: Any, ovms_environment: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    ir = openvino_models.make(ovms_environment, tmp_path_factory.mktemp("ir"))
    assert set(ir) == {"relu.xml", "relu.bin"}
    objects = {
        **{f"ir/{name}": content for name, content in ir.items()},
        **{f"versions/{number}/{name}": content for number in (1, 7) for name, content in ir.items()},
        **{f"mapped/{name}": content for name, content in ir.items()},
        "mapped/mapping_config.json": b'{"inputs": {"x": "pixels"}, "outputs": {"y": "digit"}}',
        "half/relu.xml": ir["relu.xml"],
        "corrupt/relu.xml": b"<net",
        "net.onnx": RELU_ONNX,
    }
    for key, content in objects.items():
        obstore.put(s3.store(), f"ovms/{key}", content)


@pytest.fixture
async def adapter(
    run_adapter: Callable[..., Any], ovms_root: Path, ovms_server: Any, s3: Any, _stored: None
) -> AsyncIterator[Any]:
    variables = ovms_server.adapter_variables(ovms_root, s3.entry())
    async with run_adapter(OpenVINOAdapter, ovms_root, **variables) as running:
        await running.mesh.ready()
        yield running


@pytest.fixture
async def channel(ovms_server: Any) -> AsyncIterator[Any]:
    async with ovms_server.channel() as open_channel:
        yield open_channel


def load(adapter: Any, model_id: str, path: str, kind: str = "openvino_ir") -> Any:
    return adapter.mesh.load(model_id, f"ovms/{path}", storage_key="localMinIO", model_type={"name": kind})


async def v2(channel: Any, model_id: str, name: str = "x") -> list[float]:
    request = ModelInferRequest(model_name=model_id)
    request.inputs.add(name=name, datatype="FP32", shape=[2, 4]).contents.fp32_contents.extend(ROWS)
    answer = await GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=20)
    assert (answer.model_name, list(answer.outputs[0].shape)) == (model_id, [2, 3])
    return list(struct.unpack("<6f", answer.raw_output_contents[0]))


async def predict(channel: Any, model_id: str) -> list[float]:
    request = tfs.PredictRequest()
    request.model_spec.name = model_id
    tensor = request.inputs["x"]
    tensor.dtype = tfs.DT_FLOAT
    for size in (2, 4):
        tensor.tensor_shape.dim.add(size=size)
    tensor.float_val.extend(ROWS)
    answer = await PredictionServiceStub(channel).Predict(request, timeout=20)
    assert answer.model_spec.name == model_id
    return list(struct.unpack("<6f", answer.outputs["y"].tensor_content))


def status(server: Any) -> dict[str, list[str]]:
    models = httpx.get(f"http://127.0.0.1:{server.http_port}/v1/config").json()
    return {
        name: [version["state"] for version in model["model_version_status"]]
        for name, model in models.items()
        if any(version["state"] != "END" for version in model["model_version_status"])
    }


@pytest.mark.parametrize(
    ("path", "kind", "version"),
    [("ir", "openvino_ir", "1"), ("versions", "openvino_ir", "7"), ("net.onnx", "onnx", "1")],
)
async def test_models_answer_by_v2_and_tfs_and_leave_nothing(
    adapter: Any, channel: Any, ovms_server: Any, path: str, kind: str, version: str
) -> None:
    assert (await load(adapter, "relu__isvc-1", path, kind)).sizeInBytes > 0
    assert await v2(channel, "relu__isvc-1") == ANSWER
    assert await predict(channel, "relu__isvc-1") == ANSWER
    metadata = await GRPCInferenceServiceStub(channel).ModelMetadata(
        ModelMetadataRequest(name="relu__isvc-1"), timeout=20
    )
    assert list(metadata.versions) == [version]
    assert [(each.name, each.datatype, list(each.shape)) for each in metadata.inputs] == [
        ("x", "FP32", [-1, 4])
    ]
    await adapter.mesh.unload("relu__isvc-1")
    assert status(ovms_server) == {}
    assert adapter.files() == [CONFIG]
    for ask in (v2, predict):
        code, message = await refused(ask(channel, "relu__isvc-1"))
        assert (code, message) == (grpc.StatusCode.NOT_FOUND, "Model with requested version is retired")


async def test_a_mapping_beside_the_model_names_its_tensors(adapter: Any, channel: Any) -> None:
    await load(adapter, "m", "mapped")
    assert await v2(channel, "m", "pixels") == ANSWER
    assert (await refused(v2(channel, "m", "x")))[0] is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("path", ["corrupt", "half"])
async def test_a_model_that_cannot_be_read_leaves_its_neighbours_and_nothing_else(
    adapter: Any, channel: Any, ovms_server: Any, path: str
) -> None:
    await load(adapter, "good", "ir")
    code, message = await refused(load(adapter, "bad", path))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    # OpenVINO Model Server tells no reason by its API.
    assert message == (
        f"OpenVINO Model Server could not load {path} as a model of type openvino_ir (is it whole, and of "
        "this type?): UNKNOWN; its log says why"
    )
    assert status(ovms_server) == {"good": ["AVAILABLE"]}
    assert await v2(channel, "good") == ANSWER
    assert not [name for name in adapter.files() if "bad" in name]


async def test_models_of_the_same_files_live_beside_each_other(
    adapter: Any, channel: Any, ovms_server: Any
) -> None:
    names = [f"same__isvc-{number}" for number in range(20)]
    await asyncio.gather(*(load(adapter, name, "ir") for name in names))
    await adapter.mesh.unload(names[0])
    assert status(ovms_server) == {name: ["AVAILABLE"] for name in names[1:]}
    assert await predict(channel, names[1]) == ANSWER


async def test_a_server_that_was_killed_comes_back_empty_and_loads_again(
    adapter: Any, channel: Any, ovms_server: Any
) -> None:
    await load(adapter, "m", "ir")
    ovms_server.kill()
    async with asyncio.timeout(30):
        while (await adapter.mesh.status()).status != RuntimeStatusResponse.STARTING:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    waiting = asyncio.ensure_future(load(adapter, "m", "ir"))
    await asyncio.to_thread(ovms_server.serving)
    await adapter.mesh.ready()
    await waiting
    assert status(ovms_server) == {"m": ["AVAILABLE"]}
    assert await v2(channel, "m") == ANSWER
