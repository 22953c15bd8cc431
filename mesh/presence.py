"""What this instance tells the others about itself, whenever a decision might depend on it."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable

import structlog

from mesh.config import Config
from mesh.errors import StartError
from mesh.loading import Loader
from mesh.runtime import RuntimeTerms
from store.base import KeyValue, Store
from store.errors import CorruptRecordError, StoreError
from store.records import INSTANCES, NOTHING, InstanceRecord
from store.session import KEEP_ALIVE_SECONDS, LEASE_SECONDS, Session

URGENT_GAP_SECONDS, GAP_SECONDS, LONGEST_GAP_SECONDS = 0.2, 0.5, 40.0
"""Between two publications: where others must know at once, where it may change a decision of theirs, and
where anything at all is different. Every publication goes to every instance."""
CLAIM_SECONDS = 0.5
"""Pause before an instance id that is in use is tried again."""
RETRY_SECONDS = 1.0
"""Pause after a publication that failed."""
RATE_SECONDS = 60
"""Window of the request rate."""

URGENT = ("ready", "shutdown", "capacity", "load_slots", "address")
"""What decides whether an instance is used at all."""

log = structlog.get_logger(__name__)


class Presence:
    """The record of this instance. Run `publish` as a task."""

    def __init__(
        self,
        config: Config,
        session: Session,
        prefix: str,
        loader: Loader,
        *,
        terms: Callable[[], RuntimeTerms | None],
        now: Callable[[], int],
    ) -> None:
        self.leaving = False
        self._config = config
        self._session = session
        self._key = prefix + config.instance_id
        self._loader = loader
        self._terms = terms
        self._now = now
        self._started = now()
        self._published: InstanceRecord | None = None
        self._published_at = 0.0
        self._changed = asyncio.Event()
        self._counts: deque[int] = deque(maxlen=RATE_SECONDS)

    def record(self) -> InstanceRecord:
        """The instance as it is now."""
        terms = self._terms()
        cache = self._loader.cache
        return InstanceRecord(
            address=self._config.peer_address,
            lru_time=cache.oldest(),
            count=len(cache),
            capacity=cache.capacity,
            used=cache.promised.ceiling(cache.in_use),
            default_size=terms.default_size if terms else NOTHING,
            load_slots=terms.load_slots if terms else 0,
            loading=self._loader.pending,
            rpm=sum(self._counts) * 60 // max(1, len(self._counts)),
            ready=terms is not None,
            shutdown=self.leaving,
            start_time=self._started,
            version=self._config.version,
            location=self._config.location,
            zone=self._config.zone,
            labels=self._config.labels,
        )

    async def claim(self, store: Store) -> None:
        """Takes the instance id, by writing the first record.

        A process of the same address can only be our predecessor, as we have its port: its record is
        replaced. For any other the end of its lease is waited for, in case it has died. Raises StartError
        where the id is still in use then, and StoreError.
        """
        deadline = time.monotonic() + LEASE_SECONDS + KEEP_ALIVE_SECONDS
        waiting = False
        while True:
            record = self.record()
            holder = await store.get(self._key)
            if holder is None or not holder.lease or _address(holder) == record.address:
                revision = holder.mod_revision if holder else 0
                if await self._session.claim(self._key, INSTANCES.encode(record), revision):
                    self._published, self._published_at = record, time.monotonic()
                    return
            elif time.monotonic() > deadline:
                raise StartError(
                    f"the instance id {self._config.instance_id} is in use by a process at "
                    f"{_address(holder)}: each pod of a mesh needs a name of its own, and the last "
                    "12 characters of it count"
                )
            elif not waiting:
                waiting = True
                log.warning(
                    "waiting for the lease of another process with this instance id",
                    instance=self._config.instance_id,
                    address=_address(holder),
                    seconds=LEASE_SECONDS,
                )
            await asyncio.sleep(CLAIM_SECONDS)

    def changed(self) -> None:
        """Something happened that others may want to know soon."""
        self._changed.set()

    def count(self, requests: int) -> None:
        """Notes the requests of the last second."""
        self._counts.append(requests)
        if self.due_in() <= 0:
            self._changed.set()

    async def publish_now(self) -> None:
        """Writes the record. Raises StoreError."""
        record = self.record()
        await self._session.put(self._key, INSTANCES.encode(record))
        self._published, self._published_at = record, time.monotonic()

    def due_in(self) -> float:
        """Seconds until the record should be written; infinite where it says what is."""
        if self._published is None:
            return 0.0
        return gap(self._published, self.record()) - (time.monotonic() - self._published_at)

    async def publish(self) -> None:
        """Keeps the record up to date until cancelled."""
        while True:
            due = self.due_in()
            if due > 0:
                self._changed.clear()
                try:
                    async with asyncio.timeout(min(due, LONGEST_GAP_SECONDS)):
                        await self._changed.wait()
                except TimeoutError:
                    continue
                if self.due_in() > 0:
                    await asyncio.sleep(URGENT_GAP_SECONDS)
                continue
            try:
                await self.publish_now()
                await asyncio.sleep(URGENT_GAP_SECONDS)
            except StoreError as error:
                log.warning("instance not published", error=str(error))
                await asyncio.sleep(RETRY_SECONDS)


def _address(holder: KeyValue) -> str:
    try:
        return INSTANCES.decode(holder.value)[0].address
    except CorruptRecordError:
        return ""


def gap(published: InstanceRecord, now: InstanceRecord) -> float:
    """Seconds after a publication when the next one is due."""
    if any(getattr(published, name) != getattr(now, name) for name in URGENT):
        return URGENT_GAP_SECONDS
    if matters(published, now):
        return GAP_SECONDS
    return math.inf if published == now else LONGEST_GAP_SECONDS


def matters(published: InstanceRecord, now: InstanceRecord) -> bool:
    """Whether a placement elsewhere might be decided differently; about the original's thresholds."""
    return (
        abs(now.used.memory - published.used.memory) * 20 >= max(1, now.capacity.memory)
        or abs(now.count - published.count) * 10 >= max(10, published.count)
        or (now.loading > now.load_slots) != (published.loading > published.load_slots)
        or (now.loading == 0) != (published.loading == 0)
        or abs(now.rpm - published.rpm) >= max(100, published.rpm // 10)
        or abs(now.lru_time - published.lru_time) >= 20_000  # noqa: PLR2004 - ms
    )
