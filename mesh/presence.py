"""What this instance tells the others about itself, whenever a decision might depend on it."""

import asyncio
from collections import deque
from collections.abc import Callable

import structlog

from mesh.config import Config
from mesh.loading import Loader
from mesh.runtime import RuntimeTerms
from store.errors import StoreError
from store.records import INSTANCES, NOTHING, InstanceRecord
from store.session import Session

LEAST_GAP_SECONDS = 0.2
"""Between two publications; placement on other instances is at most this much behind a change that matters.
"""
LONGEST_GAP_SECONDS = 40.0
RATE_SECONDS = 60
"""Window of the request rate."""

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

    def changed(self) -> None:
        """Something happened that others may want to know soon."""
        self._changed.set()

    def count(self, requests: int) -> None:
        """Notes the requests of the last second."""
        self._counts.append(requests)
        if self._published is None or matters(self._published, self.record()):
            self._changed.set()

    async def publish_now(self) -> None:
        """Writes the record. Raises StoreError."""
        record = self.record()
        await self._session.put(self._key, INSTANCES.encode(record))
        self._published = record

    async def publish(self) -> None:
        """Keeps the record up to date until cancelled."""
        while True:
            try:
                await self.publish_now()
            except StoreError as error:
                log.warning("instance not published", error=str(error))
            self._changed.clear()
            await asyncio.sleep(LEAST_GAP_SECONDS)
            try:
                async with asyncio.timeout(LONGEST_GAP_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                continue


def matters(published: InstanceRecord, now: InstanceRecord) -> bool:
    """Whether a placement elsewhere might be decided differently; about the original's thresholds."""
    fixed = ("ready", "shutdown", "capacity", "load_slots", "address")
    if any(getattr(published, name) != getattr(now, name) for name in fixed):
        return True
    return (
        abs(now.used.memory - published.used.memory) * 20 >= max(1, now.capacity.memory)
        or abs(now.count - published.count) * 10 >= max(10, published.count)
        or (now.loading > now.load_slots) != (published.loading > published.load_slots)
        or (now.loading == 0) != (published.loading == 0)
        or abs(now.rpm - published.rpm) >= max(100, published.rpm // 10)
        or abs(now.lru_time - published.lru_time) >= 20_000  # noqa: PLR2004 - ms
    )
