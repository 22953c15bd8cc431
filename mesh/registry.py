"""The registry as this instance sees it: tables of models, vmodels and instances, and its changes to models.

Every change is a function from a record to a record, applied by compare-and-swap until it holds: `update`.
Reads come from the local tables; only an unknown id is looked up in the store, and not again for a second.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import structlog

from mesh.errors import ModelNotFoundError, RegistryUnavailableError
from mesh.limits import MAX_ID_BYTES
from mesh.writer import OnWrite, RecordWriter, ignore_write
from store.base import MAX_BATCH_TXNS, Compare, Delete, Put, Store, TxnResult
from store.errors import StoreError
from store.keys import Keyspace
from store.records import (
    INSTANCES,
    MODELS,
    VMODELS,
    InstanceRecord,
    ModelRecord,
    VModelRecord,
)
from store.table import Entry, Table

UNKNOWN_SECONDS = 1.0
"""How long an id that the store did not know is not looked up again."""
MAX_UNKNOWN = 10_000
"""Unknown ids remembered at a time."""

log = structlog.get_logger(__name__)
NO_MODEL = ModelRecord()
R = TypeVar("R")


class Census(NamedTuple):
    """Models by what there is of them."""

    managed: int
    loaded: int
    """With a loaded copy."""
    failed: int
    """With a failed load that still counts."""


class Registry:
    """Tables of one mesh service. Run `follow` as a task after `start`."""

    def __init__(
        self,
        store: Store,
        keys: Keyspace,
        *,
        instance_id: str,
        monotonic: Callable[[], float] = time.monotonic,
        on_write: OnWrite = ignore_write,
    ) -> None:
        self.store = store
        self.keys = keys
        self.instance_id = instance_id
        self.models: Table[ModelRecord] = Table(store, keys.models, MODELS, epoch=self._read_epoch)
        self.vmodels: Table[VModelRecord] = Table(store, keys.vmodels, VMODELS, epoch=self._read_epoch)
        self.instances: Table[InstanceRecord] = Table(store, keys.instances, INSTANCES)
        self._monotonic = monotonic
        self._unknown: dict[str, float] = {}
        """Key -> when it may be looked up again; the oldest first."""
        self._holdings: dict[str, set[str]] = {}
        self._loaded = self._failed = 0
        self._writer = RecordWriter(store, self.models, on_write)
        self.models.subscribe(self._index)

    async def start(self) -> None:
        """Reads everything. Raises StoreError."""
        await asyncio.gather(self.instances.start(), self.models.start(), self.vmodels.start())

    async def follow(self) -> None:
        """Keeps the tables up to date until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for table in (self.models, self.vmodels, self.instances):
                tasks.create_task(table.follow())

    async def settled(self) -> None:
        """Waits until all changes of models that were posted are written, or could not be."""
        await self._writer.settled()

    async def close(self) -> None:
        """Gives up changes that are not written yet."""
        await self._writer.close()

    @property
    def corrupt(self) -> int:
        """Records that cannot be read."""
        return self.models.corrupt + self.vmodels.corrupt + self.instances.corrupt

    @property
    def census(self) -> Census:
        """How many models there are."""
        return Census(len(self.models), self._loaded, self._failed)

    def live(self, instance_id: str) -> bool:
        """Whether an instance is there and stays."""
        row = self.instances.get(instance_id)
        if row is None:
            # Its own record may still be on its way into the table.
            return instance_id == self.instance_id
        return not row.value.shutdown

    def present(self, instance_id: str) -> bool:
        """Whether an instance is there, be it that it leaves: until then its copies serve."""
        return instance_id in self.instances or instance_id == self.instance_id

    def is_leader(self) -> bool:
        """Whether housekeeping is this instance's job: it is the one that has been there longest."""
        return self.leader() == self.instance_id

    def leader(self) -> str:
        """The instance that does the housekeeping; empty where there is none."""
        rows = [(row.create_revision, id_) for id_, row in self.instances.items() if not row.value.shutdown]
        return min(rows)[1] if rows else ""

    def holdings(self, instance_id: str) -> frozenset[str]:
        """Models of which records name an instance, as holder of a copy or of a failure."""
        return frozenset(self._holdings.get(instance_id, ()))

    def holders(self) -> Iterator[str]:
        """Instances that records name."""
        return iter(list(self._holdings))

    def peek(self, model_id: str) -> ModelRecord | None:
        """A model as last seen."""
        row = self.models.get(model_id)
        return row.value if row else None

    async def find(self, model_id: str) -> ModelRecord:
        """A model, looked up where not known here. Raises ModelNotFoundError, RegistryUnavailableError."""
        row = self.models.get(model_id) or await self._look_up(self.models, model_id)
        if row is None:
            raise ModelNotFoundError(model_id)
        return row.value

    async def find_vmodel(self, vmodel_id: str) -> VModelRecord | None:
        """A vmodel; one that is not known here is looked up. Raises RegistryUnavailableError."""
        row = self.vmodels.get(vmodel_id) or await self._look_up(self.vmodels, vmodel_id)
        return row.value if row else None

    async def refresh(self, model_id: str) -> None:
        """Reads a model from the store itself. Raises RegistryUnavailableError."""
        try:
            await self.models.fetch(model_id)
        except StoreError as error:
            raise RegistryUnavailableError(f"the registry is not available: {error}") from error

    async def refresh_vmodel(self, vmodel_id: str) -> None:
        """Reads a vmodel from the store itself. Raises RegistryUnavailableError."""
        try:
            await self.vmodels.fetch(vmodel_id)
        except StoreError as error:
            raise RegistryUnavailableError(f"the registry is not available: {error}") from error

    async def update(
        self, model_id: str, change: Callable[[ModelRecord | None], ModelRecord | None]
    ) -> ModelRecord | None:
        """Applies a change to a model's record until nobody gets in between; returns what holds then.

        The change gets None where there is no record and returns None where there shall be none; returning
        what it got writes nothing. Raises RegistryUnavailableError, and whatever the change raises.
        """
        return await self._writer.apply(model_id, change)

    def post(self, model_id: str, change: Callable[[ModelRecord | None], ModelRecord | None]) -> None:
        """Applies a change as `update` does, for a caller that need not wait; a failure is logged.

        Changes of one model are applied in the order of the calls.
        """
        self._writer.post(model_id, change)

    async def update_many(
        self, model_ids: Iterable[str], change: Callable[[ModelRecord], ModelRecord]
    ) -> None:
        """Applies one change to many models. Raises RegistryUnavailableError."""
        await self.update_each(dict.fromkeys(model_ids, change))

    async def update_each(self, changes: Mapping[str, Callable[[ModelRecord], ModelRecord]]) -> None:
        """Applies to each model that exists its own change, in batches. Raises RegistryUnavailableError."""
        pending = list(changes)
        for start in range(0, len(pending), MAX_BATCH_TXNS):
            batch = pending[start : start + MAX_BATCH_TXNS]
            await asyncio.gather(*(self._change_known(id_, changes[id_]) for id_ in batch))

    async def _change_known(self, model_id: str, change: Callable[[ModelRecord], ModelRecord]) -> None:
        await self.update(model_id, lambda record: record and change(record))

    async def commit(
        self,
        models: Mapping[str, ModelRecord | None],
        vmodels: Mapping[str, VModelRecord | None] | None = None,
    ) -> bool:
        """Writes (or with None removes) records together, if all still are as the tables show them.

        Returns False where one was not; the tables then show what is. Raises RegistryUnavailableError.
        """
        compares: list[Compare] = []
        operations: list[Put | Delete] = []
        tables: tuple[tuple[Table[Any], Mapping[str, Any]], ...] = (
            (self.models, models),
            (self.vmodels, vmodels or {}),
        )
        for table, changes in tables:
            for id_, record in changes.items():
                compares.append(table.compare(id_))
                operations.append(table.delete(id_) if record is None else table.put(id_, record))
                self._unknown.pop(table.key(id_), None)
        try:
            result = await self.store.txn(compares, operations)
        except StoreError as error:
            raise RegistryUnavailableError(f"the registry is not available: {error}") from error
        for table, _ in tables:
            if result.succeeded:
                for operation in operations:
                    if operation.key.startswith(table.prefix):
                        table.adopt(operation, result.revision)
            elif not await self._restored(table, result):
                table.learn(result.current, result.revision)
        return result.succeeded

    async def _restored(self, table: Table[Any], result: TxnResult) -> bool:
        """Whether rows were missing because the store has lost its content; they are there again then."""
        missing = any(
            kv is None and key.startswith(table.prefix) and key.removeprefix(table.prefix) in table
            for key, kv in result.current.items()
        )
        try:
            return missing and await table.restored()
        except StoreError as error:
            raise RegistryUnavailableError(f"the registry is not available: {error}") from error

    async def _look_up(self, table: Table[R], id_: str) -> Entry[R] | None:
        key = table.key(id_)
        now = self._monotonic()
        if len(id_) > MAX_ID_BYTES or self._unknown.get(key, now) > now:
            return None
        try:
            row = await table.fetch(id_)
        except StoreError as error:
            raise RegistryUnavailableError(f"the registry is not available: {error}") from error
        if row is None:
            self._unknown.pop(key, None)
            self._unknown[key] = now + UNKNOWN_SECONDS
            if len(self._unknown) > MAX_UNKNOWN:
                del self._unknown[next(iter(self._unknown))]
        return row

    async def _read_epoch(self) -> bytes:
        epoch = secrets.token_hex(8).encode()
        result = await self.store.txn([Compare(self.keys.epoch, 0)], [Put(self.keys.epoch, epoch)])
        current = result.current.get(self.keys.epoch)
        return current.value if current else epoch

    def _index(
        self, model_id: str, before: Entry[ModelRecord] | None, now: Entry[ModelRecord] | None
    ) -> None:
        was = before.value if before else NO_MODEL
        is_ = now.value if now else NO_MODEL
        if not (was.instances or was.failed or is_.instances or is_.failed):
            return
        self._loaded += bool(is_.loaded) - bool(was.loaded)
        self._failed += bool(is_.failed) - bool(was.failed)
        old = was.instances.keys() | was.failed.keys()
        new = is_.instances.keys() | is_.failed.keys()
        for instance_id in old - new:
            holdings = self._holdings[instance_id]
            holdings.discard(model_id)
            if not holdings:
                del self._holdings[instance_id]
        for instance_id in new - old:
            self._holdings.setdefault(instance_id, set()).add(model_id)
