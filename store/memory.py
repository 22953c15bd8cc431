"""The store in process, for unit tests and simulation: etcd's rules for revisions, compaction and leases."""

import asyncio
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Sequence

from store.base import (
    MAX_TXN_OPERATIONS,
    Compare,
    Delete,
    Event,
    Events,
    KeyValue,
    Put,
    Snapshot,
    Txn,
    TxnResult,
)
from store.errors import HistoryLostError, LeaseLostError, StoreError, StoreUnavailableError


class MemoryBackend:
    """What several MemoryStores share, as several clients share one etcd."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.available = True
        self._clock = clock
        self._rows: dict[str, KeyValue] = {}
        self._history: list[Event] = []
        self._compacted = 0
        self._revision = 1
        self._leases: dict[int, tuple[int, float]] = {}
        self._last_lease = 0
        self._changed = asyncio.Event()

    def set_available(self, available: bool) -> None:  # noqa: FBT001
        """Makes every call fail, and every watch pause, until it is available again."""
        self.available = available
        self._wake()

    def compact(self) -> None:
        """Forgets the history, so that watches that lag cannot resume."""
        self._history.clear()
        self._compacted = self._revision

    def wipe(self) -> None:
        """Loses everything, as an etcd without its disk: revisions start again."""
        self._rows.clear()
        self._history.clear()
        self._leases.clear()
        self._compacted = 0
        self._revision = 1
        self._wake()

    def check(self) -> None:
        """Raises StoreUnavailableError while unavailable; ends what has expired."""
        if not self.available:
            raise StoreUnavailableError("the in-process store is switched off")
        self.expire()

    def expire(self) -> None:
        """Ends leases whose time is over."""
        now = self._clock()
        for lease in [lease for lease, (_, end) in self._leases.items() if end <= now]:
            self.end_lease(lease)

    def get(self, key: str) -> KeyValue | None:
        """As Store.get."""
        return self._rows.get(key)

    def range(self, prefix: str) -> Snapshot:
        """As Store.range."""
        return Snapshot(
            sorted(kv for key, kv in self._rows.items() if key.startswith(prefix)), self._revision
        )

    def txn(self, compares: Sequence[Compare], operations: Sequence[Put | Delete]) -> TxnResult:
        """As Store.txn, of any size."""
        current = {compare.key: self._rows.get(compare.key) for compare in compares}
        if any((kv.mod_revision if (kv := current[key]) else 0) != revision for key, revision in compares):
            return TxnResult(succeeded=False, revision=self._revision, current=current)
        for operation in operations:
            if isinstance(operation, Put) and operation.lease and operation.lease not in self._leases:
                raise LeaseLostError(f"lease {operation.lease:x} is gone")
        effective = [op for op in operations if isinstance(op, Put) or op.key in self._rows]
        if effective:
            self._revision += 1
            for operation in effective:
                self._apply(operation)
            self._wake()
        return TxnResult(succeeded=True, revision=self._revision, current={})

    def since(self, prefix: str, revision: int) -> Events:
        """Changes of the prefix after a revision. Raises HistoryLostError where some are gone."""
        if revision < self._compacted or revision > self._revision:
            raise HistoryLostError(f"watch of {prefix}: revision {revision} is not in the store any more")
        start = bisect_right(self._history, revision, key=lambda event: event.mod_revision)
        events = [event for event in self._history[start:] if event.key.startswith(prefix)]
        return Events(events, self._revision)

    async def changed(self) -> None:
        """Waits for the next change of anything."""
        await self._changed.wait()

    def grant(self, ttl_seconds: int) -> int:
        """As Store.grant."""
        self._last_lease += 1
        self._leases[self._last_lease] = (ttl_seconds, self._clock() + ttl_seconds)
        return self._last_lease

    def keep_alive(self, lease: int) -> None:
        """As Store.keep_alive."""
        if lease not in self._leases:
            raise LeaseLostError(f"lease {lease:x} is gone")
        ttl, _ = self._leases[lease]
        self._leases[lease] = (ttl, self._clock() + ttl)

    def end_lease(self, lease: int) -> None:
        """Ends a lease and its keys."""
        if self._leases.pop(lease, None) is not None:
            self.txn([], [Delete(key) for key, kv in self._rows.items() if kv.lease == lease])

    def _apply(self, operation: Put | Delete) -> None:
        before = self._rows.pop(operation.key, None)
        if isinstance(operation, Delete):
            self._history.append(Event(operation.key, None, self._revision))
            return
        created = before.create_revision if before else self._revision
        self._rows[operation.key] = KeyValue(
            operation.key, operation.value, self._revision, created, operation.lease
        )
        self._history.append(Event(operation.key, operation.value, self._revision, created))

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class MemoryStore:
    """A Store on a MemoryBackend: its own, or one that it shares."""

    def __init__(self, backend: MemoryBackend | None = None, *, root_prefix: str = "") -> None:
        self.backend = backend or MemoryBackend()
        self._root = root_prefix
        self._closed = False

    async def get(self, key: str) -> KeyValue | None:
        """Reads one key."""
        await self._enter()
        kv = self.backend.get(self._root + key)
        return self._plain(kv) if kv else None

    async def range(self, prefix: str, *, keys_only: bool = False) -> Snapshot:
        """Reads a whole prefix."""
        await self._enter()
        items, revision = self.backend.range(self._root + prefix)
        found = [self._plain(kv) for kv in items]
        return Snapshot([kv._replace(value=b"") for kv in found] if keys_only else found, revision)

    async def txn(self, compares: Sequence[Compare], operations: Sequence[Put | Delete]) -> TxnResult:
        """Applies all operations where every comparison holds."""
        await self._enter()
        if len(operations) > MAX_TXN_OPERATIONS:
            raise StoreError(
                f"a transaction of {len(operations)} operations: at most {MAX_TXN_OPERATIONS} are possible"
            )
        rooted = [operation._replace(key=self._root + operation.key) for operation in operations]
        result = self.backend.txn([Compare(self._root + key, revision) for key, revision in compares], rooted)
        current = {
            key[len(self._root) :]: self._plain(kv) if kv else None for key, kv in result.current.items()
        }
        return result._replace(current=current)

    async def txn_each(self, txns: Sequence[Txn]) -> list[TxnResult]:
        """Applies transactions that have nothing to do with each other."""
        return [await self.txn(txn.compares, txn.operations) for txn in txns]

    async def watch(self, prefix: str, *, revision: int) -> AsyncIterator[Events]:
        """Yields every change of the prefix after the revision."""
        while not self._closed:
            if self.backend.available:
                self.backend.expire()
                events, seen = self.backend.since(self._root + prefix, revision)
                if seen > revision:
                    revision = seen
                    yield Events([event._replace(key=event.key[len(self._root) :]) for event in events], seen)
                    continue
            await self.backend.changed()

    async def grant(self, ttl_seconds: int) -> int:
        """Creates a lease."""
        await self._enter()
        return self.backend.grant(ttl_seconds)

    async def keep_alive(self, lease: int) -> None:
        """Extends a lease."""
        await self._enter()
        self.backend.keep_alive(lease)

    async def revoke(self, lease: int) -> None:
        """Ends a lease and its keys."""
        await self._enter()
        self.backend.end_lease(lease)

    async def close(self) -> None:
        """Ends the watches; the backend stays."""
        self._closed = True
        self.backend.set_available(self.backend.available)

    async def _enter(self) -> None:
        await asyncio.sleep(0)
        self.backend.check()

    def _plain(self, kv: KeyValue) -> KeyValue:
        return kv._replace(key=kv.key[len(self._root) :])
