"""The Triton adapter with a real Triton and a real S3 server."""

import asyncio
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import obstore
import pytest

from adapters.triton import TritonAdapter
from api.proto.kfs_inference_v2_pb2 import ModelInferRequest
from api.proto.kfs_inference_v2_pb2_grpc import GRPCInferenceServiceStub
from api.proto.model_runtime_pb2 import RuntimeStatusResponse
from tests.adapters.servers import held, refused
from tests.adapters.triton_models import OBJECTS

pytestmark = pytest.mark.e2e

STARTING = RuntimeStatusResponse.STARTING
FOLDER = "_triton_models"
KERAS = Path(__file__).with_name("keras_files")


@pytest.fixture(scope="session")
def _stored(s3: Any) -> None:
    for key, content in OBJECTS.items():
        obstore.put(s3.store(), f"triton/{key}", content)
    for file in KERAS.glob("*.h5"):
        obstore.put(s3.store(), f"triton/keras/{file.name}", file.read_bytes())


@pytest.fixture
def environment(s3: Any, _stored: None, triton_root: Path, triton: Any) -> dict[str, str]:
    """The adapter's environment variables."""
    variables: dict[str, str] = triton.adapter_variables(triton_root, s3.entry())
    return variables


@pytest.fixture
async def adapter(
    run_adapter: Callable[..., Any], triton_root: Path, environment: dict[str, str]
) -> AsyncIterator[Any]:
    async with run_adapter(TritonAdapter, triton_root, **environment) as running:
        await running.mesh.ready()
        yield running


@pytest.fixture
async def inference(triton: Any) -> AsyncIterator[Any]:
    """Triton's own gRPC port, as the data path uses it."""
    async with triton.channel() as channel:
        yield GRPCInferenceServiceStub(channel)


def load(adapter: Any, model_id: str, path: str, kind: str, **key: Any) -> Any:
    where = f"triton/{path}"
    return adapter.mesh.load(model_id, where, storage_key="localMinIO", model_type={"name": kind}, **key)


async def relu(inference: Any, model_id: str, rows: list[list[float]]) -> list[float]:
    request = ModelInferRequest(model_name=model_id)
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[len(rows), 4])
    tensor.contents.fp32_contents.extend(value for row in rows for value in row)
    (content,) = (await inference.ModelInfer(request, timeout=20)).raw_output_contents
    return list(struct.unpack(f"<{len(content) // 4}f", content))


async def upper(inference: Any, model_id: str, text: bytes) -> bytes:
    request = ModelInferRequest(model_name=model_id)
    tensor = request.inputs.add(name="text", datatype="BYTES", shape=[1, 1])
    tensor.contents.bytes_contents.append(text)
    response = await inference.ModelInfer(request, timeout=20)
    assert response.model_name == model_id
    return bytes(response.raw_output_contents[0][4:])


async def laid_out(adapter: Any, model_id: str) -> None:
    async with asyncio.timeout(30):
        while not (adapter.settings.root / FOLDER / model_id / "config.pbtxt").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("onnx/relu.onnx", {}),
        ("versions", {}),
        ("onnx/relu.onnx", {"schema_path": "triton/schema.json"}),
    ],
)
async def test_onnx_models_answer_and_leave_nothing(
    adapter: Any, inference: Any, path: str, key: dict[str, str]
) -> None:
    assert (await load(adapter, "relu__isvc-1", path, "onnx", **key)).sizeInBytes > 0
    assert await relu(inference, "relu__isvc-1", [[1, 2, 3, 4], [-1, -1, -1, -1]]) == [60, 70, 80, 0, 0, 0]
    await adapter.mesh.unload("relu__isvc-1")
    assert await held(inference) == []
    assert adapter.files() == []
    code, message = await refused(relu(inference, "relu__isvc-1", [[1, 2, 3, 4]]))
    assert code is grpc.StatusCode.NOT_FOUND  # what the mesh recognises
    assert "relu__isvc-1" in message


@pytest.mark.parametrize("name", ["images-2", "images-3", "branches-2", "branches-3"])
async def test_files_of_keras_answer_as_keras_did(adapter: Any, inference: Any, name: str) -> None:
    asked = json.loads((KERAS / "answers.json").read_text())[name]
    await load(adapter, "m", f"keras/{name}.h5", "keras")
    request = ModelInferRequest(model_name="m")
    for tensor, values in asked["inputs"].items():
        given = request.inputs.add(name=tensor, datatype="FP32", shape=shape(values))
        given.contents.fp32_contents.extend(flat(values))
    answer = await inference.ModelInfer(request, timeout=20)
    assert {output.name for output in answer.outputs} == set(asked["outputs"])
    for output, content in zip(answer.outputs, answer.raw_output_contents, strict=True):
        expected = asked["outputs"][output.name]
        assert list(output.shape) == shape(expected)
        got = struct.unpack(f"<{len(content) // 4}f", content)
        assert got == pytest.approx(flat(expected), abs=1e-6)
    await adapter.mesh.unload("m")
    assert adapter.files() == []


def shape(values: Any) -> list[int]:
    return [len(values), *shape(values[0])] if isinstance(values, list) else []


