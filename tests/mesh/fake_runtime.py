# ruff: noqa: ARG002
"""A model server for tests: speaks the SPI in process, holds nothing, and is strict about what it promised.

The path says how a model behaves: `SIZE_<bytes>_<load ms>_<unload ms>`, `FAIL_<text>` (FAILED_PRECONDITION),
or `CODE_<code>:<text>`.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc import StatusCode

from api.proto import model_runtime_pb2_grpc
from api.proto.model_runtime_pb2 import (
    LoadModelResponse,
    ModelSizeResponse,
    PredictModelSizeResponse,
    RuntimeStatusResponse,
    UnloadModelResponse,
)

Context = grpc.aio.ServicerContext[Any, Any]


def parse(path: str) -> tuple[int, float, float]:
    """Bytes, seconds to load, seconds to unload."""
    if not path.startswith("SIZE_"):
        return 1000, 0.0, 0.0
    size, load, unload = path.removeprefix("SIZE_").split("_")
    return int(size), int(load) / 1000, int(unload) / 1000


@dataclass
class FakeRuntime(model_runtime_pb2_grpc.ModelRuntimeServicer):
    """`port` is known after `start`."""

    capacity: int = 10_000
    load_slots: int = 2
    load_timeout_ms: int = 20_000
    default_size: int = 1_000
    status: "RuntimeStatusResponse.Status.ValueType" = RuntimeStatusResponse.READY
    methods: dict[str, list[int]] = field(default_factory=dict)
    port: int = 0
    loaded: dict[str, int] = field(default_factory=dict)
    """Model id -> bytes, from the begin of its load to the end of its unload."""
    paths: dict[str, str] = field(default_factory=dict)
    loads: list[str] = field(default_factory=list)
    unloads: list[str] = field(default_factory=list)
    loading: set[str] = field(default_factory=set)
    most_loading: int = 0
    cancelled: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    """Loads of these models wait for their event."""
    refused: set[str] = field(default_factory=set)
    """Models that it cannot load, whatever their path says."""
    stuck: set[str] = field(default_factory=set)
    """Models that it does not let go of."""
    understates: bool = False
    """Predicts a tenth of each size."""
    predicted: list[str] = field(default_factory=list)
    statuses: int = 0
    predicts: bool = True
    knows_sessions: bool = False
    session: str = ""
    restarted: bool = False
    """With sessions: says STARTING once, as a server does that died and is back."""
    server: Any = None
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared where it accepts calls and answers none, as a process does that is stopped."""

    @property
    def used(self) -> int:
        return sum(self.loaded.values())

    async def start(self) -> None:
        self.answering.set()
        self.server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        model_runtime_pb2_grpc.add_ModelRuntimeServicer_to_server(self, self.server)
        self.serve_more(self.server)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self.server.start()

    def serve_more(self, server: Any) -> None:
        """Other services on the same port."""

    async def stop(self) -> None:
        await self.server.stop(0)

    async def crash(self) -> None:
        """Dies, and everything in memory with it."""
        await self.stop()
        self.loaded.clear()

    async def runtimeStatus(self, request: Any, context: Context) -> RuntimeStatusResponse:  # noqa: N802
        self.statuses += 1
        await self.answering.wait()
        session = dict(context.invocation_metadata() or ()).get("mm-session", "")
        if self.knows_sessions:
            await context.send_initial_metadata((("mm-session", session),))
        if self.restarted:
            self.restarted = False
            return RuntimeStatusResponse(status=RuntimeStatusResponse.STARTING)
        if self.status == RuntimeStatusResponse.READY and not (
            self.knows_sessions and session == self.session
        ):
            self.session = str(session)
            self.loaded.clear()
        response = RuntimeStatusResponse(
            status=self.status,
            capacityInBytes=self.capacity,
            maxLoadingConcurrency=self.load_slots,
            modelLoadingTimeoutMs=self.load_timeout_ms,
            defaultModelSizeInBytes=self.default_size,
        )
        for name, path in self.methods.items():
            response.methodInfos[name].idInjectionPath.extend(path)
        return response

    async def loadModel(self, request: Any, context: Context) -> LoadModelResponse:  # noqa: N802
        model_id = request.modelId
        size, seconds, _ = parse(request.modelPath)
        self.loads.append(model_id)
        if model_id in self.loaded:
            self.violations.append(f"{model_id} loaded twice")
        self.loaded[model_id] = size
        self.paths[model_id] = request.modelPath
        self.loading.add(model_id)
        self.most_loading = max(self.most_loading, len(self.loading))
        if self.used > self.capacity:
            self.violations.append(f"{self.used} bytes in use with {model_id}, {self.capacity} promised")
        try:
            if model_id in self.gates:
                await self.gates[model_id].wait()
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled.append(model_id)
            raise
        finally:
            self.loading.discard(model_id)
        if model_id in self.refused:
            await context.abort(StatusCode.FAILED_PRECONDITION, "refused")
        if request.modelPath.startswith("FAIL_"):
            await context.abort(StatusCode.FAILED_PRECONDITION, request.modelPath.removeprefix("FAIL_"))
        if request.modelPath.startswith("CODE_"):
            code, _, text = request.modelPath.removeprefix("CODE_").partition(":")
            await context.abort(StatusCode[code], text)
        return LoadModelResponse(sizeInBytes=size)

    async def unloadModel(self, request: Any, context: Context) -> UnloadModelResponse:  # noqa: N802
        model_id = request.modelId
        self.unloads.append(model_id)
        if model_id in self.loading:
            self.violations.append(f"{model_id} unloaded while it was being loaded")
        if model_id in self.stuck:
            await context.abort(StatusCode.INTERNAL, "busy")
        await asyncio.sleep(parse(self.paths.get(model_id, ""))[2])
        self.loaded.pop(model_id, None)
        return UnloadModelResponse()

    async def predictModelSize(self, request: Any, context: Context) -> PredictModelSizeResponse:  # noqa: N802
        if not self.predicts:
            await context.abort(StatusCode.UNIMPLEMENTED, "no predictions here")
        self.predicted.append(request.modelId)
        size = parse(request.modelPath)[0]
        return PredictModelSizeResponse(sizeInBytes=size // 10 if self.understates else size)

    async def modelSize(self, request: Any, context: Context) -> ModelSizeResponse:  # noqa: N802
        if request.modelId not in self.loaded:
            await context.abort(StatusCode.NOT_FOUND, f"model {request.modelId} is not loaded")
        await self.answering.wait()
        return ModelSizeResponse(sizeInBytes=self.loaded[request.modelId])
