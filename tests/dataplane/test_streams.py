"""Streams of all kinds through the dataplane, to the own model server and over a peer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
import pytest
from modelmesh_dataplane import CopyRoute, Miss

from api.proto import kfs_inference_v2_pb2 as v2
from tests.dataplane.harness import ALIAS, MODEL, Instance, Start, failing, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MIB = 1 << 20
CODEC = {
    "request_serializer": v2.ModelInferRequest.SerializeToString,
    "response_deserializer": v2.ModelInferResponse.FromString,
}


def request(number: object, name: str = ALIAS, size: int = 0) -> v2.ModelInferRequest:
    contents = [b"x" * size] if size else []
    return v2.ModelInferRequest(model_name=name, id=str(number), raw_input_contents=contents)


def echo(instance: Instance, **options: object) -> grpc.aio.StreamStreamCall:
    return instance.channel.stream_stream("/test.Streams/Echo", **CODEC)(**options)


@pytest.fixture(params=["hit", "forward"])
async def entry(request: pytest.FixtureRequest, start: Start) -> AsyncIterator[Instance]:
    """An instance that serves the model itself, or sends it to a peer."""
    there = await start()
    there.route_local()
    if request.param == "hit":
        yield there
        return
    here = await start()
    here.route(CopyRoute("peer", there.addresses["peer"]))
    yield here


async def test_messages_go_both_ways_as_they_come_each_with_the_concrete_id(entry: Instance) -> None:
    call = echo(entry)
    for number in range(5):
        size = 200_000 * (number % 2)
        await call.write(request(number, size=size))
        answer = await call.read()
        assert (answer.model_name, answer.id) == (MODEL, str(number))
        assert sum(map(len, answer.raw_output_contents)) == size
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() == grpc.StatusCode.OK


async def test_a_client_that_streams_gets_one_answer(entry: Instance) -> None:
    async def requests() -> AsyncIterator[v2.ModelInferRequest]:
        for number in range(20):
            yield request(number, size=100_000)

    answer = await entry.channel.stream_unary("/test.Streams/Collect", **CODEC)(requests())
    assert (answer.model_name, answer.id) == (MODEL, ",".join(map(str, range(20))))


async def test_a_server_that_streams_is_heard_to_its_end(entry: Instance) -> None:
    call = entry.channel.unary_stream("/test.Streams/Expand", **CODEC)(request(1000))
    assert [answer.id async for answer in call] == [str(number) for number in range(1000)]


async def test_compressed_messages_of_a_stream_are_spliced(entry: Instance) -> None:
    call = echo(entry, compression=grpc.Compression.Gzip)
    for number in range(3):
        await call.write(request(number, size=50_000))
        assert (await call.read()).model_name == MODEL
    await call.done_writing()


async def test_a_server_may_speak_first_where_the_headers_name_the_model(entry: Instance) -> None:
    call = entry.channel.stream_stream("/test.Streams/Greet", **CODEC)(metadata=[("mm-vmodel-id", ALIAS)])
    async with asyncio.timeout(10):
        assert (await call.read()).id == "hello"
        await call.write(request(1))
        assert (await call.read()).id == f"hello {MODEL}"
        await call.done_writing()
        assert await call.code() == grpc.StatusCode.OK


async def test_the_head_of_an_answer_does_not_wait_for_its_first_message(entry: Instance) -> None:
    call = echo(entry, metadata=[("mm-vmodel-id", ALIAS), ("x-early", "1")])
    async with asyncio.timeout(10):
        assert ("x-served-by", "fake") in tuple(await call.initial_metadata())
    call.cancel()


async def test_the_servers_error_ends_the_stream_with_its_details(entry: Instance) -> None:
    call = echo(entry)
    await call.write(request(1))
    await call.read()
    await call.write(request("error"))
    async with failing(grpc.StatusCode.OUT_OF_RANGE, "enough"):
        await call.read()
    assert ("x-detail-bin", b"why") in tuple(await call.trailing_metadata())


async def test_a_stream_holds_its_copy_until_it_ends(instance: Instance) -> None:
    call = echo(instance)
    await call.write(request(1))
    await call.read()
    assert instance.dataplane.in_flight(MODEL) == 1
    await call.done_writing()
    await call.read()

    async def ended() -> bool:
        return instance.dataplane.in_flight(MODEL) == 0

    await until(ended)


async def test_a_cancelled_stream_is_cancelled_at_the_server(start: Start, entry: Instance) -> None:
    del start
    call = echo(entry)
    await call.write(request("hang"))
    await call.read()
    call.cancel()

    async def cancelled() -> bool:
        asked = await entry.infer(request_id=f"cancelled:{MODEL}")
        return asked.parameters["cancelled"].bool_param

    await until(cancelled)


async def test_the_deadline_ends_a_stream_whose_client_still_sends(entry: Instance) -> None:
    call = echo(entry, timeout=0.5)
    await call.write(request(1))
    await call.read()
    async with failing(grpc.StatusCode.DEADLINE_EXCEEDED):
        await call.read()


async def test_a_later_message_that_cannot_be_read_ends_the_stream_in_words(instance: Instance) -> None:
    call = instance.channel.stream_stream("/test.Streams/Echo")()
    await call.write(request(1).SerializeToString())
    await call.read()
    await call.write(b"\x0a\x7fabc")
    async with failing(grpc.StatusCode.INVALID_ARGUMENT, "malformed"):
        await call.read()


async def test_each_message_of_a_stream_has_the_limit_of_one(start: Start) -> None:
    instance = await start(max_message_bytes=MIB)
    instance.route_local()
    call = echo(instance)
    for number in range(3):
        await call.write(request(number, size=MIB - 1000))
        assert len((await call.read()).raw_output_contents[0]) == MIB - 1000
    await call.write(request(3, size=MIB))
    async with failing(grpc.StatusCode.RESOURCE_EXHAUSTED, str(MIB)):
        await call.read()


async def test_a_stream_waits_for_its_model_and_is_tried_again_after_its_first_message(start: Start) -> None:
    def serve(instance: Instance, miss: Miss) -> None:
        instance.dataplane.update(
            1, {"lost-stream": [CopyRoute("self", None)]}, {ALIAS: [("lost-stream", 1)]}
        )
        miss.serve()

    instance = await start(serve)
    call = echo(instance)
    await call.write(request("lost1"))
    assert (await call.read()).model_name == "lost-stream"
    await call.write(request(2))
    assert (await call.read()).id == "2"
    await call.done_writing()
    assert await call.code() == grpc.StatusCode.OK


async def test_many_streams_at_once_do_not_mix(entry: Instance) -> None:
    async def talk(stream: int) -> None:
        call = echo(entry)
        for number in range(20):
            await call.write(request(f"{stream}-{number}"))
            assert (await call.read()).id == f"{stream}-{number}"
        await call.done_writing()

    async with asyncio.TaskGroup() as group:
        for stream in range(50):
            group.create_task(talk(stream))


async def test_several_models_at_once_answer_in_the_order_of_the_header(start: Start) -> None:
    instance = await start()
    models = {name: [CopyRoute("self", None)] for name in ("a", "b", "c")}
    instance.dataplane.update(1, models, {})
    instance.dataplane.set_rpcs({}, allow_other=True)

    async def ask(*names: str, **options: object) -> list[str]:
        metadata = [("mm-model-id", name) for name in names] + list(options.items())
        call = instance.stub.ModelInfer(v2.ModelInferRequest(id="x"), metadata=metadata)
        # Repeated fields are joined, so there is an output of each model.
        return [output.name for output in (await call).outputs]

    assert len(await ask("b", "a", "c")) == 3
    assert (await instance.infer("", metadata=[("mm-model-id", "c"), ("mm-model-id", "a")])).model_name == "a"
    assert len(await ask("a", "unknown")) == 1
    async with failing(grpc.StatusCode.NOT_FOUND, "model not found"):
        await ask("a", "unknown", **{"mm-required": "all"})
    async with failing(grpc.StatusCode.NOT_FOUND, "none of the requested models were found"):
        await ask("unknown", "other")
