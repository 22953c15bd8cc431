"""Calls of the policy by the real byte path, to servers that are not as ours."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from mesh.bytes import CallError, Channel
from mesh.calls import MAX_INFLATED_BYTES
from mesh.native import NativeBytePath
from tests.mesh.conftest import config

METHOD = "some.Service/Call"
Start = Callable[[grpc.Compression], Awaitable[Channel]]


class Repeat(grpc.GenericRpcHandler):
    """Answers with as many bytes as the request says, and with metadata; fails with a text as long."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        async def repeat(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            context.set_trailing_metadata((("of", handler_call_details.method),))
            return b"x" * int(request)

        async def fail(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            await context.abort(StatusCode.INTERNAL, "x" * int(request))
            raise AssertionError

        method = fail if handler_call_details.method.endswith("/Fail") else repeat
        return grpc.unary_unary_rpc_method_handler(method)


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    byte_path = NativeBytePath(config("one", 1))
    byte_path.start(lambda _: None, {})
    servers = []

    async def start(compression: grpc.Compression) -> Channel:
        server = grpc.aio.server(handlers=(Repeat(),), compression=compression)
        servers.append(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return byte_path.channel(f"tcp:127.0.0.1:{port}")

    yield start
    await byte_path.stop(0)
    for server in servers:
        await server.stop(0)


@pytest.mark.parametrize(
    "compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip, grpc.Compression.Deflate]
)
async def test_a_server_that_compresses_unasked_is_understood(
    start: Start, compression: grpc.Compression
) -> None:
    channel = await start(compression)
    reply = await channel.call(METHOD, b"5000")
    assert reply.message == b"x" * 5000
    assert reply.metadata("of") == f"/{METHOD}"
    assert reply.retry_after_ms is None


async def test_a_small_answer_that_is_a_large_one_is_refused(start: Start) -> None:
    channel = await start(grpc.Compression.Gzip)
    assert len((await channel.call(METHOD, b"%d" % (MAX_INFLATED_BYTES - 1))).message) < MAX_INFLATED_BYTES
    with pytest.raises(CallError, match=str(MAX_INFLATED_BYTES)) as caught:
        await channel.call(METHOD, b"%d" % (MAX_INFLATED_BYTES + 1))
    assert caught.value.code is StatusCode.INTERNAL


async def test_a_traceback_of_any_length_is_an_error_and_no_dead_server(start: Start) -> None:
    channel = await start(grpc.Compression.NoCompression)
    for length in (10_000, 100_000, 500_000):
        with pytest.raises(CallError) as caught:
            await channel.call("some.Service/Fail", b"%d" % length)
        assert (caught.value.code, len(caught.value.details)) == (StatusCode.INTERNAL, length)


async def test_calls_that_are_given_up_while_their_replies_come_leave_nothing_behind(start: Start) -> None:
    channel = await start(grpc.Compression.NoCompression)
    calls = [asyncio.create_task(channel.call(METHOD, b"1")) for _ in range(200)]
    await calls[0]
    for call in calls:
        call.cancel()
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert not [one for one in ended if isinstance(one, Exception)]
    assert (await channel.call(METHOD, b"2")).message == b"xx"
    assert channel._waiting == set()  # type: ignore[attr-defined]
    assert channel._inbox._waiting == {}  # type: ignore[attr-defined]