def flat(values: Any) -> list[float]:
    return [each for value in values for each in flat(value)] if isinstance(values, list) else [values]


async def test_a_native_repository_with_a_python_model_answers_under_the_id_of_the_mesh(
    adapter: Any, inference: Any
) -> None:
    await load(adapter, "upper__isvc-1", "python/upper", "python")
    assert await upper(inference, "upper__isvc-1", b"models") == b"MODELS"
    await adapter.mesh.unload("upper__isvc-1")
    assert await held(inference) == []


async def test_models_of_one_author_live_beside_each_other(adapter: Any, inference: Any) -> None:
    calls = [load(adapter, f"upper-{number}", "python/upper", "python") for number in range(2)]
    await asyncio.gather(*calls)
    assert await held(inference) == ["upper-0", "upper-1"]
    await adapter.mesh.unload("upper-0")
    assert await upper(inference, "upper-1", b"stays") == b"STAYS"
    await adapter.mesh.unload("upper-1")


async def test_the_version_is_tritons(adapter: Any) -> None:
    assert (await adapter.mesh.status()).runtimeVersion == "2.51.0"


@pytest.mark.parametrize(
    ("path", "kind", "code", "message"),
    [
        ("onnx/corrupt.onnx", "onnx", grpc.StatusCode.INVALID_ARGUMENT, "could not load corrupt.onnx as a"),
        ("onnx/relu.onnx", "tensorrt", grpc.StatusCode.INVALID_ARGUMENT, "unable to find backend library"),
        ("python/broken", "python", grpc.StatusCode.INVALID_ARGUMENT, "config.pbtxt cannot be read: line 1"),
        ("absent", "onnx", grpc.StatusCode.NOT_FOUND, "no object at s3://models/triton/absent"),
    ],
)
async def test_a_model_that_cannot_be_loaded_says_why_and_leaves_nothing(
    adapter: Any, inference: Any, path: str, kind: str, code: grpc.StatusCode, message: str
) -> None:
    got, details = await refused(load(adapter, "m", path, kind))
    assert message in details
    assert got is code
    assert await held(inference) == []
    assert adapter.files() == []


async def test_a_cancelled_load_and_its_unload_leave_nothing(adapter: Any, inference: Any) -> None:
    call = load(adapter, "slow", "python/slow", "python")
    await laid_out(adapter, "slow")
    call.cancel()
    await adapter.mesh.unload("slow")
    assert await held(inference) == []
    assert adapter.files() == []


async def test_triton_killed_with_models_is_noticed_and_loads_again(
    adapter: Any, inference: Any, triton: Any
) -> None:
    await load(adapter, "m", "python/upper", "python")
    triton.kill()
    async with asyncio.timeout(10):
        while (await adapter.mesh.status()).status != STARTING:  # noqa: ASYNC110 - the SPI is polled
            await asyncio.sleep(0.01)
    triton.start()
    await adapter.mesh.ready()
    assert await held(inference) == []
    assert adapter.files() == []
    await load(adapter, "m", "python/upper", "python")
    assert await upper(inference, "m", b"again") == b"AGAIN"
    await adapter.mesh.unload("m")


async def test_triton_killed_during_a_load_loads_after_its_restart(
    adapter: Any, inference: Any, triton: Any
) -> None:
    call = asyncio.ensure_future(load(adapter, "slow", "python/slow", "python"))
    await laid_out(adapter, "slow")
    triton.kill()
    triton.start()
    await call
    assert await held(inference) == ["slow"]
    await adapter.mesh.ready()
    await adapter.mesh.unload("slow")


async def test_an_adapter_killed_during_a_load_leaves_nothing_to_the_next(
    environment: dict[str, str], future_mesh: Any, inference: Any, triton_root: Path, tmp_path: Path
) -> None:
    port, mesh = future_mesh
    variables = environment | {
        "ADAPTER_PORT": str(port),
        "CONTAINER_MEM_REQ_BYTES": str(1 << 30),
        "ROOT_MODEL_DIR": str(triton_root / "models"),
        "STORAGE_CONFIG_DIR": str(triton_root / "storage-config"),
    }
    folder = triton_root / "models" / FOLDER

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "modelmesh", "adapter", "triton"]
        with (tmp_path / "log").open("ab") as log:
            return subprocess.Popen(command, env=os.environ | variables, stderr=log)

    first = start()
    try:
        await mesh.ready()
        key = {"storage_key": "localMinIO", "model_type": {"name": "python"}}
        call = asyncio.ensure_future(mesh.load("slow", "triton/python/slow", **key))
        async with asyncio.timeout(30):
            while not (folder / "slow" / "config.pbtxt").exists():  # noqa: ASYNC110 - a file has no event
                await asyncio.sleep(0.01)
    finally:
        first.kill()
        first.wait()
    await refused(call)
    second = start()
    try:
        await mesh.ready()
        assert list(folder.iterdir()) == []
        await mesh.load("slow", "triton/python/upper", **key)
        assert await upper(inference, "slow", b"new") == b"NEW"
        await mesh.unload("slow")
        assert await held(inference) == []
        second.send_signal(signal.SIGTERM)
        assert second.wait(10) == 0
    finally:
        second.kill()
        second.wait()
