"""The MLServer adapter with a real MLServer and a real S3 server."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import obstore
import psutil
import pytest

from adapters.mlserver import MLServerAdapter
from api.proto.kfs_inference_v2_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
)
from api.proto.kfs_inference_v2_pb2_grpc import GRPCInferenceServiceStub
from api.proto.model_runtime_pb2 import ModelSizeRequest, PredictModelSizeRequest, RuntimeStatusResponse
from tests.adapters.servers import held, refused

pytestmark = pytest.mark.e2e

READY = RuntimeStatusResponse.READY
STARTING = RuntimeStatusResponse.STARTING


@pytest.fixture(scope="session")
def answers(
    s3: Any, mlserver_environment: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, list[float]]]:
    """Trains the models, puts them into the bucket, and returns inputs and outputs."""
    folder = tmp_path_factory.mktemp("trained") / "models"
    train = Path(__file__).with_name("train.py")
    subprocess.run([str(mlserver_environment / "bin" / "python"), str(train), str(folder)], check=True)
    native = {
        "name": "someone-elses-name",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": "./svm.joblib", "version": "v7"},
    }
    (folder / "native").mkdir()
    (folder / "native" / "model-settings.json").write_text(json.dumps(native))
    (folder / "native" / "svm.joblib").write_bytes((folder / "sklearn" / "svm.joblib").read_bytes())
    (folder / "wellknown").mkdir()
    (folder / "wellknown" / "model.joblib").write_bytes((folder / "sklearn" / "svm.joblib").read_bytes())
    (folder / "sklearn" / "corrupt.joblib").write_bytes(b"this is no pickle")
    for file in folder.rglob("*"):
        if file.is_file():
            obstore.put(s3.store(), str(file.relative_to(folder)), file.read_bytes())
    result: dict[str, dict[str, list[float]]] = json.loads((folder / "answers.json").read_text())
    return result


@pytest.fixture
def environment(s3: Any, answers: Any, mlserver_root: Path, mlserver: Any) -> dict[str, str]:
    """The adapter's environment variables."""
    assert answers
    variables: dict[str, str] = mlserver.adapter_variables(mlserver_root, s3.entry())
    return variables


@pytest.fixture
async def adapter(
    run_adapter: Callable[..., Any], mlserver_root: Path, environment: dict[str, str]
) -> AsyncIterator[Any]:
    async with run_adapter(MLServerAdapter, mlserver_root, **environment) as running:
        await running.mesh.ready()
        yield running


@pytest.fixture
async def inference(mlserver: Any) -> AsyncIterator[Any]:
    """MLServer's own gRPC port, as the data path uses it."""
    async with mlserver.channel() as channel:
        yield GRPCInferenceServiceStub(channel)


def load(adapter: Any, model_id: str, path: str, kind: str, **key: Any) -> Any:
    return adapter.mesh.load(model_id, path, storage_key="localMinIO", model_type={"name": kind}, **key)


async def infer(inference: Any, model_id: str, values: list[float]) -> list[float]:
    request = ModelInferRequest(model_name=model_id)
    tensor = request.inputs.add(name="predict", datatype="FP32", shape=[1, len(values)])
    tensor.contents.fp32_contents.extend(values)
    response: ModelInferResponse = await inference.ModelInfer(request, timeout=20)
    assert response.model_name == model_id
    contents = response.outputs[0].contents
    return [*contents.int64_contents, *contents.fp32_contents, *contents.fp64_contents]


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("sklearn", "sklearn/svm.joblib"),
        ("xgboost", "xgboost/cancer.json"),
        ("lightgbm", "lightgbm/cancer.bst"),
        ("sklearn", "native"),
        ("sklearn", "wellknown"),
    ],
)
async def test_models_of_each_format_answer_as_they_do_without_mlserver(
    adapter: Any, inference: Any, answers: Any, kind: str, path: str
) -> None:
    model_id = f"{path.replace('/', '-')}__isvc-1"
    size = (await load(adapter, model_id, path, kind)).sizeInBytes
    assert size == (await adapter.mesh.stub.modelSize(ModelSizeRequest(modelId=model_id))).sizeInBytes
    got = await infer(inference, model_id, answers[kind]["input"])
    assert got == pytest.approx(answers[kind]["output"], rel=1e-5)
    await adapter.mesh.unload(model_id)
    assert await held(inference) == []
    assert adapter.files() == []
    code, message = await refused(infer(inference, model_id, answers[kind]["input"]))
    assert code is grpc.StatusCode.NOT_FOUND
    assert message == f"Model {model_id} with version  not found"  # what the mesh recognises


