"""A model server that speaks the management SPI (mmesh.ModelRuntime) itself, and V2 for inference.

Its models are linear functions, files such as {"weights": [2, -1, 0.5], "bias": 1}. Replace `Model` by a real
one; what the mesh relies on is in `Runtime`. Environment: ENDPOINT (port:8085, or unix:/PATH) of both
services, CAPACITY_BYTES for models, MODEL_LIBRARY, the folder of models that no puller fetches.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import struct
from operator import mul
from pathlib import Path
from typing import Any

import grpc
from protocol import kfs_inference_v2_pb2 as v2
from protocol import kfs_inference_v2_pb2_grpc as v2_grpc
from protocol import model_runtime_pb2 as spi
from protocol import model_runtime_pb2_grpc as spi_grpc

# Bytes in memory per byte of a model's file.
MEMORY_PER_DISK = 2
METHODS = ("inference.GRPCInferenceService/ModelInfer", "inference.GRPCInferenceService/ModelMetadata")


class Model:
    """y = weights * x + bias. `size` is in bytes of memory."""

    def __init__(self, file: Path) -> None:
        """Reads a file. Raises OSError where there is none, ValueError where it is no such model."""
        content = json.loads(file.read_bytes())
        try:
            self.weights = [float(weight) for weight in content["weights"]]
            self.bias = float(content.get("bias", 0))
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f'it must be like {{"weights": [2, -1], "bias": 1}}: {error!r}') from error
        self.size = MEMORY_PER_DISK * file.stat().st_size

    def predict(self, rows: list[list[float]]) -> list[float]:
        """Answers one number a row. Raises ValueError for a row of another length."""
        for row in rows:
            if len(row) != len(self.weights):
                raise ValueError(f"a row has {len(row)} numbers, the model takes {len(self.weights)}")
        return [sum(map(mul, self.weights, row)) + self.bias for row in rows]


class Runtime(spi_grpc.ModelRuntimeServicer):
    """What the mesh asks."""

    def __init__(self, capacity: int, library: Path) -> None:
        self.models: dict[str, Model] = {}
        self._loads: dict[str, asyncio.Task[Model]] = {}
        self._capacity = capacity
        self._library = library

    async def runtimeStatus(self, request: Any, context: Any) -> spi.RuntimeStatusResponse:
        """A mesh that asks begins anew: nothing may be loaded when it hears READY."""
        for model_id in {*self.models, *self._loads}:
            await self._discard(model_id)
        answer = spi.RuntimeStatusResponse(
            status=spi.RuntimeStatusResponse.READY,
            capacityInBytes=self._capacity,
            maxLoadingConcurrency=2,
            modelLoadingTimeoutMs=30_000,
            defaultModelSizeInBytes=1 << 20,
            runtimeVersion="1",
        )
        for method in METHODS:
            answer.methodInfos[method].idInjectionPath.append(
                1
            )  # field 1 of both requests is the model's name
        return answer

    async def loadModel(self, request: Any, context: Any) -> spi.LoadModelResponse:
        """Refuses with words for the model's owner, and a code that says whose fault it is."""
        # A thread cannot be stopped: it goes on when the mesh cancels, and its result is thrown away.
        load = asyncio.create_task(asyncio.to_thread(Model, self._library / request.modelPath))
        self._loads[request.modelId] = load
        try:
            model = await asyncio.shield(load)
        except FileNotFoundError:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no model at {request.modelPath}")
        except (OSError, ValueError) as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"this is no linear model: {error}")
        if self._loads.get(request.modelId) is not load:
            await context.abort(grpc.StatusCode.ABORTED, "the load was overtaken by an unload")
        del self._loads[request.modelId]
        self.models[request.modelId] = model
        return spi.LoadModelResponse(sizeInBytes=model.size)

    async def unloadModel(self, request: Any, context: Any) -> spi.UnloadModelResponse:
        """Answers when the memory is free; a model that is not here is fine."""
        await self._discard(request.modelId)
        return spi.UnloadModelResponse()

    async def predictModelSize(self, request: Any, context: Any) -> spi.PredictModelSizeResponse:
        """Tells the size before the load: the puller says how large the files are. 0: cannot tell."""
        on_disk = json.loads(request.modelKey or "{}").get("disk_size_bytes", 0)
        return spi.PredictModelSizeResponse(sizeInBytes=MEMORY_PER_DISK * on_disk)

    async def modelSize(self, request: Any, context: Any) -> spi.ModelSizeResponse:
        """Is asked only where loadModel answered 0."""
        model = self.models.get(request.modelId)
        if model is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"model {request.modelId} is not loaded")
        return spi.ModelSizeResponse(sizeInBytes=model.size)

    async def _discard(self, model_id: str) -> None:
        self.models.pop(model_id, None)
        if load := self._loads.pop(model_id, None):
            await asyncio.gather(load, return_exceptions=True)


