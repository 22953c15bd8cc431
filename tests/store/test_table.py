"""A table shows what the store holds, whatever happens in between."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from store.base import Delete, Put, Store
from store.memory import MemoryBackend, MemoryStore
from store.records import MODELS, VMODELS, ModelRecord, VModelRecord
from store.table import Table
from tests.store.conftest import Backend
from tests.store.waiting import until


@asynccontextmanager
async def following(store: Store) -> AsyncIterator[Table[VModelRecord]]:
    table = Table(store, "/v/", VMODELS)
    await table.start()
    task = asyncio.create_task(table.follow())
    try:
        yield table
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def value(table: Table[VModelRecord], id_: str) -> VModelRecord | None:
    row = table.get(id_)
    return row.value if row else None


async def test_it_follows_another_clients_writes(backend: Backend) -> None:
    async with following(backend.client()) as here, following(backend.client()) as there:
        assert await there.write("a", VModelRecord(active="m1"))
        await until(lambda: value(here, "a") == VModelRecord(active="m1"))
        assert await there.write("a", None)
        await until(lambda: "a" not in here)


async def test_a_write_shows_when_it_returns(store: Store) -> None:
    async with following(store) as table:
        await table.write("a", VModelRecord(active="m1"))
        assert value(table, "a") == VModelRecord(active="m1")
        await table.write("a", None)
        assert "a" not in table


async def test_a_write_on_an_old_row_fails_and_shows_the_new_one(backend: Backend) -> None:
    here, there = Table(backend.client(), "/v/", VMODELS), Table(backend.client(), "/v/", VMODELS)
    await here.write("a", VModelRecord(active="m1"))
    assert not await there.write("a", VModelRecord(active="m2"))
    assert value(there, "a") == VModelRecord(active="m1")
    assert await there.write("a", VModelRecord(active="m2"))


async def test_a_deletion_of_ours_is_not_undone_by_events_that_come_late() -> None:
    memory = MemoryBackend()
    table = Table(MemoryStore(memory), "/v/", VMODELS)
    await table.start()
    for active in ("m1", "m2"):
        await table.write("a", VModelRecord(active=active))
    await table.write("a", None)
    seen: list[bool] = []
    table.subscribe(lambda _id, _before, now: seen.append(now is not None))
    task = asyncio.create_task(table.follow())
    await Table(MemoryStore(memory), "/v/", VMODELS).write("b", VModelRecord())
    await until(lambda: "b" in table)
    task.cancel()
    assert seen == [True]


async def test_it_catches_up_after_a_compaction(backend: Backend) -> None:
    store = backend.client()
    writer = Table(store, "/v/", VMODELS)
    await writer.write("gone", VModelRecord())
    await writer.write("old", VModelRecord(active="m1"))
    table = Table(backend.client(), "/v/", VMODELS)
    await table.start()
    await writer.write("gone", None)
    await writer.write("old", VModelRecord(active="m2"))
    await writer.write("new", VModelRecord())
    await asyncio.to_thread(backend.compact)
    task = asyncio.create_task(table.follow())
    await until(lambda: "new" in table)
    task.cancel()
    assert {id_ for id_, _ in table.items()} == {"old", "new"}
    assert value(table, "old") == VModelRecord(active="m2")


async def test_listeners_learn_what_was_and_what_is(store: Store) -> None:
    table = Table(store, "/v/", VMODELS)
    changes: list[tuple[str, str | None, str | None]] = []
    table.subscribe(
        lambda id_, before, now: changes.append(
            (id_, before.value.active if before else None, now.value.active if now else None)
        )
    )
    await table.write("a", VModelRecord(active="m1"))
    await table.write("a", VModelRecord(active="m2"))
    await table.write("a", None)
    assert changes == [("a", None, "m1"), ("a", "m1", "m2"), ("a", "m2", None)]


async def test_a_corrupt_record_is_left_out_named_in_the_log_and_can_be_replaced(store: Store) -> None:
    await store.txn([], [Put("/v/bad", b"{ nonsense"), Put("/v/good", b'{"amid":"m1"}')])
    with capture_logs() as logs:
        async with following(store) as table:
            assert value(table, "good") == VModelRecord(active="m1")
            assert "bad" not in table
            assert [entry["key"] for entry in logs if entry["log_level"] == "error"] == ["/v/bad"]
            assert await table.write("bad", VModelRecord(active="m2"))
            assert value(table, "bad") == VModelRecord(active="m2")


async def test_members_of_a_newer_release_survive_a_rewrite(store: Store) -> None:
    await store.txn([], [Put("/m/a", b'{"type":"t","priority":{"level":[1,2]}}')])
    table = Table(store, "/m/", MODELS)
    await table.start()
    await table.write("a", ModelRecord(type="t", refs=1))
    kv = await store.get("/m/a")
    assert kv is not None
    assert msgspec.json.decode(kv.value) == {"type": "t", "refs": 1, "priority": {"level": [1, 2]}}


async def test_a_strong_read_mirrors_what_it_finds(backend: Backend) -> None:
    table = Table(backend.client(), "/v/", VMODELS)
    assert await table.fetch("a") is None
    await Table(backend.client(), "/v/", VMODELS).write("a", VModelRecord(active="m1"))
    row = await table.fetch("a")
    assert row is not None
    assert row.value == VModelRecord(active="m1")
    assert "a" in table


async def test_rows_survive_a_store_that_lost_its_content() -> None:
    memory = MemoryBackend()
    store = MemoryStore(memory)
    epochs = iter([b"first", b"second"])

    async def epoch() -> bytes:
        return next(epochs)

    table = Table(store, "/v/", VMODELS, epoch=epoch)
    await table.start()
    for number in range(300):
        await table.write(f"v{number:03}", VModelRecord(active="m1"))
    removed: list[str] = []
    table.subscribe(lambda id_, _before, now: removed.append(id_) if now is None else None)
    task = asyncio.create_task(table.follow())
    await until(lambda: table._revision > 300)
    memory.wipe()
    await store.txn([], [Put("/v/v007", b'{"amid":"newer"}')])
    await until(lambda: len(memory.range("/v/").items) == 300)
    task.cancel()
    assert removed == []
    assert value(table, "v007") == VModelRecord(active="newer")
    assert value(table, "v008") == VModelRecord(active="m1")
    assert await table.write("v008", VModelRecord(active="m2"))


async def test_after_the_store_was_replaced_its_own_rows_count_whatever_their_revisions() -> None:
    """As of instance records, which nobody publishes for others: revisions of the new store are smaller."""
    memory = MemoryBackend()
    store = MemoryStore(memory)
    for number in range(20):
        await store.txn([], [Put("/v/stays", b'{"amid":"old"}'), Put(f"/v/gone{number}", b"{}")])
    async with following(store) as table:
        memory.wipe()
        await store.txn([], [Put("/v/stays", b'{"amid":"new"}')])
        await until(lambda: value(table, "stays") == VModelRecord(active="new"))
        assert {id_ for id_, _ in table.items()} == {"stays"}
        assert await table.write("stays", VModelRecord(active="newer"))


async def test_a_whole_read_replaces_rows_of_a_store_that_was_replaced_and_has_overtaken_them() -> None:
    memory = MemoryBackend()
    store = MemoryStore(memory)
    for _ in range(10):
        await store.txn([], [Put("/v/a", b'{"amid":"old"}')])
    table = Table(store, "/v/", VMODELS)
    await table.start()
    memory.wipe()
    await store.txn([], [Put("/v/a", b'{"amid":"new"}')])
    for _ in range(20):
        await store.txn([], [Put("/elsewhere", b"")])
    await table.start()
    assert value(table, "a") == VModelRecord(active="new")


async def test_a_write_of_ours_after_a_whole_read_began_is_not_undone_by_it(store: Store) -> None:
    table = Table(store, "/v/", VMODELS)
    await table.write("a", VModelRecord(active="m1"))
    old = await store.range("/v/")

    async def stale_range(_prefix: str, *, keys_only: bool) -> object:
        assert not keys_only
        await table.write("a", VModelRecord(active="m2"))
        await table.write("b", VModelRecord(active="m3"))
        return old

    store.range = stale_range  # type: ignore[method-assign,assignment]
    await table.start()
    assert value(table, "a") == VModelRecord(active="m2")
    assert value(table, "b") == VModelRecord(active="m3")


async def test_a_corrupt_row_is_counted_until_it_is_gone(store: Store) -> None:
    await store.txn([], [Put("/v/bad", b"{ nonsense")])
    async with following(store) as table:
        assert table.is_corrupt("bad")
        assert table.corrupt == 1
        assert await table.write("bad", None)
        assert table.corrupt == 0
        assert await store.get("/v/bad") is None


async def test_a_row_deleted_while_the_range_is_read_again_stays_deleted(store: Store) -> None:
    async with following(store) as table:
        await table.write("a", VModelRecord(active="m1"))
        await table.write("b", VModelRecord(active="m1"))
        old = await store.range("/v/")

        async def slow_range(_prefix: str, *, keys_only: bool) -> object:
            assert not keys_only
            await store.txn([], [Delete("/v/a")])
            await store.txn([], [Put("/v/c", MODELS.encode(ModelRecord()))])
            await until(lambda: "a" not in table and "c" in table)
            return old

        store.range = slow_range  # type: ignore[method-assign,assignment]
        await table.start()
        assert "a" not in table
        assert {"b", "c"} == {id_ for id_, _ in table.items()}


@pytest.mark.parametrize("call", ["get", "txn"])
async def test_an_answer_that_comes_after_the_row_was_deleted_does_not_bring_it_back(
    store: Store, call: str
) -> None:
    async with following(store) as table:
        answer, txn = getattr(store, call), store.txn
        if call == "get":
            await txn([], [Put("/v/a", VMODELS.encode(VModelRecord()))])

        async def late(*args: Any) -> Any:
            result = await answer(*args)
            await txn([], [Delete("/v/a")])
            await txn([], [Put("/v/b", VMODELS.encode(VModelRecord()))])
            await until(lambda: "b" in table and "a" not in table)
            return result

        setattr(store, call, late)
        assert await (table.fetch("a") if call == "get" else table.write("a", VModelRecord())) is not False
        assert "a" not in table


async def test_rows_larger_together_than_a_request_may_be_are_written_again(store: Store) -> None:
    """etcd takes 1.5 MiB in one request."""
    epochs = iter((b"before", b"after"))

    async def epoch() -> bytes:
        return next(epochs)

    table = Table(store, "/v/", MODELS, epoch=epoch)
    await table.start()
    record = ModelRecord(type="t", key="x" * 60_000)
    for number in range(60):
        await table.write(f"m{number}", record)
    await store.txn([], [Delete(table.key(f"m{number}")) for number in range(60)])
    await table.start()
    assert len((await store.range("/v/")).items) == 60


async def test_a_row_that_is_missing_because_everything_is_was_not_deleted() -> None:
    """Whoever looks at a row after the loss and before the watch has told of it must not forget it."""
    memory = MemoryBackend()
    store = MemoryStore(memory)
    epoch = b"first"

    async def read_epoch() -> bytes:
        return epoch

    table = Table(store, "/v/", VMODELS, epoch=read_epoch)
    await table.start()
    for name in ("a", "b"):
        await table.write(name, VModelRecord(active="m1"))
    memory.wipe()
    epoch = b"second"
    row = await table.fetch("a")
    assert row is not None
    assert len(memory.range("/v/").items) == 2
