"""What the adapter adds to a load, and how much memory its process takes.

A model server that does nothing stands behind an adapter in a process of its own, so all the time of a load
is the adapter's: the pull of a small object from the S3 server, its layout, and the calls between mesh,
adapter and server. The time in which the server answers is taken off.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from grpc import aio

from api.proto import kfs_inference_v2_pb2 as v2
from api.proto import kfs_inference_v2_pb2_grpc as v2_grpc
from api.proto.model_runtime_pb2 import (
    LoadModelRequest,
    RuntimeStatusRequest,
    RuntimeStatusResponse,
    UnloadModelRequest,
)
from api.proto.model_runtime_pb2_grpc import ModelRuntimeStub
from tests.store.etcd_server import free_port

Figure = tuple[str, float, str]


class _IdleServer(v2_grpc.GRPCInferenceServiceServicer):
    """Loads everything at once, and notes for how long it had each call."""

    def __init__(self) -> None:
        self.busy: list[float] = []

    async def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        return v2.ServerReadyResponse(ready=True)

    async def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        return v2.ServerMetadataResponse(name="idle", version="1")

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        return v2.RepositoryIndexResponse()

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        start = time.perf_counter()
        answer = v2.RepositoryModelLoadResponse()
        self.busy.append(time.perf_counter() - start)
        return answer

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        return v2.RepositoryModelUnloadResponse()


async def measure(folder: Path, entry: dict[str, str], paths: list[str], port: int) -> list[Figure]:
    """Loads and unloads objects of the storage `entry`, one after the other; the adapter gets `port`."""
    (folder / "secret").mkdir(parents=True)
    (folder / "secret" / "bench").write_text(json.dumps(entry))
    idle, server = _IdleServer(), aio.server()
    v2_grpc.add_GRPCInferenceServiceServicer_to_server(idle, server)
    variables = {
        "ADAPTER_METRICS_PORT": str(free_port()),
        "ADAPTER_PORT": str(port),
        "CONTAINER_MEM_REQ_BYTES": str(1 << 30),
        "RUNTIME_PORT": str(server.add_insecure_port("127.0.0.1:0")),
        "ROOT_MODEL_DIR": str(folder / "models"),
        "STORAGE_CONFIG_DIR": str(folder / "secret"),
        "USE_EMBEDDED_PULLER": "true",
    }
    await server.start()
    command = [sys.executable, "-m", "modelmesh", "adapter", "triton"]
    with (folder / "adapter.log").open("wb") as log:
        process = subprocess.Popen(command, env=os.environ | variables, stderr=log)  # noqa: ASYNC220
    try:
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = ModelRuntimeStub(channel)
            await _ready(stub)
            spent = [await _load(stub, path, number) - idle.busy[-1] for number, path in enumerate(paths)]
            memory = psutil.Process(process.pid).memory_info().rss
    finally:
        process.terminate()
        process.wait()
        await server.stop(None)
    return [
        ("load_overhead_p50_ms", 1000 * statistics.median(spent), "ms"),
        ("adapter_rss_mib", memory / (1 << 20), "MiB"),
    ]


async def _ready(stub: Any) -> None:
    async with asyncio.timeout(60):
        while True:
            status = await stub.runtimeStatus(RuntimeStatusRequest(), wait_for_ready=True)
            if status.status == RuntimeStatusResponse.READY:
                return


async def _load(stub: Any, path: str, number: int) -> float:
    """Seconds of a load of a model that was never there before."""
    model_id = f"model-{number}__isvc-1"
    key = json.dumps({"storage_key": "bench", "model_type": {"name": "onnx"}})
    start = time.perf_counter()
    await stub.loadModel(LoadModelRequest(modelId=model_id, modelPath=path, modelKey=key))
    seconds = time.perf_counter() - start
    await stub.unloadModel(UnloadModelRequest(modelId=model_id))
    return seconds
