"""Keys of a session live as long as the process, whatever happens to the lease."""

import asyncio

from store.base import Delete
from store.memory import MemoryBackend, MemoryStore
from store.session import Session
from tests.store.waiting import until


async def test_keys_end_with_the_session() -> None:
    store = MemoryStore()
    session = Session(store)
    await session.put("/i/a", b"1")
    await session.end()
    assert await store.get("/i/a") is None


async def test_a_session_that_has_ended_leaves_nothing_behind() -> None:
    store = MemoryStore()
    session = Session(store)
    await asyncio.gather(session.put("/i/a", b"1"), session.end(), session.put("/i/b", b"2"))
    await session.put("/i/c", b"3")
    assert (await store.range("/i/")).items == []


async def test_a_lease_is_kept_alive() -> None:
    now = 0.0
    memory = MemoryBackend(clock=lambda: now)
    session = Session(MemoryStore(memory), keep_alive_seconds=0.001)
    await session.put("/i/a", b"1")
    keeping = asyncio.create_task(session.keep())
    for _ in range(10):
        now += 20
        before = now + 20

        async def extended(until_time: float = before) -> bool:
            await asyncio.sleep(0)
            return max(end for _, end in memory._leases.values()) > until_time

        await until(extended)
    keeping.cancel()
    assert memory.get("/i/a") is not None


async def test_a_lost_lease_is_replaced_and_its_keys_come_back() -> None:
    memory = MemoryBackend()
    store = MemoryStore(memory)
    renewed = asyncio.Event()
    session = Session(store, keep_alive_seconds=0.001, on_renewed=renewed.set)
    await session.put("/i/a", b"1")
    memory.wipe()
    keeping = asyncio.create_task(session.keep())
    await asyncio.wait_for(renewed.wait(), 10)
    keeping.cancel()
    kv = await store.get("/i/a")
    assert kv is not None
    assert (kv.value, kv.lease != 0) == (b"1", True)


async def test_keys_in_doubt_are_written_again_at_once_be_it_that_the_lease_lives() -> None:
    memory = MemoryBackend()
    store = MemoryStore(memory)
    session = Session(store, keep_alive_seconds=1_000.0)
    await session.put("/i/a", b"1")
    keeping = asyncio.create_task(session.keep())
    for lose in (memory.wipe, lambda: memory.txn([], [Delete("/i/a")])):
        lose()
        session.doubt()
        await until(lambda: memory.get("/i/a") is not None)
    keeping.cancel()


async def test_an_outage_is_waited_for() -> None:
    memory = MemoryBackend()
    store = MemoryStore(memory)
    session = Session(store, keep_alive_seconds=0.001)
    await session.put("/i/a", b"1")
    keeping = asyncio.create_task(session.keep())
    memory.set_available(False)
    await asyncio.sleep(0.01)
    memory.wipe()
    await asyncio.sleep(0.01)
    memory.set_available(True)

    async def back() -> bool:
        return await store.get("/i/a") is not None

    await until(back)
    keeping.cancel()


async def test_writing_after_the_lease_was_lost_makes_a_new_one() -> None:
    memory = MemoryBackend()
    store = MemoryStore(memory)
    session = Session(store)
    await session.put("/i/a", b"1")
    memory.wipe()
    await session.put("/i/b", b"2")
    assert await store.get("/i/a") is not None
    assert await store.get("/i/b") is not None


async def test_a_lease_found_lost_by_a_write_is_told_too() -> None:
    memory = MemoryBackend()
    renewals: list[bool] = []
    session = Session(MemoryStore(memory), on_renewed=lambda: renewals.append(True))
    await session.put("/i/a", b"1")
    assert renewals == []
    memory.wipe()
    await session.put("/i/a", b"2")
    assert renewals == [True]


async def test_keys_come_back_also_where_the_store_fails_during_the_renewal() -> None:
    memory = MemoryBackend()
    store = MemoryStore(memory)
    session = Session(store, keep_alive_seconds=0.001)
    await session.put("/i/a", b"1")
    memory.wipe()
    grant = store.grant

    async def grant_and_fail(ttl_seconds: int) -> int:
        store.grant = grant  # type: ignore[method-assign]
        lease = await grant(ttl_seconds)
        memory.set_available(False)
        return lease

    store.grant = grant_and_fail  # type: ignore[method-assign]
    keeping = asyncio.create_task(session.keep())
    await until(lambda: not memory.available)
    memory.set_available(True)

    async def back() -> bool:
        return await store.get("/i/a") is not None

    await until(back)
    keeping.cancel()
