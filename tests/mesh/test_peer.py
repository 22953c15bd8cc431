"""The load hop ends with an error of the mesh, whatever becomes of the other instance."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from api.proto import mesh_peer_pb2_grpc
from mesh.errors import RuntimeDownError
from mesh.peer import Peers, PeerServicer
from store.records import Resources


class Hanging:
    """An instance whose loads never end."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.address = ""

    async def load(self, *_: object) -> Resources:
        self.asked.set()
        return await asyncio.get_running_loop().create_future()


@pytest.fixture
async def hanging() -> AsyncIterator[Hanging]:
    instance = Hanging()
    server = grpc.aio.server()
    mesh_peer_pb2_grpc.add_PeerServicer_to_server(PeerServicer(instance.load), server)
    instance.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield instance
    await server.stop(0)


def asking(peers: Peers, address: str) -> asyncio.Task[None]:
    return asyncio.create_task(peers.load(address, "m", last_used=1, urgent=True, patience_ms=None))


async def test_a_load_at_an_instance_that_is_forgotten_fails_and_can_be_tried_elsewhere(
    hanging: Hanging,
) -> None:
    peers = Peers()
    load = asking(peers, hanging.address)
    await asyncio.wait_for(hanging.asked.wait(), 5)
    await peers.forget(hanging.address)
    with pytest.raises(RuntimeDownError, match="has gone"):
        await asyncio.wait_for(load, 5)


async def test_who_gives_a_load_up_is_not_told_that_the_instance_has_gone(hanging: Hanging) -> None:
    peers = Peers()
    load = asking(peers, hanging.address)
    await asyncio.wait_for(hanging.asked.wait(), 5)
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load
    await peers.close()
