"""A client for tests, run as a process of its own: `lock_client.py <grpc address> <rest address> <seconds>`.

For that long it sends hits by gRPC and REST, a few at a time. It prints, as JSON, how many it sent by each
protocol and the time that the slowest of each took, in seconds.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable

import grpc
import httpx

from api.proto import kfs_inference_v2_pb2 as v2
from api.proto import kfs_inference_v2_pb2_grpc as v2_grpc

ALIAS = "digits"
BODY = {"inputs": [{"name": "predict", "shape": [1], "datatype": "FP32", "data": [1]}]}


async def repeat(send: Callable[[], Awaitable[object]], until: float) -> list[float]:
    times = []
    while time.monotonic() < until:
        begun = time.monotonic()
        await send()
        times.append(time.monotonic() - begun)
    return times


async def main(grpc_address: str, rest_address: str, seconds: float) -> None:
    async with grpc.aio.insecure_channel(grpc_address) as channel, httpx.AsyncClient(timeout=30) as client:
        infer = v2_grpc.GRPCInferenceServiceStub(channel).ModelInfer

        async def by_grpc() -> None:
            await infer(v2.ModelInferRequest(model_name=ALIAS))

        async def by_rest() -> None:
            response = await client.post(f"http://{rest_address}/v2/models/{ALIAS}/infer", json=BODY)
            response.raise_for_status()

        await asyncio.gather(by_grpc(), by_rest())  # the connections exist
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.readline)
        until = time.monotonic() + seconds
        results = await asyncio.gather(
            repeat(by_grpc, until), repeat(by_grpc, until), repeat(by_grpc, until), repeat(by_rest, until)
        )
    by_grpc_times = [taken for times in results[:3] for taken in times]
    report = {
        "grpc": {"count": len(by_grpc_times), "slowest": max(by_grpc_times)},
        "rest": {"count": len(results[3]), "slowest": max(results[3])},
    }
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
