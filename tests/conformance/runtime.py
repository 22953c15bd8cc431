"""A runtime in memory that keeps the contract, and the ways in which it can be told to break it.

It is no model server: it stands for one, so that each promise can be broken on its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import grpc
from grpc import aio

from api.proto.kfs_inference_v2_pb2 import ModelInferResponse
from api.proto.kfs_inference_v2_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)
from api.proto.model_runtime_pb2 import (
    LoadModelResponse,
    ModelSizeResponse,
    PredictModelSizeResponse,
    RuntimeStatusResponse,
    UnloadModelResponse,
)
from api.proto.model_runtime_pb2_grpc import ModelRuntimeServicer, add_ModelRuntimeServicer_to_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

GOOD, BROKEN = "/models/good", "/models/broken"
LOAD_S, LONG_LOAD_S = 0.05, 0.4
# What these do shows only while a load is under way, also when this process is slow.
DURING_LOADS = {
    "load outlives unload",
    "cancelled load goes on",
    "no load after a cancelled one",
    "cancellation blocks",
}
MIB = 1 << 20

FAULTS = {
    # fault: the check that must catch it
    "never ready": "status-ready",
    "status is an error": "status-ready",
    "no loads at once": "status-limits",
    "negative capacity": "status-limits",
    "too short a time to load": "status-limits",
    "default size beyond capacity": "status-limits",
    "method with a leading slash": "status-methods",
    "field number 0": "status-methods",
    "load fails": "load-succeeds",
    "load hangs": "load-succeeds",
    "slow load": "load-in-time",
    "no size": "load-size",
    "size beyond capacity": "load-size",
    "no maximal concurrency": "load-concurrency",
    "prediction fails": "size-predicted",
    "slow prediction": "size-predicted",
    "prediction loads": "size-predicted",
    "one load at once": "loads-side-by-side",
    "no purge": "purge-before-ready",
    "session purges": "session-keeps-models",
    "unknown unload fails": "unload-unknown",
    "slow unknown unload": "unload-unknown",
    "unload keeps the model": "unload-empties",
    "unload answers too early": "unload-empties",
    "second unload fails": "unload-twice",
    "unload takes all": "unload-only-named",
    "no second load": "load-again",
    "load outlives unload": "unload-during-load",
    "missing model loaded": "missing-model-refused",
    "broken model loaded": "broken-model-refused",
    "refusal as UNAVAILABLE": "refusal-explained",
    "refusal without words": "refusal-explained",
    "refusal keeps the model": "refusal-leaves-nothing",
    "no load after a refusal": "load-after-refusal",
    "refusal loses the others": "refusal-harms-no-other",
    "cancelled load goes on": "cancelled-load-leaves-nothing",
    "no load after a cancelled one": "load-after-cancel",
    "cancellation blocks": "cancel-harms-no-other",
    "inference fails": "infer-answers",
    "method is not listed": "infer-answers",
    "one request at once": "infer-by-many",
    "unloaded is INTERNAL": "infer-not-loaded",
}


class Runtime(ModelRuntimeServicer, GRPCInferenceServiceServicer):
    """Both services of a custom runtime, with at most one fault."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.load_s = 1.2 if fault == "slow load" else LONG_LOAD_S if fault in DURING_LOADS else LOAD_S
        self.models: set[str] = set()
        self.sessions: set[str] = set()
        self.loading: dict[str, asyncio.Task[None]] = {}
        self.ever_loaded: set[str] = set()
        self.cancelled: set[str] = set()
        self.asked = 0
        self.jammed = False
        self.refused = False

    async def runtimeStatus(self, _: Any, context: Any) -> RuntimeStatusResponse:  # noqa: N802
        if self.fault == "never ready":
            return RuntimeStatusResponse(status=RuntimeStatusResponse.STARTING)
        if self.fault == "status is an error":
            await context.abort(grpc.StatusCode.INTERNAL, "not yet")
        session = dict(context.invocation_metadata())["mm-session"]
        await context.send_initial_metadata((("mm-session", session),))
        if (session not in self.sessions or self.fault == "session purges") and self.fault != "no purge":
            self.models.clear()
        self.sessions.add(session)
        answer = RuntimeStatusResponse(
            status=RuntimeStatusResponse.READY,
            capacityInBytes=(2**64 - MIB if self.fault == "negative capacity" else 64 * MIB),
            maxLoadingConcurrency=0 if self.fault == "no loads at once" else 4,
            modelLoadingTimeoutMs=99 if self.fault == "too short a time to load" else 1000,
            defaultModelSizeInBytes=65 * MIB if self.fault == "default size beyond capacity" else MIB,
            limitModelConcurrency=True,
        )
        method = "inference.GRPCInferenceService/ModelInfer"
        if self.fault == "method with a leading slash":
            method = "/" + method
        elif self.fault == "method is not listed":
            method = "inference.GRPCInferenceService/ModelMetadata"
        answer.methodInfos[method].idInjectionPath.append(0 if self.fault == "field number 0" else 1)
        return answer

    async def loadModel(self, request: Any, context: Any) -> LoadModelResponse:  # noqa: N802
        model_id = request.modelId
        await self._admit(request, context)
        self.ever_loaded.add(model_id)
        work = self.loading[model_id] = asyncio.create_task(self._load(model_id))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            if work.cancelled():
                await context.abort(grpc.StatusCode.ABORTED, "overtaken by an unload")
            if self.fault != "cancelled load goes on":
                work.cancel()
            self.cancelled.add(model_id)
            self.jammed = self.fault == "cancellation blocks"
            raise
        finally:
            self.loading.pop(model_id, None)
        size = 0 if self.fault == "no size" else MIB
        return LoadModelResponse(
            sizeInBytes=65 * MIB if self.fault == "size beyond capacity" else size,
            maxConcurrency=0 if self.fault == "no maximal concurrency" else 2,
        )

    async def _admit(self, request: Any, context: Any) -> None:
        """Refuses what cannot be loaded, and what a fault says."""
        if self.jammed or self.fault == "load hangs":
            await asyncio.sleep(60)
        broken, missing = request.modelPath == BROKEN, request.modelPath not in {BROKEN, GOOD}
        if (broken and self.fault != "broken model loaded") or (
            missing and self.fault != "missing model loaded"
        ):
            await self._refuse(request.modelId, context)
        strange = {
            "load fails": True,
            "one load at once": self.loading,
            "no load after a refusal": self.refused,
            "no second load": request.modelId in self.ever_loaded,
            "no load after a cancelled one": request.modelId in self.cancelled,
        }
        if strange.get(self.fault):
            await context.abort(grpc.StatusCode.INTERNAL, self.fault)

    async def _load(self, model_id: str) -> None:
        await asyncio.sleep(self.load_s)
        self.models.add(model_id)

    async def _refuse(self, model_id: str, context: Any) -> None:
        self.refused = True
        if self.fault == "refusal keeps the model":
            self.models.add(f"{model_id} cannot be unloaded")
        if self.fault == "refusal loses the others":
            self.models.clear()
        if self.fault == "refusal as UNAVAILABLE":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "there is no such model")
        words = "" if self.fault == "refusal without words" else "there is no such model"
        await context.abort(grpc.StatusCode.NOT_FOUND, words)

    async def unloadModel(self, request: Any, context: Any) -> UnloadModelResponse:  # noqa: N802
        model_id = request.modelId
        if model_id not in self.ever_loaded:
            if self.fault == "unknown unload fails":
                await context.abort(grpc.StatusCode.INTERNAL, "who?")
            if self.fault == "slow unknown unload":
                await asyncio.sleep(5.1)
        elif self.fault == "second unload fails" and model_id not in self.models | self.loading.keys():
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "it is gone already")
        if self.fault == "unload keeps the model":
            return UnloadModelResponse()
        if self.fault == "unload answers too early":
            asyncio.get_running_loop().call_later(0.3, self.models.discard, model_id)
            return UnloadModelResponse()
        if (work := self.loading.get(model_id)) and self.fault != "load outlives unload":
            work.cancel()
            self.loading.pop(model_id, None)
        if self.fault == "unload takes all":
            self.models.clear()
        self.models.discard(model_id)
        return UnloadModelResponse()

    async def modelSize(self, request: Any, context: Any) -> ModelSizeResponse:  # noqa: N802
        if not self._has(request.modelId):
            await context.abort(grpc.StatusCode.NOT_FOUND, "it is not loaded")
        return ModelSizeResponse(sizeInBytes=0 if self.fault == "no size" else MIB)

    async def predictModelSize(self, request: Any, context: Any) -> PredictModelSizeResponse:  # noqa: N802
        if self.fault == "prediction fails":
            await context.abort(grpc.StatusCode.INTERNAL, "cannot tell")
        if self.fault == "slow prediction":
            await asyncio.sleep(0.6)
        if self.fault == "prediction loads":
            self.models.add(request.modelId)
        return PredictModelSizeResponse(sizeInBytes=MIB)

    async def ModelInfer(self, request: Any, context: Any) -> ModelInferResponse:  # noqa: N802
        if self.fault == "inference fails":
            await context.abort(grpc.StatusCode.INTERNAL, "cannot think")
        if not self._has(request.model_name):
            internal = self.fault == "unloaded is INTERNAL"
            code = grpc.StatusCode.INTERNAL if internal else grpc.StatusCode.NOT_FOUND
            await context.abort(code, "it is not loaded")
        if self.fault == "one request at once" and self.asked:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "one after the other")
        self.asked += 1
        await asyncio.sleep(0.01)
        self.asked -= 1
        return ModelInferResponse(model_name=request.model_name)

    def _has(self, model_id: str) -> bool:
        return model_id in self.models or f"{model_id} cannot be unloaded" in self.models


@contextlib.asynccontextmanager
async def serving(runtime: Runtime, address: str) -> AsyncIterator[str]:
    """Serves a runtime; yields the endpoint, where port 0 has become a real one."""
    server = aio.server()
    add_ModelRuntimeServicer_to_server(runtime, server)
    add_GRPCInferenceServiceServicer_to_server(runtime, server)
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield address if address.startswith("unix:") else f"127.0.0.1:{port}"
    finally:
        await server.stop(0)
