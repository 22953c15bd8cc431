"""A model server in a process of its own: the fake runtime, and V2 inference that knows what is loaded.

Usage: runtime_process.py PORT
"""

import asyncio
import signal
import sys
from typing import Any

import grpc

from api.proto import kfs_inference_v2_pb2 as v2
from api.proto import kfs_inference_v2_pb2_grpc
from tests.mesh.fake_runtime import Context, FakeRuntime

MODEL_INFER = "inference.GRPCInferenceService/ModelInfer"


class Inference(kfs_inference_v2_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers with the model's name and the request's id."""

    def __init__(self, runtime: FakeRuntime) -> None:
        self._runtime = runtime

    async def ModelReady(self, request: Any, context: Context) -> v2.ModelReadyResponse:  # noqa: N802
        if request.name not in self._runtime.loaded:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Model {request.name} not found")
        return v2.ModelReadyResponse(ready=True)

    async def ModelInfer(self, request: Any, context: Context) -> v2.ModelInferResponse:  # noqa: N802
        if request.model_name not in self._runtime.loaded:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Model {request.model_name} not found")
        output = v2.ModelInferResponse.InferOutputTensor(name="out", datatype="INT64", shape=[1])
        output.contents.int64_contents.append(8)
        return v2.ModelInferResponse(model_name=request.model_name, id=request.id, outputs=[output])


class ServingRuntime(FakeRuntime):
    """The fake runtime with inference on the same port."""

    def serve_more(self, server: Any) -> None:
        kfs_inference_v2_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Inference(self), server)


async def main(port: int) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    runtime = ServingRuntime(capacity=10_000, port=port, methods={MODEL_INFER: [1]})
    await runtime.start()
    await stopping.wait()
    await runtime.stop()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
