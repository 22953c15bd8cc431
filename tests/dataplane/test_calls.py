"""Calls that the policy answers, and calls that it makes."""

from __future__ import annotations

import asyncio
import select
from typing import Any

import grpc
import pytest
from modelmesh_dataplane import Call, Channel, Dataplane, Reply

from api.proto import kfs_inference_v2_pb2 as v2
from tests.dataplane.harness import Instance, RuntimeProcess, Start, failing, until

METHOD = "mmesh.ModelMesh/getModelStatus"
INFER = "inference.GRPCInferenceService/ModelInfer"
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.value[0]


def is_readable(dataplane: Dataplane) -> bool:
    return bool(select.select([dataplane.fileno()], [], [], 0)[0])


async def test_a_call_reaches_the_policy_as_it_was_sent_and_is_answered_once(start: Start) -> None:
    seen: list[tuple[str, bytes, int | None]] = []

    def on_call(call: Call) -> None:
        seen.append((call.method, call.message, call.deadline_ms))
        call.reply(b"first")
        call.reply(b"second")
        call.fail(13, "third")

    instance = await start(on_call=on_call)
    call = instance.channel.unary_unary(f"/{METHOD}")
    assert await call(b"asked", timeout=5) == b"first"
    assert await call(b"") == b"first"
    [(method, message, deadline), (_, nothing, never)] = seen
    assert (method, message, nothing, never) == (METHOD, b"asked", b"", None)
    assert deadline is not None
    assert 0 < deadline <= 5000
    assert instance.gone == []


async def test_an_error_arrives_with_its_text_and_metadata(start: Start) -> None:
    def on_call(call: Call) -> None:
        call.fail(8, "größer als 100 %\nmodel", retry_after_ms=1500, metadata=[("mm-cause", "INTERNAL")])

    instance = await start(on_call=on_call)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await instance.channel.unary_unary(f"/{METHOD}")(b"")
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caught.value.details() == "größer als 100 %\nmodel"
    trailers = dict(caught.value.trailing_metadata() or ())
    assert (trailers["grpc-retry-pushback-ms"], trailers["mm-cause"]) == ("1500", "INTERNAL")


async def test_what_is_no_error_or_no_metadata_is_refused(start: Start) -> None:
    refused: list[str] = []

    def on_call(call: Call) -> None:
        for code, metadata in ((0, []), (8, [("Not A Name", "x")]), (8, [("x", "a\nb")])):
            with pytest.raises(ValueError, match=r".") as caught:
                call.fail(code, "text", None, metadata)
            refused.append(str(caught.value))
        call.reply(b"")

    instance = await start(on_call=on_call)
    await instance.channel.unary_unary(f"/{METHOD}")(b"")
    assert refused[0] == "a request cannot fail with the code OK"
    assert len(refused) == 3


async def test_a_call_that_is_dropped_unanswered_fails(start: Start) -> None:
    instance = await start(on_call=lambda _: None)
    async with failing(grpc.StatusCode.INTERNAL, "unanswered"):
        await instance.channel.unary_unary(f"/{METHOD}")(b"")
    assert instance.gone == []


async def test_the_policy_learns_that_a_client_has_gone(start: Start) -> None:
    calls: list[Call] = []
    instance = await start(on_call=calls.append)
    call = instance.channel.unary_unary(f"/{METHOD}")(b"")

    async def asked() -> bool:
        return bool(calls)

    async def told() -> bool:
        return bool(instance.gone)

    ended = asyncio.ensure_future(call)
    await until(asked)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ended
    await until(told)
    assert instance.gone == [calls[0].number]
    calls[0].reply(b"late")


async def test_the_policy_learns_that_a_deadline_has_passed(start: Start) -> None:
    calls: list[Call] = []
    instance = await start(on_call=calls.append)
    async with failing(grpc.StatusCode.DEADLINE_EXCEEDED):
        await instance.channel.unary_unary(f"/{METHOD}")(b"", timeout=0.2)

    async def told() -> bool:
        return instance.gone == [calls[0].number]

    await until(told)
    assert calls[0].deadline_ms == 0


