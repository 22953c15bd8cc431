"""How many requests a model, a copy and an instance take, and that one model leaves room for others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from modelmesh_dataplane import CopyRoute, Miss

from api.proto import model_runtime_pb2_grpc
from api.proto.model_runtime_pb2 import LoadModelResponse, RuntimeStatusResponse, UnloadModelResponse
from mesh.runtime import ModelInfo, Runtime
from tests.dataplane.harness import ALIAS, MODEL, Instance, Start, failing, until

if TYPE_CHECKING:
    from mesh.bytes import BytePath


async def in_flight(instance: Instance, count: int) -> None:
    async def reached() -> bool:
        return instance.dataplane.in_flight(MODEL) == count

    await until(reached)


async def test_a_copy_takes_as_many_requests_as_its_server_wants_and_the_rest_wait(
    instance: Instance,
) -> None:
    instance.dataplane.limit(MODEL, 1, 1)
    begin = asyncio.get_running_loop().time()
    calls = [asyncio.ensure_future(instance.infer(request_id="slow:300")) for _ in range(2)]
    await in_flight(instance, 2)
    async with failing(grpc.StatusCode.RESOURCE_EXHAUSTED, "Model queue overload", MODEL):
        await instance.infer()
    assert {answer.model_name for answer in await asyncio.gather(*calls)} == {MODEL}
    assert asyncio.get_running_loop().time() - begin > 0.6
    assert "modelmesh_rejected_requests_total 1\n" in instance.dataplane.metrics()
    instance.dataplane.limit(MODEL, 0, 0)
    await asyncio.gather(*(instance.infer(request_id="slow:50") for _ in range(10)))


async def test_what_does_not_fit_here_is_served_by_another_copy(start: Start) -> None:
    there, here = await start(), await start()
    there.route_local()
    here.route(CopyRoute("self", None), CopyRoute("peer", there.addresses["peer"]))
    here.dataplane.limit(MODEL, 1, 0)
    hanging = asyncio.ensure_future(here.infer(request_id="hang:full"))
    await in_flight(here, 1)
    assert (await here.infer()).model_name == MODEL
    assert [usage[:2] for usage in there.dataplane.usage()] == [(MODEL, 1)]
    hanging.cancel()


async def test_a_model_that_hangs_leaves_room_for_others(start: Start) -> None:
    instance = await start(max_in_flight=20, max_in_flight_per_model=10)
    instance.dataplane.update(
        1,
        {MODEL: [CopyRoute("self", None)], "other": [CopyRoute("self", None)]},
        {ALIAS: [(MODEL, 1)], "other-alias": [("other", 1)]},
    )
    hanging = [asyncio.ensure_future(instance.infer(request_id="hang:room")) for _ in range(10)]
    await in_flight(instance, 10)
    async with failing(grpc.StatusCode.RESOURCE_EXHAUSTED, MODEL):
        await instance.infer()
    for _ in range(20):
        assert (await instance.infer("other-alias")).model_name == "other"
    for call in hanging:
        call.cancel()


async def test_a_model_that_many_wait_for_leaves_room_for_others(start: Start) -> None:
    waiting: list[Miss] = []
    instance = await start(lambda _, miss: waiting.append(miss), max_in_flight=20, max_in_flight_per_model=10)
    instance.dataplane.update(1, {"other": [CopyRoute("self", None)]}, {"other-alias": [("other", 1)]})
    calls = [asyncio.ensure_future(instance.infer()) for _ in range(11)]
    done, rest = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    [refused] = done
    assert "wait for model" in str(refused.exception())
    assert (await instance.infer("other-alias")).model_name == "other"
    instance.route_local()
    waiting[0].serve()
    assert {answer.model_name for answer in await asyncio.gather(*rest)} == {MODEL}


async def test_an_instance_refuses_what_is_too_much_and_says_when_to_come_again(start: Start) -> None:
    instance = await start(max_in_flight=3)
    instance.route_local()
    hanging = [asyncio.ensure_future(instance.infer(request_id="hang:all")) for _ in range(3)]
    await in_flight(instance, 3)
    async with failing(grpc.StatusCode.RESOURCE_EXHAUSTED, "3 requests"):
        await instance.infer()
    body = {"inputs": [{"name": "x", "shape": [1], "datatype": "INT64", "data": [1]}]}
    refused = await instance.rest.post(f"/v2/models/{ALIAS}/infer", json=body)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    for call in hanging:
        call.cancel()


async def test_the_trace_of_a_client_goes_on_to_the_server(start: Start) -> None:
    there, here = await start(), await start()
    there.route_local()
    here.route(CopyRoute("peer", there.addresses["peer"]))
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for instance in (there, here):
        answer = await instance.infer(metadata=[("traceparent", trace), ("tracestate", "a=b")])
        assert answer.parameters["header.traceparent"].string_param == trace
        assert answer.parameters["header.tracestate"].string_param == "a=b"


class LimitingRuntime(model_runtime_pb2_grpc.ModelRuntimeServicer):
    """A model server's SPI that limits the requests for a model to two at a time."""

    async def runtimeStatus(self, _request: object, _context: object) -> RuntimeStatusResponse:  # noqa: N802
        return RuntimeStatusResponse(
            status=RuntimeStatusResponse.READY,
            capacityInBytes=1 << 30,
            maxLoadingConcurrency=1,
            modelLoadingTimeoutMs=1000,
            defaultModelSizeInBytes=1 << 20,
            limitModelConcurrency=True,
        )

    async def loadModel(self, _request: object, _context: object) -> LoadModelResponse:  # noqa: N802
        return LoadModelResponse(sizeInBytes=1, maxConcurrency=2)

    async def unloadModel(self, _request: object, _context: object) -> UnloadModelResponse:  # noqa: N802
        return UnloadModelResponse()


@pytest.mark.parametrize(("bound", "queued"), [(0, 14), (5, 3), (1, 0), (-1, 2**31)])
async def test_the_limit_that_a_server_states_is_kept_until_the_model_is_unloaded(
    start: Start, bound: int, queued: int
) -> None:
    server = grpc.aio.server()
    model_runtime_pb2_grpc.add_ModelRuntimeServicer_to_server(LimitingRuntime(), server)
    target = f"tcp:127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    instance = await start()
    told: list[tuple[Any, ...]] = []

    class Told:
        """The byte path as far as `Runtime` uses it: calls by the real one, limits noted."""

        def channel(self, target: str) -> object:
            return Channel(instance, target)

        def limit(self, *limit: object) -> None:
            told.append(limit)

    byte_path: BytePath = Told()  # type: ignore[assignment]
    runtime = Runtime(target, target, byte_path, bound)
    await runtime.ready()
    await runtime.load(ModelInfo("m", "t", "p", ""), 5)
    await runtime.unload("m")
    assert told == [("m", 2, queued), ("m", 0, 0)]
    await server.stop(0)


class Channel:
    """A channel of the dataplane whose replies the test's instance takes."""

    def __init__(self, instance: Instance, target: str) -> None:
        self._instance = instance
        self._channel = instance.dataplane.channel(target)

    async def call(
        self, method: str, message: bytes, *, timeout_seconds: float | None = None, metadata: Any = ()
    ) -> Any:
        timeout_ms = None if timeout_seconds is None else round(timeout_seconds * 1000)
        sent = self._channel.send(method, message, timeout_ms, metadata)
        reply = await self._instance.reply(sent.number)
        assert reply.code == 0, reply.details
        return reply
