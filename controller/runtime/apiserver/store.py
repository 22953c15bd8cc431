"""Versioned storage in memory: tables of objects, one version counter, and a window of changes to watch from.

Objects in it are never changed in place: a write puts a new one. That is what lets readers and watchers share
them without copies, and an object be encoded once however many watchers get it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec

from controller.runtime.errors import Gone

if TYPE_CHECKING:
    from controller.runtime.client import JSON

Key = tuple[str, str]
"""Namespace (empty for cluster-scoped objects) and name."""
Table = tuple[str, str]
"""Group and plural of a resource."""
ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]

_MAX_BACKLOG: Final = 10_000
"""Changes a watcher may fall behind before it is cut off; it then lists again, as with a real API server."""


class Snapshot:
    """One object as it was at one version."""

    __slots__ = ("_encoded", "object")

    def __init__(self, obj: JSON) -> None:
        self.object = obj
        self._encoded: bytes | None = None

    @property
    def encoded(self) -> bytes:
        """The object as JSON, encoded on first use."""
        if self._encoded is None:
            self._encoded = msgspec.json.encode(self.object)
        return self._encoded


class Change(NamedTuple):
    """One write. `previous` is the object before it, for watches whose selector it enters or leaves."""

    type: ChangeType
    snapshot: Snapshot
    previous: Snapshot | None
    version: int


class Subscription:
    """The changes of one table since a version, for one watcher."""

    def __init__(self, backlog: list[Change]) -> None:
        self._pending = deque(backlog)
        self._woken = asyncio.Event()
        self._overrun = False
        self.closed = False
        if backlog:
            self._woken.set()

    def push(self, change: Change) -> None:
        """Hand over one change."""
        if len(self._pending) >= _MAX_BACKLOG:
            self._overrun = True
        else:
            self._pending.append(change)
        self._woken.set()

    def close(self) -> None:
        """End the watch: `drain` returns at once."""
        self.closed = True
        self._woken.set()

    async def drain(self, timeout_seconds: float) -> list[Change]:
        """Return all changes there are; wait for one, at most `timeout_seconds`. Gone when it fell behind."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._woken.wait()
        except TimeoutError:
            return []
        if self._overrun:
            raise Gone(f"the watch fell more than {_MAX_BACKLOG} changes behind; list again")
        changes = list(self._pending)
        self._pending.clear()
        if not self.closed:
            self._woken.clear()
        return changes


class Store:
    """All objects of the server.

    Args:
        history: changes kept of each table; a watch from before them is Gone.
        first_version: where the counter starts. A server that restarts empty must start above all versions
            of its former life, so that clients with old ones list again.
    """

    def __init__(self, *, history: int, first_version: int) -> None:
        self.version = first_version
        self._first = first_version
        self._history = history
        self._tables: dict[Table, dict[Key, Snapshot]] = defaultdict(dict)
        self._changes: dict[Table, deque[Change]] = defaultdict(lambda: deque(maxlen=history))
        self._subscriptions: dict[Table, set[Subscription]] = defaultdict(set)

    def get(self, table: Table, key: Key) -> Snapshot | None:
        """Return the present object, if there is one."""
        return self._tables[table].get(key)

    def scan(self, table: Table, namespace: str = "") -> list[tuple[Key, Snapshot]]:
        """Return a table's objects in the order of their keys; of one namespace where it is given."""
        rows = self._tables[table].items()
        return sorted(
            (row for row in rows if not namespace or row[0][0] == namespace), key=lambda row: row[0]
        )

    def oldest_first(self, table: Table) -> list[tuple[Key, Snapshot]]:
        """Return a table's objects in the order of their last write."""
        return list(self._tables[table].items())

    def tables_of(self, namespace: str) -> list[Table]:
        """Return the tables that hold something in `namespace`."""
        return [name for name, rows in self._tables.items() if any(key[0] == namespace for key in rows)]

    def put(self, table: Table, key: Key, obj: JSON) -> Snapshot:
        """Write `obj`, which the store owns from now on, under the next version."""
        previous = self._tables[table].pop(key, None)
        snapshot = self._stamp(obj)
        self._tables[table][key] = snapshot
        self._publish(table, Change("MODIFIED" if previous else "ADDED", snapshot, previous, self.version))
        return snapshot

    def remove(self, table: Table, key: Key, last: JSON) -> Snapshot:
        """Remove an object; watchers get `last`, its final state, under the next version."""
        previous = self._tables[table].pop(key)
        snapshot = self._stamp(last)
        self._publish(table, Change("DELETED", snapshot, previous, self.version))
        return snapshot

    def _stamp(self, obj: JSON) -> Snapshot:
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        return Snapshot(obj)

    def _publish(self, table: Table, change: Change) -> None:
        self._changes[table].append(change)
        for subscription in self._subscriptions[table]:
            subscription.push(change)

    def forget_history(self) -> None:
        """Forget all changes: a watch from before now is Gone."""
        self._changes.clear()
        self._first = self.version

    def check_version(self, table: Table, version: int) -> None:
        """Raise Gone when changes after `version` are no longer known, or it is of another server's life."""
        changes = self._changes[table]
        oldest = changes[0].version - 1 if len(changes) == self._history else self._first
        if version < oldest or version > self.version:
            raise Gone(f"too old resource version: {version} ({oldest})")

    def subscribe(self, table: Table, after: int) -> Subscription:
        """Return a subscription to all changes later than `after`; Gone when they are no longer known."""
        self.check_version(table, after)
        backlog = [change for change in self._changes[table] if change.version > after]
        subscription = Subscription(backlog)
        self._subscriptions[table].add(subscription)
        return subscription

    def unsubscribe(self, table: Table, subscription: Subscription) -> None:
        """Stop handing changes to `subscription`."""
        self._subscriptions[table].discard(subscription)

    def close_subscriptions(self, table: Table | None = None) -> None:
        """End the watches of one table, or all."""
        for name in [table] if table else list(self._subscriptions):
            for subscription in self._subscriptions[name]:
                subscription.close()
