"""The load hop ends with an error of the mesh, whatever becomes of the other instance."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from grpc import StatusCode

from mesh.errors import (
    DeadlineError,
    LoadFailedError,
    MeshError,
    ModelNotFoundError,
    NoCapacityError,
    RuntimeDownError,
)
from mesh.native import NativeBytePath
from mesh.peer import Peers, peer_handlers
from store.records import Resources
from tests.mesh.conftest import config


class Other:
    """An instance whose loads never end, unless `error` says how."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.given_up = asyncio.Event()
        self.address = ""
        self.error: MeshError | None = None

    async def load(self, *_: object) -> Resources:
        self.asked.set()
        if self.error:
            raise self.error
        try:
            return await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.given_up.set()
            raise


@pytest.fixture
async def other() -> AsyncIterator[Other]:
    instance = Other()
    settings = config("other", 1)
    byte_path = NativeBytePath(settings)
    byte_path.start(lambda _: None, peer_handlers(instance.load))
    instance.address = f"127.0.0.1:{settings.peer_port}"
    yield instance
    await byte_path.stop(0)


@pytest.fixture
async def peers() -> AsyncIterator[Peers]:
    byte_path = NativeBytePath(config("own", 1))
    byte_path.start(lambda _: None, {})
    yield Peers(lambda address: byte_path.channel(f"tcp:{address}", pings=True))
    await byte_path.stop(0)


def asking(peers: Peers, address: str) -> asyncio.Task[None]:
    return asyncio.create_task(peers.load(address, "m", last_used=1, urgent=True, patience_ms=None))


async def test_a_load_at_an_instance_that_is_forgotten_fails_and_can_be_tried_elsewhere(
    peers: Peers, other: Other
) -> None:
    load = asking(peers, other.address)
    await asyncio.wait_for(other.asked.wait(), 5)
    peers.forget(other.address)
    with pytest.raises(RuntimeDownError, match="has gone"):
        await asyncio.wait_for(load, 5)
    await asyncio.wait_for(other.given_up.wait(), 5)


async def test_who_gives_a_load_up_is_not_told_that_the_instance_has_gone(peers: Peers, other: Other) -> None:
    load = asking(peers, other.address)
    await asyncio.wait_for(other.asked.wait(), 5)
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load
    await asyncio.wait_for(other.given_up.wait(), 5)


async def test_an_instance_that_is_not_there_is_named(peers: Peers) -> None:
    with pytest.raises(RuntimeDownError, match=r"instance at 127\.0\.0\.1:1: UNAVAILABLE"):
        await asking(peers, "127.0.0.1:1")


NO_ROOM, NEVER_ROOM = NoCapacityError("no room"), NoCapacityError("never")
NO_ROOM.retry_after_ms, NEVER_ROOM.retry_after_ms = 1_700, None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (LoadFailedError(StatusCode.INTERNAL, "bröken"), LoadFailedError(StatusCode.INTERNAL, "bröken")),
        (NO_ROOM, NO_ROOM),
        (NEVER_ROOM, NEVER_ROOM),
        (ModelNotFoundError("m"), ModelNotFoundError("m")),
        (DeadlineError("late"), DeadlineError("late")),
    ],
    ids=["failed", "no room", "never room", "not found", "deadline"],
)
async def test_an_error_there_is_the_same_error_here(
    peers: Peers, other: Other, error: MeshError, expected: MeshError
) -> None:
    other.error = error
    with pytest.raises(type(expected)) as caught:
        await asking(peers, other.address)
    assert str(caught.value) == str(expected)
    assert (caught.value.code, caught.value.retry_after_ms) == (expected.code, expected.retry_after_ms)
    if isinstance(expected, LoadFailedError) and isinstance(caught.value, LoadFailedError):
        assert caught.value.cause is expected.cause
