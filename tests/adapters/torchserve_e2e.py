"""The TorchServe adapter with a real TorchServe, whose environment has gigabytes: `make test-torchserve`."""

import asyncio
import io
import os
import signal
import subprocess
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from grpc import aio

from adapters.torchserve import TorchServeAdapter
from api.proto.model_runtime_pb2 import ModelSizeRequest
from local import environments
from local.home import Home

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

_HANDLER = """\
def handle(data, context):
    return [str(2 * float(row.get("data") or row.get("body"))) for row in data] if data else None
"""
_MANIFEST = '{"runtime": "python", "model": {"modelName": "x", "handler": "handler.py"}}'


def doubler(handler: str = _HANDLER) -> bytes:
    """An archive as torch-model-archiver makes it, which doubles a number."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("handler.py", handler)
        archive.writestr("MAR-INF/MANIFEST.json", _MANIFEST)
    return content.getvalue()


def predictions(model: str, number: float) -> tuple[str, bytes]:
    """TorchServe's inference API, by its bytes: model_name is field 1, the map `input` field 3."""
    entry = b"\x0a\x04data" + _field(2, str(number).encode())
    method = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
    return method, _field(1, model.encode()) + _field(3, entry)


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    """The archive, one whose handler is no Python, and what is none."""
    (tmp_path / "doubler.mar").write_bytes(doubler())
    (tmp_path / "broken.mar").write_bytes(doubler("no Python"))
    (tmp_path / "corrupt.mar").write_bytes(b"this is no archive")
    return tmp_path


@pytest.fixture
async def adapter(
    run_adapter: Callable[..., Any], tmp_path: Path, unused_tcp_port_factory: Callable[[], int]
) -> AsyncIterator[Any]:
    """An adapter and its TorchServe, which starts with the configuration that the adapter writes."""
    environment = environments.ensure("torchserve", Home.from_environment().environments)
    inference, management = unused_tcp_port_factory(), unused_tcp_port_factory()
    variables = {
        "TMPDIR": str(tmp_path),
        "TS_GRPC_INFERENCE_PORT": str(inference),
        "TS_GRPC_MANAGEMENT_PORT": str(management),
        **{
            f"TS_{name}_ADDRESS": f"http://127.0.0.1:{unused_tcp_port_factory()}"
            for name in ("INFERENCE", "MANAGEMENT", "METRICS")
        },
    }
    async with run_adapter(
        TorchServeAdapter,
        tmp_path,
        server_port=management,
        RUNTIME_DATA_ENDPOINT=f"port:{inference}",
        LOADTIME_TIMEOUT=90_000,
    ) as running:
        config = running.server.folder / "mmconfig.properties"
        async with asyncio.timeout(20):
            while not config.exists():  # noqa: ASYNC110 - a file has no event
                await asyncio.sleep(0.01)
        command = [
            str(environment / "bin" / "torchserve"),
            *("--start", "--foreground", "--ncs", "--ts-config", str(config)),
        ]
        with (tmp_path / "log").open("wb") as log:
            server = subprocess.Popen(  # noqa: ASYNC220 - returns at once
                command,
                cwd=tmp_path,
                env=os.environ | variables,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            await running.mesh.ready(90)
            yield running
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


@pytest.fixture
async def predict(adapter: Any) -> AsyncIterator[Callable[..., Any]]:
    """Asks a model."""
    port = adapter.settings.data_endpoint.removeprefix("port:")
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:

        def call(model_id: str, number: float) -> Any:
            method, message = predictions(model_id, number)
            return channel.unary_unary(method)(message, timeout=30)

        yield call


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


async def test_an_archive_answers_is_measured_and_leaves_nothing(
    adapter: Any, predict: Callable[..., Any], archives: Path
) -> None:
    response = await adapter.mesh.load("doubler__isvc-1", str(archives / "doubler.mar"))
    assert response.sizeInBytes == 0
    assert b"42.0" in await predict("doubler__isvc-1", 21)
    size = await adapter.mesh.stub.modelSize(ModelSizeRequest(modelId="doubler__isvc-1"))
    assert size.sizeInBytes > 10 << 20  # a worker is a Python process
    await adapter.mesh.unload("doubler__isvc-1")
    assert await adapter.server.loaded() == []
    assert adapter.files() == ["_torchserve_models/mmconfig.properties"]
    with pytest.raises(aio.AioRpcError, match="Model not found: doubler__isvc-1"):
        await predict("doubler__isvc-1", 21)


@pytest.mark.parametrize("name", ["corrupt.mar", "broken.mar"])
async def test_an_archive_that_cannot_be_loaded_says_so_and_leaves_nothing(
    adapter: Any, archives: Path, name: str
) -> None:
    with pytest.raises(aio.AioRpcError, match=f"TorchServe could not load {name}"):
        await adapter.mesh.load("m", str(archives / name))
    assert await adapter.server.loaded() == []
    assert adapter.files() == ["_torchserve_models/mmconfig.properties"]


async def test_workers_end_with_their_models(adapter: Any, archives: Path) -> None:
    workers = [f"m{number}" for number in range(3)]
    for model_id in workers:
        await adapter.mesh.load(model_id, str(archives / "doubler.mar"))
    for model_id in workers:
        await adapter.mesh.unload(model_id)
    store = str(adapter.server.folder.parent.parent)
    async with asyncio.timeout(30):
        while any(  # noqa: ASYNC110 - processes of another
            "model_service_worker" in " ".join(process.info["cmdline"] or ())
            and store in (process.environ().get("TMPDIR", ""))
            for process in psutil.process_iter(["cmdline"])
        ):
            await asyncio.sleep(0.1)
