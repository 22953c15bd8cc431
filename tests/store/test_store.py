"""Promises of the Store interface, the same on etcd and in process."""

import asyncio

import pytest

from store.base import MAX_TXN_OPERATIONS, Compare, Delete, Event, KeyValue, Put, Store, Txn
from store.errors import HistoryLostError, LeaseLostError, StoreError
from tests.store.conftest import Backend
from tests.store.waiting import until


async def put(store: Store, key: str, value: bytes = b"x", lease: int = 0) -> int:
    return (await store.txn([], [Put(key, value, lease)])).revision


async def take(store: Store, prefix: str, revision: int, count: int) -> list[Event]:
    events: list[Event] = []

    async def collect() -> None:
        async for batch in store.watch(prefix, revision=revision):
            events.extend(batch.events)
            if len(events) >= count:
                return

    await asyncio.wait_for(collect(), 10)
    return events


async def test_a_missing_key_is_none(store: Store) -> None:
    assert await store.get("/a") is None


async def test_a_written_key_is_read_back_with_its_revisions(store: Store) -> None:
    created = await put(store, "/a", b"1")
    written = await put(store, "/a", b"2")
    kv = await store.get("/a")
    assert kv is not None
    assert (kv.key, kv.value, kv.create_revision, kv.mod_revision) == ("/a", b"2", created, written)


async def test_keys_may_hold_slashes_and_any_text(store: Store) -> None:
    await put(store, "/a/b/ü 模型", b"1")
    assert [kv.key for kv in (await store.range("/a/")).items] == ["/a/b/ü 模型"]


async def test_a_range_is_the_prefix_alone_in_key_order(store: Store) -> None:
    for key in ("/p/2", "/p/1", "/pp", "/o"):
        await put(store, key)
    assert [kv.key for kv in (await store.range("/p/")).items] == ["/p/1", "/p/2"]


async def test_a_range_of_keys_alone_carries_no_values(store: Store) -> None:
    await put(store, "/p/1", b"value")
    assert [(kv.key, kv.value) for kv in (await store.range("/p/", keys_only=True)).items] == [("/p/1", b"")]


async def test_a_large_range_is_complete(store: Store) -> None:
    for start in range(0, 4_500, 100):
        await store.txn([], [Put(f"/p/{number:05}", b"v") for number in range(start, start + 100)])
    items = (await store.range("/p/")).items
    assert [kv.key for kv in items] == [f"/p/{number:05}" for number in range(4_500)]


async def test_a_root_prefix_hides_one_client_from_another(backend: Backend) -> None:
    one, other = backend.client(root_prefix="/one"), backend.client(root_prefix="/other")
    await put(one, "/hidden")
    assert await other.get("/hidden") is None


async def test_create_succeeds_once(store: Store) -> None:
    assert (await store.txn([Compare("/a", 0)], [Put("/a", b"1")])).succeeded
    assert not (await store.txn([Compare("/a", 0)], [Put("/a", b"2")])).succeeded


async def test_a_stale_write_changes_nothing_and_learns_what_is_there(store: Store) -> None:
    old = await put(store, "/a", b"1")
    await put(store, "/a", b"2")
    result = await store.txn([Compare("/a", old), Compare("/b", 0)], [Put("/a", b"3"), Put("/b", b"3")])
    current = result.current["/a"]
    assert not result.succeeded
    assert current is not None
    assert current.value == b"2"
    assert result.current["/b"] is None
    assert await store.get("/b") is None


async def test_deleting_what_is_not_there_succeeds(store: Store) -> None:
    assert (await store.txn([], [Delete("/a")])).succeeded


async def test_a_transaction_has_a_limit(store: Store) -> None:
    operations = [Put(f"/{number}", b"") for number in range(MAX_TXN_OPERATIONS + 1)]
    assert (await store.txn([], operations[:-1])).succeeded
    with pytest.raises(StoreError, match="128"):
        await store.txn([], operations)


async def test_each_transaction_of_a_batch_holds_or_not_by_itself(store: Store) -> None:
    revision = await put(store, "/p/old", b"old")
    txns = [Txn([Compare(f"/p/{number}", 0)], [Put(f"/p/{number}", b"new")]) for number in range(62)]
    lost = Txn([Compare("/p/old", 0)], [Put("/p/old", b"new")])
    won = Txn([Compare("/p/old", revision)], [Delete("/p/old")])
    results = await store.txn_each([lost, *txns])
    assert [result.succeeded for result in results] == [False] + [True] * 62
    assert results[0].current["/p/old"] == KeyValue("/p/old", b"old", revision, revision)
    row = await store.get("/p/61")
    assert row is not None
    assert row.mod_revision == results[-1].revision
    assert [result.succeeded for result in await store.txn_each([won])] == [True]
    assert await store.get("/p/old") is None


async def test_a_watch_sees_every_change_after_its_revision_in_order(store: Store) -> None:
    start = await put(store, "/p/old")
    first = await put(store, "/p/a", b"1")
    await put(store, "/q/a")
    second = await put(store, "/p/a", b"2")
    third = (await store.txn([], [Delete("/p/a")])).revision
    assert await take(store, "/p/", start, 3) == [
        Event("/p/a", b"1", first, first),
        Event("/p/a", b"2", second, first),
        Event("/p/a", None, third),
    ]


async def test_a_running_watch_sees_later_changes(store: Store) -> None:
    start = await put(store, "/p/a")
    watching = asyncio.create_task(take(store, "/p/", start, 1))
    await asyncio.sleep(0)
    await put(store, "/p/b")
    assert [event.key for event in await watching] == ["/p/b"]


async def test_a_watch_from_before_a_compaction_says_so(backend: Backend) -> None:
    store = backend.client()
    start = await put(store, "/p/a")
    for _ in range(3):
        await put(store, "/p/a")
    await asyncio.to_thread(backend.compact)
    with pytest.raises(HistoryLostError):
        await take(store, "/p/", start, 1)


async def test_a_watch_from_the_future_says_so(store: Store) -> None:
    """As after the store was replaced by an empty one."""
    now = await put(store, "/p/a")
    with pytest.raises(HistoryLostError):
        await take(store, "/p/", now + 1_000, 1)


async def test_a_revoked_lease_takes_its_keys_along(store: Store) -> None:
    lease = await store.grant(30)
    revision = await put(store, "/p/a", lease=lease)
    await store.keep_alive(lease)
    await store.revoke(lease)
    assert await store.get("/p/a") is None
    assert [event.value for event in await take(store, "/p/", revision, 1)] == [None]


async def test_a_lost_lease_is_told(store: Store) -> None:
    lease = await store.grant(30)
    await store.revoke(lease)
    await store.revoke(lease)
    with pytest.raises(LeaseLostError):
        await store.keep_alive(lease)
    with pytest.raises(LeaseLostError):
        await put(store, "/a", lease=lease)


async def test_a_lease_that_nobody_extends_ends(store: Store) -> None:
    lease = await store.grant(1)
    await put(store, "/a", lease=lease)

    async def gone() -> bool:
        return await store.get("/a") is None

    await until(gone)
