import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from controller import second_look, triggers
from controller.model_id import Source
from controller.runtime.reconcile import Request
from controller.triggers import Registry, RegistryTriggers
from store.connection import EtcdConnection
from store.errors import StoreUnavailableError
from store.keys import Keyspace
from store.memory import MemoryBackend, MemoryStore
from store.records import MODELS, VMODELS, ModelRecord, VModelRecord
from store.table import Table

KEYS = Keyspace("", service="s")
FIRST, SECOND = EtcdConnection(("first:2379",)), EtcdConnection(("second:2379",))
ID = "m__isvc-6b2eb0b8bf"
M = (Source.INFERENCE_SERVICE, Request("ns", "m"))


class Installation:
    """Two registries, of which the etcd Secret names one or none."""

    def __init__(self) -> None:
        self.backends = {connection: MemoryBackend() for connection in (FIRST, SECOND)}
        self.named: EtcdConnection | None = FIRST
        self.refusals = 0
        self.woken: asyncio.Queue[tuple[Source, Request]] = asyncio.Queue()

    def locate(self) -> Registry | None:
        return None if self.named is None else Registry(self.named, KEYS)

    async def connect(self, connection: EtcdConnection) -> MemoryStore:
        if self.refusals:
            self.refusals -= 1
            raise StoreUnavailableError("no etcd")
        return MemoryStore(self.backends[connection])

    async def put_vmodel(self, connection: EtcdConnection, name: str, owner: str) -> None:
        table = Table(MemoryStore(self.backends[connection]), KEYS.vmodels, VMODELS)
        await table.start()
        await table.write(name, VModelRecord(owner, ID, ID))

    async def put_model(self, model_id: str, type_: str = "mt:x") -> None:
        table = Table(MemoryStore(self.backends[FIRST]), KEYS.models, MODELS)
        await table.start()
        await table.write(model_id, ModelRecord(type=type_))

    async def next(self) -> tuple[Source, Request]:
        return await asyncio.wait_for(self.woken.get(), 5)


@pytest.fixture
def installation(monkeypatch: pytest.MonkeyPatch) -> Installation:
    monkeypatch.setattr(triggers, "_FIRST_RETRY_S", 0.001)
    return Installation()


@asynccontextmanager
async def _following(installation: Installation) -> AsyncIterator[RegistryTriggers]:
    follower = RegistryTriggers(
        "ns",
        locate=installation.locate,
        connect=installation.connect,
        wake=lambda source, request: installation.woken.put_nowait((source, request)),
    )
    task = asyncio.create_task(follower.run())
    yield follower
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_is_there_at_the_start_counts_as_changed(installation: Installation) -> None:
    await installation.put_vmodel(FIRST, "m", "isvc")
    async with _following(installation) as follower:
        assert await installation.next() == M
        assert follower.registered("m") is True
        assert follower.registered("other") is False


@pytest.mark.parametrize(
    ("owner", "source"),
    [("isvc", Source.INFERENCE_SERVICE), ("ksp", Source.PREDICTOR), ("", Source.PREDICTOR)],
)
async def test_a_vmodel_wakes_its_owner(installation: Installation, owner: str, source: Source) -> None:
    async with _following(installation):
        await installation.put_vmodel(FIRST, "v", owner)
        assert await installation.next() == (source, Request("ns", "v"))


async def test_a_model_wakes_the_object_its_id_names(installation: Installation) -> None:
    async with _following(installation):
        await installation.put_model("static-model")
        await installation.put_vmodel(FIRST, "stranger", "somebody")
        await installation.put_model(ID)
        assert await installation.next() == M


async def test_a_change_wakes_again_for_an_instance_that_did_not_know_it_yet(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_look, "DELAY_S", 0.001)
    await installation.put_model(ID)
    async with _following(installation):
        assert await installation.next() == M
        await installation.put_model(ID, type_="mt:y")
        assert await installation.next() == M
        assert await installation.next() == M


async def test_what_is_new_wakes_once(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_look, "DELAY_S", 0)
    async with _following(installation):
        await installation.put_model(ID)
        await installation.put_model(ID.replace("m__", "n__"))
        assert await installation.next() == M
        assert (await installation.next())[1].name == "n"
        assert installation.woken.empty()


async def test_it_waits_for_the_secret_and_for_the_store(installation: Installation) -> None:
    installation.named = None
    installation.refusals = 3
    await installation.put_vmodel(FIRST, "m", "isvc")
    async with _following(installation) as follower:
        assert follower.registered("m") is None
        installation.named = FIRST
        follower.relocate()
        assert await installation.next() == M
        assert installation.refusals == 0


async def test_it_moves_to_another_registry(installation: Installation) -> None:
    await installation.put_vmodel(SECOND, "elsewhere", "isvc")
    await installation.put_vmodel(FIRST, "m", "isvc")
    async with _following(installation) as follower:
        assert await installation.next() == M
        installation.named = SECOND
        follower.relocate()
        assert (await installation.next())[1].name == "elsewhere"


async def test_it_goes_on_after_a_loss_of_the_store(
    installation: Installation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("store.table.RETRY_SECONDS", 0.001)
    await installation.put_vmodel(FIRST, "m", "isvc")
    backend = installation.backends[FIRST]
    async with _following(installation):
        assert await installation.next() == M
        backend.set_available(False)
        backend.set_available(True)
        await installation.put_vmodel(FIRST, "later", "isvc")
        assert (await installation.next())[1].name == "later"
