"""A model server for tests, run as a process of its own: `fake_runtime.py <address>`.

It speaks the V2 protocol and does what the request's `id` says:

    error:<CODE>:<text>   fails
    slow:<ms>             answers later
    hang:<key>            never answers; that it was cancelled can be asked with the id `cancelled:<key>`
    lost:<n>              says n times, in the words of MLServer, that it does not know the model
    raw:<DATATYPE>:<hex>  answers with these raw output bytes
    crash                 ends the process
    typed                 answers with typed contents of several datatypes

    compressed            answers with a compressed message, unasked

The service test.Streams has the same messages: `Echo` answers each message, `Collect` all of them at the end
with their ids joined, `Expand` one message with as many as its id says, and `Greet` speaks first.

Otherwise the answer is the INT64 tensor `predict` [8], or the BYTES of the first input. Its parameters tell
what the server saw: the metadata, the time left, the size of the request.
"""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc

from api.proto import kfs_inference_v2_pb2 as v2
from api.proto import kfs_inference_v2_pb2_grpc as v2_grpc

LIMIT = 64 << 20
RESPONSE_HEADER = ("x-served-by", "fake")


class Runtime(v2_grpc.GRPCInferenceServiceServicer):
    def __init__(self) -> None:
        self.cancelled: set[str] = set()
        self.lost: Counter[str] = Counter()

    async def ModelInfer(  # noqa: C901, N802 - a case for each id; the protocol's name
        self, request: v2.ModelInferRequest, context: Any
    ) -> v2.ModelInferResponse:
        action, _, argument = request.id.partition(":")
        if action == "compressed":
            context.set_compression(grpc.Compression.Gzip)
        await context.send_initial_metadata([RESPONSE_HEADER])
        response = v2.ModelInferResponse(model_name=request.model_name, id=request.id)
        match action:
            case "error":
                code, _, text = argument.partition(":")
                context.set_trailing_metadata([("x-detail", "why")])
                await context.abort(grpc.StatusCode[code], text)
            case "slow":
                await asyncio.sleep(int(argument) / 1000)
            case "hang":
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    self.cancelled.add(argument)
                    raise
            case "cancelled":
                response.parameters["cancelled"].bool_param = argument in self.cancelled
            case "lost" if self.lost[request.model_name] < int(argument):
                self.lost[request.model_name] += 1
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"Model {request.model_name} not found")
            case "compressed":
                response.parameters["padding"].string_param = "a" * 10_000
            case "crash":
                os._exit(1)
            case "raw" | "typed":
                return self._raw(response, argument) if argument else self._typed(response)
        self._describe(request, context, response)
        if request.inputs and request.inputs[0].datatype == "BYTES":
            output = response.outputs.add(name="echo", datatype="BYTES", shape=request.inputs[0].shape)
            output.contents.bytes_contents.extend(request.inputs[0].contents.bytes_contents)
        else:
            output = response.outputs.add(name="predict", datatype="INT64", shape=[1])
            output.contents.int64_contents.append(8)
        return response

    @staticmethod
    def _raw(response: v2.ModelInferResponse, argument: str) -> v2.ModelInferResponse:
        datatype, _, content = argument.partition(":")
        response.outputs.add(name="predict", datatype=datatype, shape=[1, -1])
        response.raw_output_contents.append(bytes.fromhex(content))
        return response

    @staticmethod
    def _typed(response: v2.ModelInferResponse) -> v2.ModelInferResponse:
        response.outputs.add(name="b", datatype="BOOL", shape=[2]).contents.bool_contents.extend(
            [True, False]
        )
        u = response.outputs.add(name="u", datatype="UINT8", shape=[2])
        u.contents.uint_contents.extend([0, 255])
        f = response.outputs.add(name="f", datatype="FP32", shape=[2])
        f.contents.fp32_contents.extend([0.1, 8])
        s = response.outputs.add(name="s", datatype="BYTES", shape=[1])
        s.contents.bytes_contents.append(b"a<b")
        return response

    @staticmethod
    def _describe(request: v2.ModelInferRequest, context: Any, response: v2.ModelInferResponse) -> None:
        for key, value in context.invocation_metadata():
            text = value.decode() if isinstance(value, bytes) else value
            response.parameters[f"header.{key}"].string_param = text
        response.parameters["bytes"].int64_param = request.ByteSize()
        left = context.time_remaining()
        if left is not None:
            response.parameters["left_ms"].int64_param = int(left * 1000)

    async def echo(
        self, requests: AsyncIterator[v2.ModelInferRequest], context: Any
    ) -> AsyncIterator[v2.ModelInferResponse]:
        if ("x-early", "1") in context.invocation_metadata():
            await context.send_initial_metadata([RESPONSE_HEADER])
        async for request in requests:
            if request.id.startswith("lost") and self.lost[request.model_name] < int(request.id[4:]):
                self.lost[request.model_name] += 1
                await context.abort(grpc.StatusCode.NOT_FOUND, f"Model {request.model_name} not found")
            if request.id == "error":
                context.set_trailing_metadata([("x-detail-bin", b"why")])
                await context.abort(grpc.StatusCode.OUT_OF_RANGE, "enough")
            yield v2.ModelInferResponse(
                model_name=request.model_name, id=request.id, raw_output_contents=request.raw_input_contents
            )
            if request.id == "hang":
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    self.cancelled.add(request.model_name)
                    raise

    async def collect(
        self, requests: AsyncIterator[v2.ModelInferRequest], _context: object
    ) -> v2.ModelInferResponse:
        seen = [(request.model_name, request.id) async for request in requests]
        return v2.ModelInferResponse(
            model_name=",".join(sorted({name for name, _ in seen})), id=",".join(number for _, number in seen)
        )

    async def expand(
        self, request: v2.ModelInferRequest, _context: object
    ) -> AsyncIterator[v2.ModelInferResponse]:
        for number in range(int(request.id)):
            yield v2.ModelInferResponse(model_name=request.model_name, id=str(number))

    async def greet(
        self, requests: AsyncIterator[v2.ModelInferRequest], _context: object
    ) -> AsyncIterator[v2.ModelInferResponse]:
        yield v2.ModelInferResponse(id="hello")
        async for request in requests:
            yield v2.ModelInferResponse(id=f"hello {request.model_name}")

    async def ModelReady(  # noqa: N802 - the protocol's name
        self, request: v2.ModelReadyRequest, context: Any
    ) -> v2.ModelReadyResponse:
        if request.name.startswith("zipped"):
            context.set_compression(grpc.Compression.Gzip)
        elif self.lost[request.name]:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Model {request.name} not found")
        return v2.ModelReadyResponse(ready=True)

    async def ModelMetadata(  # noqa: N802 - the protocol's name
        self, request: v2.ModelMetadataRequest, _context: object
    ) -> v2.ModelMetadataResponse:
        response = v2.ModelMetadataResponse(name=request.name, versions=["1"], platform="fake")
        response.inputs.add(name="predict", datatype="FP32", shape=[-1, 64])
        return response


def streams(runtime: Runtime) -> grpc.GenericRpcHandler:
    """The service test.Streams."""
    codec = (v2.ModelInferRequest.FromString, v2.ModelInferResponse.SerializeToString)
    return grpc.method_handlers_generic_handler(
        "test.Streams",
        {
            "Echo": grpc.stream_stream_rpc_method_handler(runtime.echo, *codec),
            "Collect": grpc.stream_unary_rpc_method_handler(runtime.collect, *codec),
            "Expand": grpc.unary_stream_rpc_method_handler(runtime.expand, *codec),
            "Greet": grpc.stream_stream_rpc_method_handler(runtime.greet, *codec),
        },
    )


async def main(address: str) -> None:
    options = [("grpc.max_receive_message_length", LIMIT), ("grpc.max_send_message_length", LIMIT)]
    runtime = Runtime()
    server = grpc.aio.server(options=options)
    v2_grpc.add_GRPCInferenceServiceServicer_to_server(runtime, server)
    server.add_generic_rpc_handlers((streams(runtime),))
    port = server.add_insecure_port(address)
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