async def test_the_version_is_mlservers(adapter: Any) -> None:
    assert (await adapter.mesh.status()).runtimeVersion == "1.7.1"


async def test_the_size_is_predicted_before_the_pull(adapter: Any) -> None:
    request = PredictModelSizeRequest(
        modelId="m", modelPath="sklearn/svm.joblib", modelKey='{"storage_key": "localMinIO"}'
    )
    predicted = (await adapter.mesh.stub.predictModelSize(request)).sizeInBytes
    assert predicted == (await load(adapter, "m", "sklearn/svm.joblib", "sklearn")).sizeInBytes
    await adapter.mesh.unload("m")


async def test_a_model_that_takes_more_than_estimated_is_measured(
    run_adapter: Any, mlserver_root: Path, environment: dict[str, str], mlserver: Any
) -> None:
    variables = environment | {"RUNTIME_METRICS_PORT": str(mlserver.metrics_port)}
    async with run_adapter(MLServerAdapter, mlserver_root, **variables) as adapter:
        await adapter.mesh.ready()
        small = (await load(adapter, "first", "sklearn/svm.joblib", "sklearn")).sizeInBytes
        assert small < 1 << 20
        size = (await load(adapter, "large", "sklearn/compressed.joblib", "sklearn")).sizeInBytes
        assert 64 << 20 <= size <= 96 << 20
        told = await adapter.mesh.stub.modelSize(ModelSizeRequest(modelId="large"))
        assert told.sizeInBytes == size
        # What is not clearly more than the estimate is no measurement.
        assert (await load(adapter, "second", "sklearn/svm.joblib", "sklearn")).sizeInBytes == small
        for model_id in ("first", "large", "second"):
            await adapter.mesh.unload(model_id)


@pytest.mark.parametrize(
    ("path", "kind", "code", "message"),
    [
        ("sklearn/corrupt.joblib", "sklearn", grpc.StatusCode.INTERNAL, "could not load corrupt.joblib as"),
        ("sklearn/svm.joblib", "xgboost", grpc.StatusCode.INTERNAL, "MLServer could not load svm.joblib as"),
        ("lightgbm", "sklearn", grpc.StatusCode.INTERNAL, "Is a directory: "),
        ("sklearn/absent", "sklearn", grpc.StatusCode.NOT_FOUND, "no object at s3://models/sklearn/absent"),
    ],
)
async def test_a_model_that_cannot_be_loaded_says_why_and_leaves_nothing(
    adapter: Any, inference: Any, path: str, kind: str, code: grpc.StatusCode, message: str
) -> None:
    got, details = await refused(load(adapter, "m", path, kind))
    assert got is code
    assert message in details
    assert len(details) > len(message)
    assert await held(inference) == []
    assert adapter.files() == []
    await load(adapter, "m", "sklearn/svm.joblib", "sklearn")
    assert await held(inference) == ["m"]
    await adapter.mesh.unload("m")


async def test_models_whose_settings_have_one_name_live_beside_each_other(
    adapter: Any, inference: Any, answers: Any
) -> None:
    await asyncio.gather(*(load(adapter, model_id, "native", "sklearn") for model_id in ("a", "b")))
    assert await held(inference) == ["a", "b"]
    await adapter.mesh.unload("a")
    assert await infer(inference, "b", answers["sklearn"]["input"]) == answers["sklearn"]["output"]
    await adapter.mesh.unload("b")


async def test_a_cancelled_load_and_its_unload_leave_nothing(adapter: Any, inference: Any) -> None:
    call = load(adapter, "slow", "sklearn/slow.joblib", "sklearn")
    await pulled(adapter, "slow")
    call.cancel()
    await adapter.mesh.unload("slow")
    assert await held(inference) == []
    assert adapter.files() == []


async def pulled(adapter: Any, model_id: str) -> None:
    settings = adapter.settings.root / "_mlserver_models" / model_id / "model-settings.json"
    async with asyncio.timeout(20):
        while not settings.exists():  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.01)


