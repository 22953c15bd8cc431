"""A prefix of the store as a local, typed table that follows every change.

A write of our own shows in the table when the call returns; what the watch tells later about it is recognised
by its revision. Values that cannot be decoded are logged with their key and left out, but their revision is
known, so they can be overwritten.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Generic, NamedTuple, TypeVar

import structlog

from store.base import MAX_TXN_OPERATIONS, Compare, Delete, KeyValue, Put, Store
from store.errors import CorruptRecordError, HistoryLostError, StoreError
from store.records import Codec, Unknown

T = TypeVar("T")
MAX_TXN_BYTES = 1_000_000
"""Keys and values written together: etcd refuses requests of more than 1.5 MiB by default."""
RETRY_SECONDS = 1.0
"""Pause before an unreadable range is read again."""

log = structlog.get_logger(__name__)


class Entry(NamedTuple, Generic[T]):
    """One row."""

    value: T
    mod_revision: int
    create_revision: int
    unknown: Unknown | None = None


Listener = Callable[[str, Entry[T] | None, Entry[T] | None], None]
"""Called with (id, row before, row now) on the event loop, after the table shows the change."""


class Table(Generic[T]):
    """A mirror of one prefix. Call `start` once, then run `follow` as a task; read and write at any time.

    With `epoch` (reads the epoch key, creating it where it is missing) rows survive a store that lost its
    content: they are written again instead of being taken for deleted.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        codec: Codec[T],
        *,
        epoch: Callable[[], Awaitable[bytes]] | None = None,
    ) -> None:
        self.prefix = prefix
        self._store = store
        self._codec = codec
        self._read_epoch = epoch
        self._epoch = b""
        self._rows: dict[str, Entry[T]] = {}
        self._corrupt: dict[str, int] = {}
        self._buried: dict[str, int] = {}
        self._revision = 0
        self._starting = asyncio.Lock()
        self._listeners: list[Listener[T]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._rows

    def get(self, id_: str) -> Entry[T] | None:
        """The row as last seen."""
        return self._rows.get(id_)

    def items(self) -> Iterator[tuple[str, Entry[T]]]:
        """All rows; do not change the table while iterating."""
        return iter(self._rows.items())

    def is_corrupt(self, id_: str) -> bool:
        """Whether the store has a value there that cannot be decoded."""
        return id_ in self._corrupt

    @property
    def corrupt(self) -> int:
        """Values that cannot be decoded."""
        return len(self._corrupt)

    def subscribe(self, listener: Listener[T]) -> None:
        """Calls the listener for every change from now on; `start` reports what it finds as changes."""
        self._listeners.append(listener)

    def key(self, id_: str) -> str:
        """The store's key of a row."""
        return self.prefix + id_

    async def start(self) -> None:
        """Reads the range, again where it was read before. Raises StoreError."""
        async with self._starting:
            orphaned = await self._orphan_rows()
            passed = self._revision
            snapshot = await self._store.range(self.prefix, keys_only=self._codec.keys_only)
            if snapshot.revision < passed:
                self._forget_revisions()
            seen = {kv.key[len(self.prefix) :] for kv in snapshot.items}
            self._revision = snapshot.revision
            self._passed(snapshot.revision)
            for id_ in [id_ for id_ in (*self._rows, *self._corrupt) if id_ not in seen | orphaned]:
                self._remove(id_, snapshot.revision)
            for kv in snapshot.items:
                self._observe(kv, at=snapshot.revision)
            await self._adopt_orphans(orphaned - seen)
        self._passed(snapshot.revision)

    async def follow(self) -> None:
        """Applies changes until cancelled; reads the range again where changes may have been missed."""
        while True:
            try:
                async for events in self._store.watch(self.prefix, revision=self._revision):
                    for event in events.events:
                        if event.value is None:
                            self._remove(event.key[len(self.prefix) :], event.mod_revision)
                        else:
                            self._observe(
                                KeyValue(event.key, event.value, event.mod_revision, event.create_revision)
                            )
                    self._passed(events.revision)
            except HistoryLostError as error:
                log.info("store history lost, reading again", prefix=self.prefix, error=str(error))
                await self._restart()
            except StoreError as error:
                log.warning("store watch failed", prefix=self.prefix, error=str(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def fetch(self, id_: str) -> Entry[T] | None:
        """Reads one row from the store itself, and mirrors it."""
        kv = await self._store.get(self.key(id_))
        if kv:
            self._observe(kv)
        elif id_ not in self._rows or not await self.restored():
            self._remove(id_, self._revision)
        return self._rows.get(id_)

    async def restored(self) -> bool:
        """To be asked where a known row is missing: whether the store has lost its content.

        If so the rows are written again, and it was no deletion. Raises StoreError.
        """
        if self._read_epoch is None or not self._epoch or self._epoch == await self._read_epoch():
            return False
        await self.start()
        return True

    def revision_of(self, id_: str) -> int:
        """What a comparison must expect of this row: 0 where it does not exist; a corrupt row has one too."""
        row = self._rows.get(id_)
        return row.mod_revision if row is not None else self._corrupt.get(id_, 0)

    def compare(self, id_: str) -> Compare:
        """Holds while the row is as the table shows it."""
        return Compare(self.key(id_), self.revision_of(id_))

    def put(self, id_: str, value: T, *, lease: int = 0) -> Put:
        """An operation that writes the row, keeping members we do not know."""
        row = self._rows.get(id_)
        return Put(self.key(id_), self._codec.encode(value, row.unknown if row else None), lease)

    def delete(self, id_: str) -> Delete:
        """An operation that removes the row."""
        return Delete(self.key(id_))

    def adopt(self, operation: Put | Delete, revision: int) -> None:
        """Shows an operation of ours that the store applied at this revision."""
        id_ = operation.key[len(self.prefix) :]
        if isinstance(operation, Delete):
            self._remove(id_, revision)
            return
        row = self._rows.get(id_)
        self._observe(
            KeyValue(operation.key, operation.value, revision, row.create_revision if row else revision)
        )

    def learn(self, current: Mapping[str, KeyValue | None], revision: int) -> None:
        """Shows what a failed transaction found."""
        for key, kv in current.items():
            if not key.startswith(self.prefix):
                continue
            if kv is None:
                self._remove(key[len(self.prefix) :], revision)
            else:
                self._observe(kv)

    async def write(self, id_: str, value: T | None, *, lease: int = 0) -> bool:
        """Writes (or with None removes) one row if it is still as the table shows it.

        Returns False where it was not; the table then shows the newer row.
        """
        operation = self.delete(id_) if value is None else self.put(id_, value, lease=lease)
        result = await self._store.txn([self.compare(id_)], [operation])
        if result.succeeded:
            self.adopt(operation, result.revision)
        else:
            self.learn(result.current, result.revision)
        return result.succeeded

    async def _orphan_rows(self) -> set[str]:
        """Where the store lost its content since the last time: the rows, which are ours to write again."""
        if self._read_epoch is None:
            return set()
        known, self._epoch = self._epoch, await self._read_epoch()
        if not known or known == self._epoch:
            return set()
        log.warning(
            "the store has lost its content, publishing again", prefix=self.prefix, rows=len(self._rows)
        )
        self._corrupt.clear()
        self._forget_revisions()
        return set(self._rows)

    def _forget_revisions(self) -> None:
        """The store counts anew (it was replaced, or restored from a backup): what it says now is newer."""
        self._rows = {id_: row._replace(mod_revision=0) for id_, row in self._rows.items()}
        self._corrupt = dict.fromkeys(self._corrupt, 0)
        self._buried.clear()

    async def _adopt_orphans(self, orphans: set[str]) -> None:
        batch: dict[str, Put] = {}
        size = 0
        for id_ in sorted(orphans):
            operation = self.put(id_, self._rows[id_].value)
            # The key goes along thrice: compared, written, and to be read where the comparison fails.
            added = len(operation.value) + 3 * len(operation.key.encode())
            if batch and (len(batch) == MAX_TXN_OPERATIONS or size + added > MAX_TXN_BYTES):
                await self._write_orphans(batch)
                batch, size = {}, 0
            batch[id_] = operation
            size += added
        await self._write_orphans(batch)

    async def _write_orphans(self, batch: Mapping[str, Put]) -> None:
        if not batch:
            return
        rows = {id_: self._rows[id_].value for id_ in batch}
        result = await self._store.txn([self.compare(id_) for id_ in batch], list(batch.values()))
        if result.succeeded:
            for operation in batch.values():
                self.adopt(operation, result.revision)
            return
        self.learn({key: kv for key, kv in result.current.items() if kv}, result.revision)
        for id_ in (id_ for id_ in batch if self._rows[id_].mod_revision == 0):
            await self.write(id_, rows[id_])

    async def _restart(self) -> None:
        while True:
            try:
                await self.start()
            except StoreError as error:
                log.warning("store range unreadable", prefix=self.prefix, error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    def _observe(self, kv: KeyValue, *, at: int = 0) -> None:
        """Shows a row unless a later state of it is known; `at` is the revision of a whole read."""
        id_ = kv.key[len(self.prefix) :]
        known = max(self.revision_of(id_), self._buried.get(id_, 0))
        if known == kv.mod_revision or known > max(kv.mod_revision, at):
            return
        before = self._rows.get(id_)
        if before is None and not known and kv.mod_revision <= self._revision and not at:
            return  # the watch is past that revision and shows no row: it was deleted since
        try:
            value, unknown = self._codec.decode(kv.value)
        except CorruptRecordError as error:
            log.error(  # noqa: TRY400 - the trace says nothing
                "corrupt record skipped", key=kv.key, revision=kv.mod_revision, error=str(error)
            )
            self._rows.pop(id_, None)
            self._corrupt[id_] = kv.mod_revision
            self._tell(id_, before, None)
            return
        self._corrupt.pop(id_, None)
        row = self._rows[id_] = Entry(value, kv.mod_revision, kv.create_revision, unknown)
        self._tell(id_, before, row)

    def _remove(self, id_: str, revision: int) -> None:
        if revision < self.revision_of(id_):
            return
        if revision > self._revision:
            self._buried[id_] = revision
        self._corrupt.pop(id_, None)
        before = self._rows.pop(id_, None)
        self._tell(id_, before, None)

    def _passed(self, revision: int) -> None:
        self._revision = max(self._revision, revision)
        if self._buried and not self._starting.locked():  # a range being read may show them still
            self._buried = {id_: at for id_, at in self._buried.items() if at > self._revision}

    def _tell(self, id_: str, before: Entry[T] | None, now: Entry[T] | None) -> None:
        if before is None and now is None:
            return
        for listener in self._listeners:
            listener(id_, before, now)
