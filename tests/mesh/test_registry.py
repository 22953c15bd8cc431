"""Records are changed only from what they are, one by one or many at a time."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from mesh.errors import ModelNotFoundError, RegistryUnavailableError
from mesh.limits import MAX_ID_BYTES
from mesh.registry import Census, Registry
from store.base import Put
from store.keys import Keyspace
from store.memory import MemoryBackend, MemoryStore
from store.records import INSTANCES, InstanceRecord, ModelRecord
from store.session import LEASE_SECONDS, Session

KEYS = Keyspace("", service="modelmesh-serving")


@asynccontextmanager
async def registry(
    memory: MemoryBackend, name: str = "one", monotonic: Callable[[], float] = time.monotonic
) -> AsyncIterator[Registry]:
    opened = Registry(MemoryStore(memory), KEYS, instance_id=name, monotonic=monotonic)
    await opened.start()
    try:
        yield opened
    finally:
        await opened.close()


def add_reference(record: ModelRecord) -> ModelRecord:
    return replace(record, refs=record.refs + 1)


def with_path(path: str) -> Callable[[ModelRecord], ModelRecord]:
    return lambda record: replace(record, path=path)


async def test_many_changes_find_what_others_have_written_meanwhile() -> None:
    """Neither registry follows the store: each learns of the other by losing."""
    memory = MemoryBackend()
    async with registry(memory) as here, registry(memory, "two") as there:
        ids = [f"m{number}" for number in range(300)]
        for model_id in ids:
            await here.update(model_id, lambda _: ModelRecord(type="t"))
        await there.models.start()
        await there.update_many(ids[::2], add_reference)
        await here.update_many([*ids, "unknown"], add_reference)
        assert [here.peek(model_id).refs for model_id in ids] == [2, 1] * 150  # type: ignore[union-attr]
        assert here.peek("unknown") is None


async def test_each_model_gets_its_own_change() -> None:
    async with registry(MemoryBackend()) as here:
        for model_id in ("a", "b"):
            await here.update(model_id, lambda _: ModelRecord(type="t"))
        await here.update_each({"a": with_path("x"), "b": with_path("y")})
        assert [here.peek(model_id).path for model_id in ("a", "b")] == ["x", "y"]  # type: ignore[union-attr]


async def test_records_that_belong_together_are_written_together_or_not_at_all() -> None:
    memory = MemoryBackend()
    async with registry(memory) as here, registry(memory, "two") as there:
        assert await here.commit({"a": ModelRecord(type="t"), "b": ModelRecord(type="t")})
        assert not await there.commit({"b": ModelRecord(type="u"), "c": ModelRecord(type="u")})
        assert there.peek("b") == ModelRecord(type="t")
        assert there.peek("c") is None
        assert await there.commit({"b": ModelRecord(type="u"), "c": ModelRecord(type="u")})


@pytest.mark.parametrize("after", [ModelRecord(type="t"), None])
async def test_a_corrupt_record_can_be_replaced_and_deleted(after: ModelRecord | None) -> None:
    memory = MemoryBackend()
    key = KEYS.models + "bad"
    await MemoryStore(memory).txn([], [Put(key, b"{ nonsense"), Put(KEYS.models + "good", b'{"type":"t"}')])
    async with registry(memory) as here:
        assert here.peek("good") == ModelRecord(type="t")
        assert here.peek("bad") is None
        await here.update("bad", lambda _: after)
        assert here.peek("bad") == after
        assert (memory.get(key) is None) is (after is None)
        assert not here.models.is_corrupt("bad")


async def test_a_store_that_is_away_is_told_as_such() -> None:
    memory = MemoryBackend()
    async with registry(memory) as here:
        memory.set_available(False)
        with pytest.raises(RegistryUnavailableError):
            await here.update("m", lambda _: ModelRecord())
        with pytest.raises(RegistryUnavailableError):
            await here.commit({"m": ModelRecord()})
        with pytest.raises(RegistryUnavailableError):
            await here.find("m")


async def test_the_oldest_instance_leads_until_its_lease_ends() -> None:
    now = 0.0
    memory = MemoryBackend(clock=lambda: now)
    async with registry(memory, "old") as old, registry(memory, "young") as young:
        sessions = {}
        for name, opened in (("old", old), ("young", young)):
            sessions[name] = Session(MemoryStore(memory))
            await sessions[name].put(opened.instances.key(name), INSTANCES.encode(InstanceRecord()))
        for opened in (old, young):
            await opened.instances.start()
        assert (old.is_leader(), young.is_leader()) == (True, False)
        now += LEASE_SECONDS - 1
        await sessions["young"].put(young.instances.key("young"), INSTANCES.encode(InstanceRecord()))
        memory.keep_alive(2)
        now += 2
        await young.instances.start()
        assert young.is_leader(), "the other one did not extend its lease"
        await sessions["old"].put(old.instances.key("old"), INSTANCES.encode(InstanceRecord()))
        for opened in (old, young):
            await opened.instances.start()
        assert (old.is_leader(), young.is_leader()) == (False, True), "who comes back is the youngest"


async def test_an_instance_that_leaves_does_not_lead() -> None:
    memory = MemoryBackend()
    async with registry(memory) as here:
        for name, record in (("one", InstanceRecord(shutdown=True)), ("two", InstanceRecord())):
            await MemoryStore(memory).txn([], [Put(here.instances.key(name), INSTANCES.encode(record))])
        await here.instances.start()
        assert not here.is_leader()


def counted_reads(here: Registry) -> list[str]:
    """Keys that are looked up in the store from now on."""
    reads: list[str] = []
    get = here.store.get

    async def counted(key: str) -> object:
        reads.append(key.removeprefix(KEYS.models))
        return await get(key)

    here.store.get = counted  # type: ignore[method-assign,assignment]
    return reads


async def ask(here: Registry, *model_ids: str) -> None:
    for model_id in model_ids:
        with pytest.raises(ModelNotFoundError):
            await here.find(model_id)


async def test_an_unknown_id_is_looked_up_again_after_a_second_of_any_clock_change() -> None:
    now = 0.0
    async with registry(MemoryBackend(), monotonic=lambda: now) as here:
        reads = counted_reads(here)
        await ask(here, "m", "m")
        now = 0.99
        await ask(here, "m")
        now = 1.0
        await ask(here, "m", "m")
        assert reads == ["m", "m"]


async def test_of_too_many_unknown_ids_the_oldest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh.registry.MAX_UNKNOWN", 3)
    async with registry(MemoryBackend(), monotonic=lambda: 0.0) as here:
        reads = counted_reads(here)
        await ask(here, "a", "b", "c", "d", "b", "c", "d", "a")
        assert reads == ["a", "b", "c", "d", "a"]


async def test_an_id_that_cannot_exist_is_not_looked_up() -> None:
    async with registry(MemoryBackend()) as here:
        reads = counted_reads(here)
        await ask(here, "m" * (MAX_ID_BYTES + 1))
        assert reads == []
        assert here._unknown == {}


async def test_models_are_counted_by_what_there_is_of_them() -> None:
    async with registry(MemoryBackend()) as here:
        records = {
            "idle": ModelRecord(type="t"),
            "loading": ModelRecord(type="t", instances={"one": 1}),
            "loaded": ModelRecord(type="t", instances={"one": 1}, loaded={"one": 2}),
            "failed": ModelRecord(type="t", failed={"one": 1}),
            "both": ModelRecord(
                type="t", instances={"one": 1}, loaded={"one": 2}, failed={"two": 1, "three": 1}
            ),
        }
        await here.commit(records)
        assert here.census == Census(managed=5, loaded=2, failed=2)
        await here.update("both", lambda _: ModelRecord(type="t", failed={"one": 1}))
        await here.update("loaded", lambda _: None)
        assert here.census == Census(managed=4, loaded=0, failed=2)


async def test_a_change_that_finds_nothing_because_the_store_lost_everything_is_applied() -> None:
    memory = MemoryBackend()
    store = MemoryStore(memory)
    registry = Registry(store, Keyspace("", service="s", kv_prefix="mm"), instance_id="one")
    await registry.start()
    for name in ("a", "b"):
        await registry.update(name, lambda _: ModelRecord(type="t"))
    memory.wipe()
    for _ in range(20):
        await store.txn([], [Put("/elsewhere", b"")])  # so that the store counts as far as before
    after = await registry.update("a", lambda record: record and replace(record, last_used=7))
    assert after == ModelRecord(type="t", last_used=7)
    assert registry.peek("b") == ModelRecord(type="t")
    assert len(memory.range(registry.models.prefix).items) == 2
    memory.wipe()
    assert await registry.commit({"b": ModelRecord(type="new")}) is False
    assert registry.peek("b") == ModelRecord(type="t")
    assert await registry.commit({"b": ModelRecord(type="new")})