async def test_mlserver_killed_with_models_is_noticed_and_loads_again(
    adapter: Any, inference: Any, answers: Any, mlserver: Any
) -> None:
    await load(adapter, "m", "sklearn/svm.joblib", "sklearn")
    mlserver.kill()
    async with asyncio.timeout(10):
        while (await adapter.mesh.status()).status != STARTING:  # noqa: ASYNC110 - the SPI is polled
            await asyncio.sleep(0.01)
    mlserver.start()
    await adapter.mesh.ready()
    assert await held(inference) == []
    assert adapter.files() == []
    await load(adapter, "m", "sklearn/svm.joblib", "sklearn")
    assert await infer(inference, "m", answers["sklearn"]["input"]) == answers["sklearn"]["output"]
    await adapter.mesh.unload("m")


async def test_mlserver_killed_during_a_load_loads_after_its_restart(
    adapter: Any, inference: Any, mlserver: Any
) -> None:
    call = asyncio.ensure_future(load(adapter, "slow", "sklearn/slow.joblib", "sklearn"))
    await pulled(adapter, "slow")
    mlserver.kill()
    mlserver.start()
    await call
    assert await held(inference) == ["slow"]
    assert (await adapter.mesh.status()).status == STARTING
    assert (await adapter.mesh.ready()).status == READY
    assert await held(inference) == ["slow"]
    await adapter.mesh.unload("slow")


async def test_five_hundred_loads_leak_no_file_descriptor_or_process(
    adapter: Any, inference: Any, mlserver: Any
) -> None:
    here, server = psutil.Process(), psutil.Process(mlserver.process.pid)

    async def cycle(number: int) -> None:
        await load(adapter, f"m{number}", "sklearn/svm.joblib", "sklearn")
        await adapter.mesh.unload(f"m{number}")

    async def batch(first: int) -> None:
        await asyncio.gather(*(cycle(number) for number in range(first, first + 20)))

    async def settled(bound: tuple[int, ...]) -> None:
        async with asyncio.timeout(30):
            while any(now > most for now, most in zip(used(), bound, strict=True)):  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    def used() -> tuple[int, ...]:
        children = len(here.children(recursive=True))
        return here.num_fds(), server.num_fds(), children, len(server.children(recursive=True))

    await batch(0)  # what is opened once stays open
    before = used()
    for first in range(20, 520, 20):
        await batch(first)
    # Connections of the S3 client come and go; a leak would be hundreds.
    await settled((before[0] + 20, before[1] + 5, before[2], before[3]))
    assert await held(inference) == []
    assert adapter.files() == []


# ---------------------------------------------------------------- the process


@pytest.fixture
async def process(
    mlserver_root: Path, environment: dict[str, str], tmp_path: Path
) -> AsyncIterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts the adapter as a process of its own."""
    started: list[subprocess.Popen[bytes]] = []
    variables = environment | {
        "CONTAINER_MEM_REQ_BYTES": str(1 << 30),
        "ROOT_MODEL_DIR": str(mlserver_root / "models"),
        "STORAGE_CONFIG_DIR": str(mlserver_root / "storage-config"),
    }

    def start(port: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "modelmesh", "adapter", "mlserver"]
        with (tmp_path / "log").open("ab") as log:
            process = subprocess.Popen(
                command, env=os.environ | variables | {"ADAPTER_PORT": str(port)}, stderr=log
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


async def test_the_process_is_small_purges_after_a_crash_and_ends_at_sigterm(
    process: Any, future_mesh: Any, inference: Any, mlserver_root: Path, tmp_path: Path
) -> None:
    port, mesh = future_mesh
    first = process(port)
    await mesh.ready()
    for number in range(5):
        await mesh.load(
            f"m{number}", "sklearn/svm.joblib", storage_key="localMinIO", model_type={"name": "sklearn"}
        )
    resident = psutil.Process(first.pid).memory_info().rss
    assert resident <= 80 << 20
    first.kill()
    first.wait()
    second = process(port)
    await mesh.ready()
    assert await held(inference) == []
    assert list((mlserver_root / "models" / "_mlserver_models").iterdir()) == []
    second.send_signal(signal.SIGTERM)
    assert second.wait(10) == 0
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert {"adapter started", "loaded model", "adapter stopped"} <= {line["event"] for line in lines}
