"""A process's lease: keys that live while the process does, and come back when the lease is made anew."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import structlog

from store.base import Compare, Delete, Put, Store
from store.errors import LeaseLostError, StoreError

LEASE_SECONDS = 25
"""Time to live, as in the original: a process that dies is noticed within this time."""
KEEP_ALIVE_SECONDS = 5.0

log = structlog.get_logger(__name__)


class Session:
    """Keys that end with this process. Run `keep` as a task."""

    def __init__(
        self,
        store: Store,
        *,
        ttl_seconds: int = LEASE_SECONDS,
        keep_alive_seconds: float = KEEP_ALIVE_SECONDS,
        on_renewed: Callable[[], None] | None = None,
    ) -> None:
        self._store = store
        self._ttl = ttl_seconds
        self._interval = keep_alive_seconds
        self._on_renewed = on_renewed
        self._lease = 0
        self._keys: dict[str, bytes] = {}
        self._lock = asyncio.Lock()
        self._ended = False
        self._doubted = asyncio.Event()
        self._heard = time.monotonic()

    @property
    def silence(self) -> float:
        """Seconds since the store last confirmed the lease, or the object was made."""
        return time.monotonic() - self._heard

    def doubt(self) -> None:
        """Something says that the keys are gone, so `keep` looks at once, and writes them again."""
        self._doubted.set()

    async def put(self, key: str, value: bytes) -> None:
        """Writes a key of this session, now and whenever the lease is made anew. Raises StoreError.

        After the end it does nothing: who is still at work then must not leave keys behind.
        """
        async with self._lock:
            if not self._ended:
                self._keys[key] = value
                await self._write({key: value})

    async def claim(self, key: str, value: bytes, mod_revision: int) -> bool:
        """Writes a key as `put` does if it still has this revision (0: does not exist).

        Returns whether it had. Raises StoreError.
        """
        async with self._lock:
            if not self._lease:
                self._lease = await self._store.grant(self._ttl)
            result = await self._store.txn([Compare(key, mod_revision)], [Put(key, value, self._lease)])
            if result.succeeded:
                self._keys[key] = value
            return result.succeeded

    async def remove(self, key: str) -> None:
        """Removes a key of this session. Raises StoreError."""
        self._keys.pop(key, None)
        async with self._lock:
            await self._store.txn([], [Delete(key)])

    async def keep(self) -> None:
        """Keeps the lease alive until cancelled. An outage is waited for; a lost lease is replaced."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._doubted.wait()
            doubted = self._doubted.is_set()
            self._doubted.clear()
            try:
                async with self._lock:
                    if self._lease:
                        await self._store.keep_alive(self._lease)
                        self._heard = time.monotonic()
                        if doubted:
                            await self._put(dict(self._keys), self._lease)
            except LeaseLostError as error:
                await self._renew(error)
            except StoreError as error:
                log.warning("lease not extended", error=str(error))

    async def end(self) -> None:
        """Ends the lease and with it the keys. Raises StoreError."""
        self._ended = True
        self._keys.clear()
        async with self._lock:
            lease, self._lease = self._lease, 0
            if lease:
                await self._store.revoke(lease)

    async def _renew(self, cause: LeaseLostError) -> None:
        log.warning("lease lost, publishing again", error=str(cause))
        try:
            async with self._lock:
                await self._write_anew()
        except StoreError as error:
            log.warning("lease not renewed", error=str(error))

    async def _write(self, keys: dict[str, bytes]) -> None:
        if not self._lease:
            self._lease = await self._store.grant(self._ttl)
        try:
            await self._put(keys, self._lease)
        except LeaseLostError:
            await self._write_anew()

    async def _write_anew(self) -> None:
        lease = await self._store.grant(self._ttl)
        await self._put(dict(self._keys), lease)
        self._heard = time.monotonic()
        # Only now: where the store fails in between, the lost lease is noticed again.
        self._lease = lease
        if self._on_renewed:
            self._on_renewed()

    async def _put(self, keys: dict[str, bytes], lease: int) -> None:
        for key, value in keys.items():
            await self._store.txn([], [Put(key, value, lease)])
