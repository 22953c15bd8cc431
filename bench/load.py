"""A gRPC load generator: a closed loop of ModelInfer calls, in a process of its own.

The request is encoded once and answers are not decoded, so the generator costs the same whatever it calls. It
prints one JSON object: `{"requests", "errors", "seconds", "rps", "p50_ms", "p99_ms"}`.
"""

import argparse
import asyncio
import json
import time

import grpc

from api.proto import kfs_inference_v2_pb2 as v2
from local.quickstart import EIGHT

METHOD = "/inference.GRPCInferenceService/ModelInfer"


def digit_request(model: str) -> bytes:
    """Encodes a ModelInfer request for the tutorial's digit: FP32, shape [1, 64]."""
    tensor = v2.ModelInferRequest.InferInputTensor(
        name="predict", datatype="FP32", shape=[1, 64], contents=v2.InferTensorContents(fp32_contents=EIGHT)
    )
    return v2.ModelInferRequest(model_name=model, inputs=[tensor]).SerializeToString()


async def run(target: str, model: str, seconds: float, in_flight: int) -> dict[str, float]:
    """Calls `target` (host:port) for `seconds`, with `in_flight` calls open at any time."""
    latencies: list[float] = []
    errors = 0
    request = digit_request(model)
    async with grpc.aio.insecure_channel(target) as channel:
        call = channel.unary_unary(METHOD)
        await call(request, timeout=60)
        start = time.perf_counter()
        end = start + seconds

        async def worker() -> None:
            nonlocal errors
            while (begin := time.perf_counter()) < end:
                try:
                    await call(request, timeout=10)
                    latencies.append(time.perf_counter() - begin)
                except grpc.aio.AioRpcError:
                    errors += 1

        await asyncio.gather(*(worker() for _ in range(in_flight)))
        elapsed = time.perf_counter() - start
    latencies.sort()
    return {
        "requests": len(latencies),
        "errors": errors,
        "seconds": elapsed,
        "rps": len(latencies) / elapsed,
        "p50_ms": 1000 * latencies[len(latencies) // 2],
        "p99_ms": 1000 * latencies[int(len(latencies) * 0.99)],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("model")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--in-flight", type=int, default=8)
    arguments = parser.parse_args()
    print(
        json.dumps(
            asyncio.run(run(arguments.target, arguments.model, arguments.seconds, arguments.in_flight))
        )
    )