class Inference(v2_grpc.GRPCInferenceServiceServicer):
    """What clients ask, through the mesh, which has put the model's id into the name."""

    def __init__(self, models: dict[str, Model]) -> None:
        self._models = models

    async def ModelInfer(self, request: Any, context: Any) -> v2.ModelInferResponse:
        """Takes one FP32 tensor of shape [rows, features], or [features]; answers one of shape [rows]."""
        model = await self._model(request.model_name, context)
        try:
            answers = model.predict(_rows(request))
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        response = v2.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
        tensor = response.outputs.add(name="y", datatype="FP32", shape=[len(answers)])
        tensor.contents.fp32_contents.extend(answers)
        return response

    async def ModelMetadata(self, request: Any, context: Any) -> v2.ModelMetadataResponse:
        """Tells the tensors of a model."""
        model = await self._model(request.name, context)
        response = v2.ModelMetadataResponse(name=request.name, versions=["1"], platform="linear")
        response.inputs.add(name="x", datatype="FP32", shape=[-1, len(model.weights)])
        response.outputs.add(name="y", datatype="FP32", shape=[-1])
        return response

    async def _model(self, model_id: str, context: Any) -> Model:
        if model_id not in self._models:
            # This code, and no other, has the mesh load the model and ask again.
            await context.abort(grpc.StatusCode.NOT_FOUND, f"model {model_id} is not loaded")
        return self._models[model_id]


def _rows(request: Any) -> list[list[float]]:
    """Reads the input; its numbers come typed, or as raw bytes in little-endian order."""
    if len(request.inputs) != 1 or request.inputs[0].datatype != "FP32":
        raise ValueError("give one input of datatype FP32")
    (tensor,) = request.inputs
    if raw := list(request.raw_input_contents):
        if len(raw[0]) % 4:
            raise ValueError(f"{len(raw[0])} bytes are no numbers of 4 bytes each")
        values = list(struct.unpack(f"<{len(raw[0]) // 4}f", raw[0]))
    else:
        values = list(tensor.contents.fp32_contents)
    if not values or min(tensor.shape, default=0) < 1 or math.prod(tensor.shape) != len(values):
        raise ValueError(f"{len(values)} numbers do not fill the shape {list(tensor.shape)}")
    width = tensor.shape[-1]
    return [values[start : start + width] for start in range(0, len(values), width)]


def _address(endpoint: str) -> str:
    """Reads an endpoint as ServingRuntimes write it; only the pod itself, where the mesh is, can connect."""
    kind, _, where = endpoint.partition(":")
    if kind not in {"port", "unix"} or not where:
        raise SystemExit(f"ENDPOINT is {endpoint!r} and must be port:NUMBER or unix:/PATH")
    return f"127.0.0.1:{where}" if kind == "port" else endpoint


async def main() -> None:
    """Serves until SIGTERM."""
    endpoint = os.environ.get("ENDPOINT", "port:8085")
    capacity = int(os.environ.get("CAPACITY_BYTES", "67108864"))
    runtime = Runtime(capacity, Path(os.environ.get("MODEL_LIBRARY", "/library")))
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)])
    spi_grpc.add_ModelRuntimeServicer_to_server(runtime, server)
    v2_grpc.add_GRPCInferenceServiceServicer_to_server(Inference(runtime.models), server)
    os.umask(0)  # the mesh, whose user is another one, must be able to connect to a socket
    server.add_insecure_port(_address(endpoint))
    await server.start()
    print(f"serving at {endpoint}", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await server.stop(grace=5)


if __name__ == "__main__":
    asyncio.run(main())
