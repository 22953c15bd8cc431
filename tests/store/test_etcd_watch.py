"""A watch goes on where its last part ended, against a server that answers as etcd does under load."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from store.etcd import EtcdStore
from store.proto import etcd_kv_pb2, etcd_rpc_pb2, etcd_rpc_pb2_grpc

LATEST = 5_000


class CatchingUp(etcd_rpc_pb2_grpc.WatchServicer):
    """Tells of late changes in parts, with its latest revision in every header, and breaks after each."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def Watch(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """One part of one change."""
        request = await anext(requests)
        start = request.create_request.start_revision
        self.asked.append(start)
        header = etcd_rpc_pb2.ResponseHeader(revision=LATEST)
        yield etcd_rpc_pb2.WatchResponse(header=header, created=True)
        kv = etcd_kv_pb2.KeyValue(key=b"/a", value=b"1", mod_revision=start + 9, create_revision=1)
        yield etcd_rpc_pb2.WatchResponse(header=header, events=[etcd_kv_pb2.Event(kv=kv)])
        await context.abort(grpc.StatusCode.UNAVAILABLE, "broken")


@pytest.fixture
async def catching_up() -> AsyncIterator[tuple[CatchingUp, EtcdStore]]:
    servicer, server = CatchingUp(), grpc.aio.server()
    etcd_rpc_pb2_grpc.add_WatchServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    store = EtcdStore([f"127.0.0.1:{port}"])
    yield servicer, store
    await store.close()
    await server.stop(0)


async def test_a_watch_that_breaks_between_two_parts_misses_nothing(
    catching_up: tuple[CatchingUp, EtcdStore],
) -> None:
    servicer, store = catching_up
    seen = []
    async with asyncio.timeout(10):
        async for events in store.watch("/", revision=100):
            seen += [event.mod_revision for event in events.events]
            if len(seen) == 3:
                break
    assert servicer.asked == [101, 111, 121]
    assert seen == [110, 120, 130]


class Guarded(etcd_rpc_pb2_grpc.WatchServicer, etcd_rpc_pb2_grpc.AuthServicer):
    """Takes only the latest token, and says so as etcd does: in an answer without a code."""

    def __init__(self, reason: str) -> None:
        self._reason = reason
        self._tokens = 0

    async def Authenticate(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        self._tokens += 1
        return etcd_rpc_pb2.AuthenticateResponse(token=f"t{self._tokens}")

    async def Watch(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:  # noqa: N802
        await anext(requests)
        header = etcd_rpc_pb2.ResponseHeader(revision=LATEST)
        if dict(context.invocation_metadata())["token"] == "t1":
            yield etcd_rpc_pb2.WatchResponse(
                header=header, created=True, canceled=True, cancel_reason=self._reason
            )
            return
        kv = etcd_kv_pb2.KeyValue(key=b"/a", value=b"1", mod_revision=LATEST, create_revision=1)
        yield etcd_rpc_pb2.WatchResponse(header=header, events=[etcd_kv_pb2.Event(kv=kv)])


@pytest.mark.parametrize(
    "reason",
    [
        "rpc error: code = PermissionDenied desc = etcdserver: permission denied",
        "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token",
        "rpc error: code = InvalidArgument desc = etcdserver: revision of auth store is old",
    ],
)
async def test_a_watch_refused_for_its_token_goes_on_with_a_new_one(reason: str) -> None:
    servicer, server = Guarded(reason), grpc.aio.server()
    etcd_rpc_pb2_grpc.add_WatchServicer_to_server(servicer, server)
    etcd_rpc_pb2_grpc.add_AuthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    store = EtcdStore([f"127.0.0.1:{port}"], user="root", password="secret")
    try:
        async with asyncio.timeout(10):
            events = await anext(store.watch("/", revision=1))
        assert [event.mod_revision for event in events.events] == [LATEST]
    finally:
        await store.close()
        await server.stop(0)
