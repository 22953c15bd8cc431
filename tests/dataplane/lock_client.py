"""A client for tests, as a process: `lock_client.py <grpc address> <rest address> <seconds> <hits> <fd>`.

For that long, and until it has had so many hits, it sends them by gRPC and REST, a few at a time. Then it
closes the descriptor and prints, as JSON, how many it sent by each protocol and the time that the slowest of
each took, in seconds.
"""

import asyncio
import itertools
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable

import grpc
import httpx

from api.proto import kfs_inference_v2_pb2 as v2
from api.proto import kfs_inference_v2_pb2_grpc as v2_grpc

ALIAS = "digits"
IN_FLIGHT = 4
BODY = {"inputs": [{"name": "predict", "shape": [1], "datatype": "FP32", "data": [1]}]}


async def repeat(send: Callable[[], Awaitable[object]], more: Callable[[], bool]) -> list[float]:
    times = []
    while more():
        begun = time.monotonic()
        await send()
        times.append(time.monotonic() - begun)
    return times


async def main(grpc_address: str, rest_address: str, seconds: float, hits: int, end: int) -> None:
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
        sent = itertools.count()

        def more() -> bool:
            return next(sent) < hits + IN_FLIGHT or time.monotonic() < until

        results = await asyncio.gather(*(repeat(send, more) for send in (by_grpc, by_grpc, by_grpc, by_rest)))
        os.close(end)
    by_grpc_times = [taken for times in results[:3] for taken in times]
    report = {
        "grpc": {"count": len(by_grpc_times), "slowest": max(by_grpc_times)},
        "rest": {"count": len(results[3]), "slowest": max(results[3])},
    }
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])))