async def test_messages_that_are_too_large_are_refused_and_compressed_ones_understood(start: Start) -> None:
    instance = await start(on_call=lambda call: call.reply(call.message[-1:]))
    call = instance.channel.unary_unary(f"/{METHOD}")
    assert await call(b"x" * (4 << 20)) == b"x"
    async with failing(grpc.StatusCode.RESOURCE_EXHAUSTED, "4194304 bytes"):
        await call(b"x" * ((4 << 20) + 1))
    assert await call(b"x" * 100_000, compression=grpc.Compression.Gzip) == b"x"
    async with failing(grpc.StatusCode.RESOURCE_EXHAUSTED, "4194304 bytes"):
        await call(b"x" * ((4 << 20) + 1), compression=grpc.Compression.Gzip)


async def test_a_method_of_the_policy_takes_one_message(start: Start) -> None:
    instance = await start(on_call=lambda call: call.reply(call.message))
    call = instance.channel.stream_unary(f"/{METHOD}")
    assert await call(iter([b"1"])) == b"1"
    async with failing(grpc.StatusCode.UNIMPLEMENTED, "one request message"):
        await call(iter([b"1", b"2"]))


async def test_stopping_fails_the_calls_that_wait_for_the_policy(start: Start) -> None:
    calls: list[Call] = []
    instance = await start(on_call=calls.append)
    waiting = asyncio.ensure_future(instance.channel.unary_unary(f"/{METHOD}")(b""))

    async def asked() -> bool:
        return bool(calls)

    await until(asked)
    await asyncio.to_thread(instance.dataplane.stop, 100)
    async with failing(grpc.StatusCode.UNAVAILABLE, "shutting down"):
        await waiting


async def test_health_is_that_of_the_instance_and_reflection_is_not_there(instance: Instance) -> None:
    check = instance.channel.unary_unary("/grpc.health.v1.Health/Check")
    assert await check(b"") == b"\x08\x02"
    instance.dataplane.set_ready(True)
    assert await check(b"\n\x03any") == b"\x08\x01"
    async with failing(grpc.StatusCode.UNIMPLEMENTED, "only Check"):
        async for _ in instance.channel.unary_stream("/grpc.health.v1.Health/Watch")(b""):
            pass
    stream: Any = instance.channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    )()
    async with failing(grpc.StatusCode.UNIMPLEMENTED, "reflection"):
        await stream.read()


async def test_the_descriptor_is_readable_while_there_is_something_to_take(start: Start) -> None:
    instance = await start()
    asyncio.get_running_loop().remove_reader(instance.dataplane.fileno())
    assert not is_readable(instance.dataplane)
    asked = [
        asyncio.ensure_future(instance.channel.unary_unary(f"/{METHOD}")(bytes([number])))
        for number in range(3)
    ]
    events: list[object] = []

    async def all_taken() -> bool:
        if is_readable(instance.dataplane):
            events.extend(instance.dataplane.take())
            assert not is_readable(instance.dataplane) or len(events) < 3
        return len(events) == 3

    await until(all_taken)
    assert instance.dataplane.take() == []
    for event in events:
        assert isinstance(event, Call)
        event.reply(event.message)
    assert await asyncio.gather(*asked) == [b"\0", b"\1", b"\2"]


@pytest.fixture
async def server(start: Start, runtime_process: RuntimeProcess) -> Server:
    instance = await start()
    return Server(instance, instance.dataplane.channel(runtime_process.target))


class Server:
    """The fake model server, called by the policy."""

    def __init__(self, instance: Instance, channel: Channel) -> None:
        self._instance = instance
        self.channel = channel

    async def infer(
        self, request_id: str = "", *, timeout_ms: int | None = None, metadata: Any = (), **fields: Any
    ) -> Reply:
        request = v2.ModelInferRequest(model_name="m", id=request_id, **fields)
        return await self.send(request.SerializeToString(), timeout_ms, metadata)

    async def send(self, message: bytes, timeout_ms: int | None = None, metadata: Any = ()) -> Reply:
        sent = self.channel.send(INFER, message, timeout_ms, metadata)
        return await asyncio.wait_for(self._instance.reply(sent.number), 20)


async def test_a_call_of_the_policy_brings_the_answer_and_its_metadata(server: Server) -> None:
    reply = await server.infer("r", metadata=[("mm-session", "s")], timeout_ms=5000)
    answer = v2.ModelInferResponse.FromString(reply.message)
    assert (reply.code, reply.details, answer.id) == (0, "", "r")
    assert answer.parameters["header.mm-session"].string_param == "s"
    assert 0 < answer.parameters["left_ms"].int64_param <= 5000
    assert reply.metadata("x-served-by") == "fake"
    assert reply.metadata("x-other") is None


