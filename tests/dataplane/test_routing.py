"""Which copy takes a request: misses, failures of the model server, peers."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest
from modelmesh_dataplane import CopyRoute, Dataplane, Miss

from api.proto import kfs_inference_v2_pb2 as v2
from tests.dataplane.harness import ALIAS, MODEL, Instance, RuntimeProcess, Start, failing, until

if TYPE_CHECKING:
    from collections.abc import Callable

GONE = "127.0.0.1:1"  # nobody listens on port 1


def peer(instance: Instance) -> CopyRoute:
    return CopyRoute("peer", instance.addresses["peer"])


def serve_locally(instance: Instance, miss: Miss) -> None:
    """A policy that loads every model here."""
    instance.route_local()
    miss.serve()


def fail(
    code: grpc.StatusCode, text: str, retry_after_ms: int | None = None
) -> Callable[[Instance, Miss], None]:
    return lambda _, miss: miss.fail(code.value[0], text, retry_after_ms)


async def test_a_miss_is_served_once_the_policy_has_a_route(start: Start) -> None:
    instance = await start(serve_locally)
    assert (await instance.infer()).model_name == MODEL
    [miss] = instance.misses
    assert (miss.name, miss.is_alias, miss.model_id) == (ALIAS, True, "")
    assert (miss.excluded, miss.failure, miss.deadline_ms) == ([], None, None)
    assert miss.method == "inference.GRPCInferenceService/ModelInfer"
    assert "modelmesh_cache_miss_milliseconds_count 1\n" in instance.dataplane.metrics()


async def test_the_miss_of_a_known_alias_names_the_model(start: Start) -> None:
    instance = await start()
    instance.dataplane.update(1, {}, {ALIAS: [(MODEL, 1)]})
    async with failing(grpc.StatusCode.NOT_FOUND, "model not found"):
        await instance.infer()
    assert [miss.model_id for miss in instance.misses] == [MODEL]


async def test_a_loading_copy_takes_no_request(start: Start) -> None:
    instance = await start(serve_locally)
    instance.route(CopyRoute("self", None, loaded=False), CopyRoute("other", GONE, loaded=False))
    assert (await instance.infer()).model_name == MODEL
    assert len(instance.misses) == 1


async def test_the_policys_error_reaches_the_client(start: Start) -> None:
    instance = await start(fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "no room", 1500))
    call = instance.stub.ModelInfer(v2.ModelInferRequest(model_name=ALIAS))
    async with failing(grpc.StatusCode.RESOURCE_EXHAUSTED, "no room"):
        await call
    assert ("grpc-retry-pushback-ms", "1500") in tuple(await call.trailing_metadata())


async def test_requests_for_one_model_wait_together(start: Start) -> None:
    waiting: list[Miss] = []
    instance = await start(lambda _, miss: waiting.append(miss))
    calls = [asyncio.ensure_future(instance.infer(timeout=30 + number)) for number in range(20)]

    async def joined() -> bool:
        return bool(waiting) and (waiting[0].deadline_ms or 0) > 48_000

    await until(joined)
    assert len(waiting) == 1
    serve_locally(instance, waiting[0])
    assert {response.model_name for response in await asyncio.gather(*calls)} == {MODEL}


async def test_each_waiting_request_keeps_its_own_deadline(start: Start) -> None:
    waiting: list[Miss] = []
    instance = await start(lambda _, miss: waiting.append(miss))
    patient = asyncio.ensure_future(instance.infer(timeout=60))
    async with failing(grpc.StatusCode.DEADLINE_EXCEEDED):
        await instance.infer(timeout=0.3)
    serve_locally(instance, waiting[0])
    assert (await patient).model_name == MODEL


async def test_an_unanswered_miss_fails_the_request(start: Start) -> None:
    instance = await start(lambda instance, _: instance.misses.clear())
    async with failing(grpc.StatusCode.INTERNAL, "unanswered"):
        await instance.infer()


async def test_a_policy_that_never_helps_is_asked_a_bounded_number_of_times(start: Start) -> None:
    instance = await start(lambda _, miss: miss.serve())
    async with failing(grpc.StatusCode.UNAVAILABLE, ALIAS):
        await instance.infer()
    assert len(instance.misses) == 8


async def test_a_dead_model_server_is_reported_and_the_request_waits_for_it(
    start: Start, runtime_process: RuntimeProcess
) -> None:
    async def revive(instance: Instance, miss: Miss) -> None:
        await asyncio.to_thread(runtime_process.start)
        serve_locally(instance, miss)

    tasks = []
    instance = await start(lambda instance, miss: tasks.append(asyncio.ensure_future(revive(instance, miss))))
    instance.route_local()
    await instance.infer()
    runtime_process.kill()
    assert (await instance.infer()).model_name == MODEL
    assert [(miss.failure, miss.excluded) for miss in instance.misses] == [("unavailable", ["self"])]
    await asyncio.gather(*tasks)


async def test_a_request_that_breaks_its_server_is_not_repeated_for_ever(
    start: Start, runtime_process: RuntimeProcess
) -> None:
    def revive(instance: Instance, miss: Miss) -> None:
        runtime_process.kill()
        runtime_process.start()
        serve_locally(instance, miss)

    instance = await start(revive)
    instance.route_local()
    async with failing(grpc.StatusCode.UNAVAILABLE, "no answer from the server"):
        await instance.infer(request_id="crash")
    assert [miss.failure for miss in instance.misses] == ["unavailable"]
    runtime_process.kill()
    runtime_process.start()


async def test_a_server_that_lost_the_model_is_reported_and_asked_again(start: Start) -> None:
    instance = await start(serve_locally)
    instance.dataplane.update(1, {"lost-once": [CopyRoute("self", None)]}, {"once": [("lost-once", 1)]})
    assert (await instance.infer("once", "lost:1")).model_name == "lost-once"
    [miss] = instance.misses
    assert (miss.failure, miss.excluded, miss.model_id) == ("not_found", ["self"], "lost-once")


async def test_a_model_that_is_lost_again_at_once_is_not_loaded_for_ever(start: Start) -> None:
    instance = await start(serve_locally)
    instance.dataplane.update(1, {"lost-twice": [CopyRoute("self", None)]}, {"twice": [("lost-twice", 1)]})
    async with failing(grpc.StatusCode.INVALID_ARGUMENT, "Model lost-twice not found"):
        await instance.infer("twice", "lost:2")
    assert len(instance.misses) == 1


async def test_what_a_server_that_has_the_model_does_not_find_is_no_reason_to_load_it(start: Start) -> None:
    instance = await start(serve_locally)
    instance.route_local()
    text = f"Model {MODEL} with version 9 not found"
    async with failing(grpc.StatusCode.NOT_FOUND, text):
        await instance.infer(request_id=f"error:NOT_FOUND:{text}")
    assert instance.misses == []


async def test_a_request_goes_to_the_peer_that_has_the_copy(start: Start) -> None:
    there, here = await start(), await start()
    there.dataplane.update(1, {MODEL: [CopyRoute("peer", None)]}, {})
    here.route(peer(there))
    response = await here.infer(metadata=[("x-mine", "1")], timeout=20)
    assert response.model_name == MODEL
    assert response.parameters["header.x-mine"].string_param == "1"
    assert 10_000 < response.parameters["left_ms"].int64_param <= 20_000
    assert "header.mm-hop" not in response.parameters
    assert [model for model, *_ in there.dataplane.usage()] == [MODEL]
    assert here.dataplane.usage() == []
    assert "modelmesh_forwarded_requests_total 1\n" in here.dataplane.metrics()


async def test_the_local_copy_is_preferred(start: Start) -> None:
    there, here = await start(), await start()
    there.dataplane.update(1, {MODEL: [CopyRoute("peer", None)]}, {})
    here.route(peer(there), CopyRoute("self", None))
    for _ in range(10):
        await here.infer()
    assert there.dataplane.usage() == []


async def test_a_peer_without_the_copy_and_a_dead_one_are_left_for_another(start: Start) -> None:
    there, here, empty = await start(), await start(), await start()
    there.dataplane.update(1, {MODEL: [CopyRoute("peer", None)]}, {})
    for _ in range(5):
        here.route(
            CopyRoute("empty", empty.addresses["peer"]), CopyRoute("dead", GONE), peer(there), generation=1
        )
        assert (await here.infer()).model_name == MODEL
    assert here.misses == []


async def test_when_every_peer_fails_the_policy_is_told_which(start: Start) -> None:
    here, empty = await start(serve_locally), await start()
    here.route(CopyRoute("empty", empty.addresses["peer"]), CopyRoute("dead", GONE))
    assert (await here.infer()).model_name == MODEL
    [miss] = here.misses
    assert sorted(miss.excluded) == ["dead", "empty"]
    assert miss.failure is None


async def test_a_hop_is_never_sent_on(start: Start) -> None:
    one, other = await start(), await start()
    one.route(CopyRoute("other", other.addresses["peer"]))
    other.route(CopyRoute("one", one.addresses["peer"]))
    async with failing(grpc.StatusCode.NOT_FOUND):
        await one.infer()
    assert len(one.misses) == 1
    assert other.misses == []


async def test_a_server_error_behind_a_peer_is_the_clients(start: Start) -> None:
    there, here = await start(), await start()
    there.dataplane.update(1, {MODEL: [CopyRoute("peer", None)]}, {})
    here.route(peer(there))
    async with failing(grpc.StatusCode.INVALID_ARGUMENT, "wrong shape"):
        await here.infer(request_id="error:INVALID_ARGUMENT:wrong shape")
    assert here.misses == []


async def test_a_peer_whose_server_is_dead_is_left_and_its_policy_is_told(start: Start) -> None:
    there = await start(runtime_target="unix:/nonexistent/socket", instance_id="peer")
    here = await start(serve_locally)
    there.dataplane.update(1, {MODEL: [CopyRoute("peer", None)]}, {})
    here.route(peer(there))
    assert (await here.infer()).model_name == MODEL
    assert [miss.excluded for miss in here.misses] == [["peer"]]

    async def told() -> bool:
        return [(miss.failure, miss.model_id) for miss in there.misses] == [("unavailable", MODEL)]

    await until(told)


async def test_an_instance_without_a_model_server_only_routes(start: Start) -> None:
    there, gateway = await start(), await start(runtime_target=None)
    there.dataplane.update(1, {MODEL: [CopyRoute("peer", None)]}, {})
    gateway.route(peer(there))
    assert (await gateway.infer()).model_name == MODEL


async def test_the_peer_port_is_for_hops_only(instance: Instance) -> None:
    async with grpc.aio.insecure_channel(instance.addresses["peer"]) as channel:
        async with failing(grpc.StatusCode.UNIMPLEMENTED):
            await channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(b"")
        async with failing(grpc.StatusCode.UNIMPLEMENTED, "not for clients"):
            hop = [("mm-hop", "hit"), ("mm-model-id", MODEL)]
            await channel.unary_unary("/mmesh.ModelRuntime/unloadModel")(b"", metadata=hop)
        async with failing(grpc.StatusCode.UNIMPLEMENTED, "the policy has no such method"):
            await channel.unary_unary("/modelmesh.internal.Peer/Anything")(b"")


async def test_requests_are_spread_over_peers(start: Start) -> None:
    one, other, here = await start(), await start(), await start()
    for there in [one, other]:
        there.dataplane.update(1, {MODEL: [CopyRoute("peer", None)]}, {})
    here.route(CopyRoute("one", one.addresses["peer"]), CopyRoute("other", other.addresses["peer"]))
    await asyncio.gather(*(here.infer(request_id="slow:5") for _ in range(40)))
    shares = [there.dataplane.usage()[0][1] for there in [one, other]]
    assert sum(shares) == 40
    assert min(shares) >= 8


async def test_a_removed_copy_ends_its_requests_and_takes_no_more(instance: Instance) -> None:
    call = asyncio.ensure_future(instance.infer(request_id="slow:300"))

    async def arrived() -> bool:
        return instance.dataplane.in_flight(MODEL) == 1

    await until(arrived)
    instance.dataplane.update(2, {MODEL: None}, {})
    assert instance.dataplane.in_flight(MODEL) == 1
    async with failing(grpc.StatusCode.NOT_FOUND):
        await instance.infer()
    assert (await call).model_name == MODEL
    assert instance.dataplane.in_flight(MODEL) == 0


async def test_a_shared_port_is_served_by_those_that_are_ready(start: Start) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
        one = await start(shared_listen_rest=[address])
        other = await start(shared_listen_rest=[address])

    async def connect() -> int:
        async with httpx.AsyncClient() as client:
            return (await client.get(f"http://{address}/v2/health/ready")).status_code

    with pytest.raises(httpx.ConnectError):
        await connect()
    one.dataplane.set_ready(True)
    other.dataplane.set_ready(True)
    assert {await connect() for _ in range(20)} == {200}
    one.dataplane.set_ready(False)
    assert {await connect() for _ in range(20)} == {200}
    other.dataplane.set_ready(False)

    async def closed() -> bool:
        try:
            await connect()
        except httpx.ConnectError:
            return True
        return False

    await until(closed)


def test_a_dataplane_that_has_stopped_stays_so() -> None:
    dataplane = Dataplane(
        instance_id="self",
        runtime_target=None,
        grpc_listen=["127.0.0.1:0"],
    )
    dataplane.start()
    dataplane.stop(0)
    dataplane.stop(0)
    with pytest.raises(RuntimeError):
        dataplane.start()


async def test_stopping_lets_requests_end(start: Start) -> None:
    instance = await start()
    instance.route_local()
    call = asyncio.ensure_future(instance.infer(request_id="slow:500"))

    async def arrived() -> bool:
        return instance.dataplane.in_flight(MODEL) == 1

    await until(arrived)
    await asyncio.to_thread(instance.dataplane.stop, 10_000)
    assert (await call).model_name == MODEL


async def test_stopping_fails_those_that_wait_for_a_model(start: Start) -> None:
    waiting: list[Miss] = []
    instance = await start(lambda _, miss: waiting.append(miss))
    call = asyncio.ensure_future(instance.infer())

    async def joined() -> bool:
        return bool(waiting)

    await until(joined)
    await asyncio.to_thread(instance.dataplane.stop, 200)
    async with failing(grpc.StatusCode.UNAVAILABLE, "shutting down"):
        await call
