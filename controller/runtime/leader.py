"""Leader election by a Lease: of several processes, one acts.

A holder says in the Lease how long it may be trusted without news and renews it well before. The others
measure that time with their own clocks, from when they last saw the Lease change, so the clocks of the
machines need not agree. The holder in turn counts from *before* it sent its last successful renewal, and
stops writing (`fence`) at `renew_deadline`, which ends before anybody else's `lease_duration` can:

    holder    renewal sent ──── renew_deadline ──► writes nothing more, ends
    others           └─ seen ───────── lease_duration ────────► may take over

Times are those of CLOCK_BOOTTIME where there is one: it also counts while the machine sleeps, which
CLOCK_MONOTONIC does not. Lease times as people see them (`renewTime`) are decoration.

The format is that of client-go, so `kubectl get lease` and other tools show it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import math
import random
import socket
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from api.core import LEASE
from controller.runtime import metrics
from controller.runtime.errors import AlreadyExists, ClientError, Conflict, NotFound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from controller.runtime.client import JSON, Client

_log = structlog.get_logger(__name__)

_JITTER = 0.2
"""Part of the retry period by which waits differ, so that standbys do not ask in step."""
_RELEASE_SECONDS = 5.0
"""Seconds a stopping process gives the server to take the Lease back; then others wait for its end."""


class LeadershipLostError(ClientError):
    """The Lease could not be renewed in time: the process must end, another may act already."""


def _identity() -> str:
    return f"{socket.gethostname()}_{uuid.uuid4()}"


@dataclass(frozen=True, slots=True)
class LeaseLock:
    """Which Lease, who we are in it, and its times; the defaults are controller-runtime's.

    Attributes:
        name: name of the Lease.
        namespace: its namespace.
        identity: names this process, unlike any other; made up by default.
        lease_duration: seconds after the last renewal before others may take over.
        renew_deadline: seconds after the last renewal at which this process gives up.
        retry_period: seconds between renewals, and between tries of the others.

    Raises:
        ValueError: the times leave no room between them.
    """

    name: str
    namespace: str
    identity: str = field(default_factory=_identity)
    lease_duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0

    def __post_init__(self) -> None:
        if not self.lease_duration > self.renew_deadline > self.retry_period * (1 + _JITTER) > 0:
            raise ValueError(
                f"leader election: the lease duration ({self.lease_duration} s) must be longer than the "
                f"renew deadline ({self.renew_deadline} s), and that longer than {1 + _JITTER} times the "
                f"retry period ({self.retry_period} s)"
            )


def boot_time() -> float:
    """Return seconds of a clock that never goes back and counts while the machine sleeps, where it can."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Leadership:
    """One process's part in an election; it is the `fence.Right` of the process's writes.

    Args:
        client: the API server; not a fenced one.
        lock: the Lease.
        clock: seconds, monotonic.
        sleep: waits so many seconds.
        now: the time of day, with time zone.
        source: returns a random number in [0, 1).
    """

    def __init__(
        self,
        client: Client,
        lock: LeaseLock,
        *,
        clock: Callable[[], float] = boot_time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        source: Callable[[], float] = random.random,
    ) -> None:
        self._client, self.lock = client, lock
        self._clock, self._sleep, self._now, self._source = clock, sleep, now, source
        self._until = clock()
        self._lease: JSON | None = None  # as last seen; ours to replace while nobody else writes it
        self._seen_at = clock()
        self._holder: str | None = None
        self._log = _log.bind(lease=f"{lock.namespace}/{lock.name}", identity=lock.identity)
        self._gauge = metrics.LEADER.labels(lock.name)
        self._gauge.set(0)

    @property
    def remaining(self) -> float:
        """Seconds for which this process may still act without another renewal."""
        return self._until - self._clock()

    async def acquire(self) -> None:
        """Return when this process holds the Lease, however long that takes."""
        while not await self._attempt(self.lock.renew_deadline):
            await self._pause()
        self._gauge.set(1)
        self._log.info("this process leads")

    async def hold(self) -> None:
        """Renew the Lease until cancelled.

        Raises:
            LeadershipLostError: it was not renewed in time.
        """
        try:
            while self.remaining > 0:
                await self._pause()
                if self.remaining > 0:
                    await self._attempt(self.remaining)
        finally:
            self._gauge.set(0)
        raise LeadershipLostError(
            f"lease {self.lock.namespace}/{self.lock.name} was not renewed within "
            f"{self.lock.renew_deadline} s; this process must not act any more"
        )

    async def release(self) -> None:
        """Let others take over at once. Call it when everything that writes has ended."""
        if self._lease is None or self.remaining <= 0:
            return
        self._until = self._clock()
        lease = self._body(holder="", duration=1)
        try:
            async with asyncio.timeout(_RELEASE_SECONDS):
                await self._client.replace(LEASE, lease)
        except (ClientError, TimeoutError) as error:
            self._log.warning("could not release the lease; it runs out by itself", error=str(error))
        else:
            self._log.info("released the lease")

    async def _attempt(self, seconds: float) -> bool:
        """Try once to get or renew the Lease, for at most so many seconds; return whether it is ours."""
        try:
            async with asyncio.timeout(seconds):
                return await self._claim()
        except (ClientError, TimeoutError) as error:
            self._log.warning("cannot get or renew the lease; trying again", error=str(error) or "no answer")
            return False

    async def _claim(self) -> bool:
        if self.remaining <= 0 or self._lease is None:
            await self._look()
        if self._lease is not None and not self._is_free():
            return False
        started = self._clock()
        try:
            if self._lease is None:
                self._lease = await self._client.create(LEASE, self._body(holder=self.lock.identity))
            else:
                self._lease = await self._client.replace(LEASE, self._body(holder=self.lock.identity))
        except (Conflict, AlreadyExists, NotFound):
            # Somebody else was first, or our own write whose answer got lost; the next look tells.
            await self._look()
            return False
        self._until = started + self.lock.renew_deadline
        self._tell(self.lock.identity)
        return True

    async def _look(self) -> None:
        """Read the Lease; a change of it starts its holder's time anew."""
        before = self._lease["metadata"]["resourceVersion"] if self._lease else None
        try:
            self._lease = await self._client.get(LEASE, self.lock.name, self.lock.namespace)
        except NotFound:
            self._lease = None
            return
        if self._lease["metadata"]["resourceVersion"] != before:
            self._seen_at = self._clock()
        self._tell(self._lease["spec"].get("holderIdentity") or "")

    def _is_free(self) -> bool:
        """Whether the Lease is ours, nobody's, or its holder has given no news for longer than it said."""
        spec: JSON = (self._lease or {}).get("spec") or {}
        if (spec.get("holderIdentity") or "") in {"", self.lock.identity}:
            return True
        duration = float(spec.get("leaseDurationSeconds") or self.lock.lease_duration)
        return self._clock() - self._seen_at > duration

    def _body(self, *, holder: str, duration: float | None = None) -> JSON:
        """Return the Lease as it is to be: with what others put into it, and the version it replaces."""
        lease = self._lease or {"metadata": {"name": self.lock.name, "namespace": self.lock.namespace}}
        spec: JSON = dict(lease.get("spec") or {})
        now = self._now().astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if holder and spec.get("holderIdentity") != holder:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + (self._lease is not None)
        spec |= {
            "holderIdentity": holder,
            "renewTime": now,
            "leaseDurationSeconds": math.ceil(duration or self.lock.lease_duration),
        }
        return {**lease, "apiVersion": LEASE.api_version, "kind": LEASE.kind, "spec": spec}

    def _tell(self, holder: str) -> None:
        if holder != self._holder:
            self._holder = holder
            self._log.info("the lease has a holder" if holder else "the lease has no holder", holder=holder)

    async def _pause(self) -> None:
        wait = self.lock.retry_period * (1 + _JITTER * self._source())
        # Woken at the deadline at the latest, so that a lost lease is known when it is lost.
        await self._sleep(min(wait, self.remaining) if self.remaining > 0 else wait)