async def test_an_error_of_the_server_has_its_code_text_and_metadata(server: Server) -> None:
    reply = await server.infer("error:FAILED_PRECONDITION:größer als 100 %")
    assert (reply.code, reply.details, reply.message) == (9, "größer als 100 %", b"")
    assert reply.metadata("x-detail") == "why"


async def test_an_unknown_method_is_unimplemented(server: Server, start: Start) -> None:
    there = await start()
    channel = there.dataplane.channel(f"tcp:{there.addresses['grpc']}")
    sent = channel.send("mmesh.ModelRuntime/loadModel", b"")
    reply = await asyncio.wait_for(there.reply(sent.number), 20)
    assert (reply.code, reply.details) == (12, "mmesh.ModelRuntime is not for clients")
    assert (await server.send(b"\xff")).code != 0


async def test_large_messages_pass_both_ways_up_to_the_limit(server: Server) -> None:
    tensor = v2.ModelInferRequest.InferInputTensor(name="x", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(b"x" * (12 << 20))
    reply = await server.infer(inputs=[tensor])
    [output] = v2.ModelInferResponse.FromString(reply.message).outputs
    assert len(output.contents.bytes_contents[0]) == 12 << 20
    tensor.contents.bytes_contents[0] = b"x" * (17 << 20)
    reply = await server.infer(inputs=[tensor])
    assert reply.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    assert "limit of 16777216 bytes" in reply.details


async def test_a_call_that_takes_too_long_or_is_cancelled_ends_at_the_server(server: Server) -> None:
    reply = await server.infer("hang:late", timeout_ms=200)
    assert reply.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
    request = v2.ModelInferRequest(model_name="m", id="hang:given-up")
    sent = server.channel.send(INFER, request.SerializeToString())
    assert (await server.infer()).code == 0  # on the same connection, so the other has been sent
    sent.cancel()

    async def both_cancelled() -> bool:
        answers = [await server.infer(f"cancelled:{key}") for key in ("late", "given-up")]
        return all(
            v2.ModelInferResponse.FromString(answer.message).parameters["cancelled"].bool_param
            for answer in answers
        )

    await until(both_cancelled)


async def test_a_server_that_is_not_there_is_unavailable_and_found_when_it_is_back(
    server: Server, runtime_process: RuntimeProcess
) -> None:
    assert (await server.infer()).code == 0
    hanging = asyncio.ensure_future(server.infer("hang:crash"))
    assert (await server.infer()).code == 0
    runtime_process.kill()
    assert (await hanging).code == UNAVAILABLE
    for _ in range(3):
        reply = await server.infer()
        assert (reply.code, runtime_process.target in reply.details) == (UNAVAILABLE, True)
    runtime_process.start()
    assert (await server.infer()).code == 0


def test_a_call_where_no_byte_path_runs_is_unavailable() -> None:
    dataplane = Dataplane(instance_id="self", runtime_target=None, grpc_listen=["127.0.0.1:0"])
    channel = dataplane.channel("tcp:127.0.0.1:1")

    def unavailable() -> None:
        sent = channel.send(INFER, b"")
        assert is_readable(dataplane)
        [reply] = dataplane.take()
        assert isinstance(reply, Reply)
        assert (reply.number, reply.code) == (sent.number, UNAVAILABLE)

    unavailable()
    dataplane.start()
    dataplane.stop(0)
    unavailable()


async def test_calls_under_way_end_when_the_byte_path_stops(instance: Instance) -> None:
    silent = await asyncio.start_server(lambda _, __: None, "127.0.0.1", 0)
    host, port = silent.sockets[0].getsockname()
    number = instance.dataplane.channel(f"tcp:{host}:{port}").send(INFER, b"").number
    await asyncio.to_thread(instance.dataplane.stop, 0)
    assert (await asyncio.wait_for(instance.reply(number), 10)).code == UNAVAILABLE
    silent.close()


def test_a_target_or_method_that_means_nothing_is_refused() -> None:
    dataplane = Dataplane(instance_id="self", runtime_target=None, grpc_listen=["127.0.0.1:0"])
    with pytest.raises(ValueError, match="neither unix"):
        dataplane.channel("localhost:1")
    channel = dataplane.channel("tcp:localhost:1")
    with pytest.raises(ValueError, match=r"."):
        channel.send("a service/method", b"")
    with pytest.raises(ValueError, match=r"."):
        channel.send(INFER, b"", None, [("Bad Name", "")])
    assert dataplane.take() == []
