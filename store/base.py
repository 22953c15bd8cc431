"""The interface of a store: linearizable reads, compare-and-swap transactions, watches and leases.

Keys are text without the root prefix, which each implementation adds and removes itself. Revisions are
etcd's: one counter for the whole store, and a key that does not exist has mod revision 0.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple, Protocol

MAX_TXN_OPERATIONS = 128
"""Operations in one transaction; etcd's own default for `--max-txn-ops`."""
MAX_BATCH_TXNS = MAX_TXN_OPERATIONS // 2
"""Transactions in one batch, of as many operations each: etcd counts both levels together."""


class KeyValue(NamedTuple):
    """One key as the store holds it."""

    key: str
    value: bytes
    mod_revision: int
    create_revision: int
    lease: int = 0


class Snapshot(NamedTuple):
    """All keys of a prefix, in key order, as they were at one revision."""

    items: list[KeyValue]
    revision: int


class Compare(NamedTuple):
    """Holds where the key's last write has this revision; 0 holds where the key does not exist."""

    key: str
    mod_revision: int


class Put(NamedTuple):
    """Writes a key; with a lease, the key ends when the lease does."""

    key: str
    value: bytes
    lease: int = 0


class Delete(NamedTuple):
    """Removes a key; removing one that does not exist changes nothing."""

    key: str


class TxnResult(NamedTuple):
    """The end of a transaction."""

    succeeded: bool
    revision: int
    current: Mapping[str, KeyValue | None]
    """Where it did not succeed: what the compared keys hold now."""


class Txn(NamedTuple):
    """A transaction of a batch."""

    compares: Sequence[Compare]
    operations: Sequence[Put | Delete]


class Event(NamedTuple):
    """One change of a key. A deletion has no value."""

    key: str
    value: bytes | None
    mod_revision: int
    create_revision: int = 0


class Events(NamedTuple):
    """Changes in order, and the revision up to which the watcher has seen everything."""

    events: list[Event]
    revision: int


class Store(Protocol):
    """One connection to a store. Every call raises StoreUnavailableError where nobody answers in time."""

    async def get(self, key: str) -> KeyValue | None:
        """Reads one key, linearizable."""

    async def range(self, prefix: str, *, keys_only: bool = False) -> Snapshot:
        """Reads a whole prefix in pages, all at one revision."""

    async def txn(self, compares: Sequence[Compare], operations: Sequence[Put | Delete]) -> TxnResult:
        """Applies all operations where every comparison holds, else none.

        At most MAX_TXN_OPERATIONS operations, each on another key.
        """

    async def txn_each(self, txns: Sequence[Txn]) -> list[TxnResult]:
        """Applies independent transactions in one go; each of them holds or not by itself.

        At most MAX_BATCH_TXNS of at most as many operations, and no key is written twice.
        """

    def watch(self, prefix: str, *, revision: int) -> AsyncIterator[Events]:
        """Yields every change of the prefix after the given revision, across reconnections.

        Raises HistoryLostError where changes may have been missed: then read the range again.
        """

    async def grant(self, ttl_seconds: int) -> int:
        """Creates a lease and returns its id."""

    async def keep_alive(self, lease: int) -> None:
        """Extends a lease by its whole time to live. Raises LeaseLostError where it is gone."""

    async def revoke(self, lease: int) -> None:
        """Ends a lease and its keys at once; an unknown lease is ignored."""

    async def close(self) -> None:
        """Releases the connection; watches end."""
