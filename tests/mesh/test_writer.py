"""Promises of writing model records together."""

import asyncio
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from mesh.errors import ModelExistsError, RegistryUnavailableError
from mesh.writer import RecordWriter
from store.base import Put, Txn, TxnResult
from store.errors import StoreError
from store.memory import MemoryStore
from store.records import MODELS, ModelRecord
from store.table import Table
from tests.store.waiting import until

NEW = ModelRecord(type="t", path="p")


class CountingStore(MemoryStore):
    """Counts writes, and answers a batch when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.answers = asyncio.Event()
        self.answers.set()

    async def txn_each(self, txns: Sequence[Txn]) -> list[TxnResult]:
        self.batches.append(len(txns))
        await self.answers.wait()
        return await super().txn_each(txns)


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


@pytest.fixture
def models(store: CountingStore) -> Table[ModelRecord]:
    return Table(store, "/models/", MODELS)


@pytest.fixture
def writer(store: CountingStore, models: Table[ModelRecord]) -> RecordWriter:
    return RecordWriter(store, models)


def created(record: ModelRecord | None) -> ModelRecord:
    return record or NEW


def used_once_more(record: ModelRecord | None) -> ModelRecord | None:
    return record and replace(record, last_used=record.last_used + 1)


def refused(_: ModelRecord | None) -> ModelRecord | None:
    raise ModelExistsError("it exists")


async def test_changes_of_many_models_share_transactions(store: CountingStore, writer: RecordWriter) -> None:
    results = await asyncio.gather(*(writer.apply(f"model-{number}", created) for number in range(100)))
    assert results == [NEW] * 100
    assert store.batches == [64, 36]


async def test_changes_of_one_model_that_wait_together_are_one_write(
    store: CountingStore, models: Table[ModelRecord], writer: RecordWriter
) -> None:
    first, second, third = await asyncio.gather(
        writer.apply("m", created), writer.apply("m", used_once_more), writer.apply("m", used_once_more)
    )
    assert (first, second and second.last_used, third and third.last_used) == (NEW, 1, 2)
    assert store.batches == [1]
    row = await models.fetch("m")
    assert row is not None
    assert row.value.last_used == 2


async def test_a_change_that_is_refused_leaves_the_others(writer: RecordWriter) -> None:
    one, two, three = await asyncio.gather(
        writer.apply("m", created),
        writer.apply("m", refused),
        writer.apply("m", used_once_more),
        return_exceptions=True,
    )
    assert one == NEW
    assert isinstance(two, ModelExistsError)
    assert isinstance(three, ModelRecord)
    assert three.last_used == 1


async def test_a_lost_race_is_run_again_on_what_the_winner_wrote(
    store: CountingStore, writer: RecordWriter
) -> None:
    elsewhere = Table(store, "/models/", MODELS)
    await writer.apply("m", created)
    await elsewhere.fetch("m")
    assert await elsewhere.write("m", replace(NEW, last_used=10))
    after = await writer.apply("m", used_once_more)
    assert after is not None
    assert after.last_used == 11
    assert store.batches == [1, 1, 1]


async def test_a_change_given_up_before_its_turn_is_not_made(
    store: CountingStore, writer: RecordWriter
) -> None:
    store.answers.clear()
    first = asyncio.create_task(writer.apply("m", created))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second = asyncio.create_task(writer.apply("m", used_once_more))
    await asyncio.sleep(0)
    second.cancel()
    store.answers.set()
    assert await first == NEW
    await asyncio.gather(second, return_exceptions=True)
    assert await writer.apply("m", created) == NEW
    assert store.batches == [1]


async def test_nothing_to_change_writes_nothing(store: CountingStore, writer: RecordWriter) -> None:
    assert await writer.apply("m", used_once_more) is None
    assert store.batches == []


async def test_a_store_that_is_away_fails_all_that_wait(store: CountingStore, writer: RecordWriter) -> None:
    store.backend.available = False
    results = await asyncio.gather(
        writer.apply("a", created), writer.apply("b", created), return_exceptions=True
    )
    assert [type(result) for result in results] == [RegistryUnavailableError] * 2
    store.backend.available = True
    assert await writer.apply("a", created) == NEW


async def test_a_corrupt_record_can_be_removed(
    store: CountingStore, models: Table[ModelRecord], writer: RecordWriter
) -> None:
    await store.txn([], [Put("/models/m", b"{")])
    await models.fetch("m")
    assert await writer.apply("m", lambda _: None) is None
    assert await store.get("/models/m") is None


async def test_closing_ends_those_who_wait(store: CountingStore, writer: RecordWriter) -> None:
    store.answers.clear()
    waiting = [asyncio.create_task(writer.apply("m", created)) for _ in range(2)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await writer.close()
    assert all(
        isinstance(result, asyncio.CancelledError)
        for result in await asyncio.gather(*waiting, return_exceptions=True)
    )


async def test_a_change_waits_for_the_write_under_way_of_the_same_model(
    store: CountingStore, models: Table[ModelRecord], writer: RecordWriter
) -> None:
    """The table does not show that write yet, so it would seem that there is nothing to change."""
    store.answers.clear()
    creating = asyncio.create_task(writer.apply("m", created))
    await until(lambda: store.batches == [1])
    removing = asyncio.create_task(writer.apply("m", lambda _: None))
    await asyncio.sleep(0)
    store.answers.set()
    assert await creating == NEW
    assert await removing is None
    await writer.settled()
    assert await models.fetch("m") is None


@pytest.mark.parametrize("error", [StoreError("too large"), RuntimeError("unexpected")])
async def test_a_record_that_the_store_refuses_fails_alone(
    store: CountingStore, writer: RecordWriter, error: Exception
) -> None:
    accepted = store.txn

    async def together(txns: Sequence[Txn]) -> list[TxnResult]:
        if any(txn.operations[0].key == "/models/bad" for txn in txns):
            raise error
        return [await accepted(*txn) for txn in txns]

    store.txn_each = together  # type: ignore[method-assign]
    async with asyncio.timeout(20):
        results = await asyncio.gather(
            *(writer.apply(name, created) for name in ("a", "b", "bad", "c")), return_exceptions=True
        )
    assert [type(result) for result in results] == [
        ModelRecord,
        ModelRecord,
        RegistryUnavailableError,
        ModelRecord,
    ]


async def test_lost_races_are_forgotten_with_the_change_that_lost_them(
    store: CountingStore, writer: RecordWriter
) -> None:
    """Else a model whose changes end without a write would give up too soon in the end."""
    elsewhere = Table(store, "/models/", MODELS)
    await elsewhere.write("same", NEW)
    assert await writer.apply("same", created) == NEW, "it lost, and then there was nothing to write"
    await elsewhere.write("given up", NEW)
    store.answers.clear()
    given_up = asyncio.create_task(writer.apply("given up", used_once_more_or_new))
    await until(lambda: len(store.batches) == 2)
    given_up.cancel()
    store.answers.set()
    await writer.settled()
    assert writer._conflicts == {}


def used_once_more_or_new(record: ModelRecord | None) -> ModelRecord | None:
    return used_once_more(record) or NEW


async def test_changes_that_nobody_waits_for_share_a_write_also_after_an_urgent_one(
    writer: RecordWriter, store: CountingStore
) -> None:
    await writer.apply("m", created)
    for _ in range(3):
        writer.post("m", used_once_more)
        for _ in range(10):  # time enough for a write that waits for nobody
            await asyncio.sleep(0)
    await writer.settled()
    assert store.batches == [1, 1]
