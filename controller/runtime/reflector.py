"""Keeps a copy of what the API server holds: list, then watch, for ever.

A watch fails in more ways than it succeeds, and a cache that silently stops is worse than none. So:

* the list is paged; a list or watch that became too old (410) starts over, and what has disappeared
  meanwhile is reported as deleted;
* a watch that ends is resumed where it stopped, without a new list: at once if it had been useful, else with
  jittered back-off;
* bookmarks move that point forward while nothing changes, so that resuming rarely meets a 410;
* a watch without any sign of life (events or bookmarks) for `inactivity` seconds is taken for dead and
  resumed: a connection through a firewall that forgot it delivers nothing and never ends.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Protocol

import structlog

from controller.runtime.backoff import Backoff
from controller.runtime.errors import ClientError, Gone

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from api.resource import Resource
    from controller.runtime.client import JSON, Client, WatchEvent

_log = structlog.get_logger(__name__)

PAGE_SIZE = 500
"""Objects a page of a list; client-go's default. Larger pages hold the event loop longer at a time."""
INACTIVITY = 150.0
"""Seconds. kube-apiserver sends a bookmark about every minute, so two were missed."""
USEFUL_SECONDS = 5.0
"""A watch that ends sooner and without an event was refused or cut, and is resumed with back-off."""


class Sink(Protocol):
    """Where a reflector puts what it sees."""

    def upsert(self, obj: JSON) -> None:
        """The object exists, in this version."""
        ...

    def delete(self, namespace: str, name: str) -> None:
        """The object is gone."""
        ...

    def keys(self, namespace: str) -> set[tuple[str, str]]:
        """Namespace and name of every object held; of one namespace, or of all when it is empty."""
        ...

    def synced(self, namespace: str) -> None:
        """A whole list of the reflector's namespace has been seen."""
        ...


class Reflector:
    """Mirrors one resource, in one namespace or (empty) all, into a sink.

    Args:
        client: the API server.
        resource: what to mirror.
        sink: receives it.
        namespace: which part of it; empty for all.
        label_selector: as in the API; empty selects all.
        field_selector: as in the API; empty selects all.
        inactivity: seconds without a sign of life after which a watch is given up.
        backoff: delays between failing attempts.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource,
        sink: Sink,
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        inactivity: float = INACTIVITY,
        backoff: Backoff | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client, self._resource, self._sink = client, resource, sink
        self._namespace = namespace
        self._labels, self._fields = label_selector, field_selector
        self._inactivity = inactivity
        self._backoff = backoff or Backoff()
        self._sleep = sleep
        self._version = ""
        self._fresh = True  # the version is a list's; no event has moved it yet
        self._log = _log.bind(resource=resource.plural, namespace=namespace)

    async def run(self) -> None:
        """Mirror until cancelled; no error of the API server ends it."""
        while True:
            try:
                if not self._version:
                    self._version, self._fresh = await self._list(), True
                useful = await self._watch()
            except Gone as error:
                self._log.info("listing again", reason=error.message)
                # At once after a watch that worked; a server that answers 410 to its own list is not pressed.
                self._version, useful = "", not self._fresh
            except ClientError as error:
                self._log.warning("cannot list or watch; trying again", error=str(error))
                useful = False
            if useful:
                self._backoff.reset()
            else:
                await self._sleep(self._backoff.next())

    async def _list(self) -> str:
        """Bring the sink to the state of one list, page by page, and return the list's version."""
        stale = self._sink.keys(self._namespace)
        token = ""
        while True:
            page = await self._client.list(
                self._resource,
                self._namespace,
                label_selector=self._labels,
                field_selector=self._fields,
                limit=PAGE_SIZE,
                continue_token=token,
            )
            for obj in page.items:
                stale.discard(_key(obj))
                self._sink.upsert(obj)
            token = page.continue_token
            if not token:
                break
        for namespace, name in stale:
            self._sink.delete(namespace, name)
        self._sink.synced(self._namespace)
        return page.resource_version

    async def _watch(self) -> bool:
        """Follow changes until the watch ends; return whether it was useful."""
        loop = asyncio.get_running_loop()
        started, seen = loop.time(), False
        watch = self._client.watch(
            self._resource,
            self._namespace,
            resource_version=self._version,
            label_selector=self._labels,
            field_selector=self._fields,
        )
        async with aclosing(watch):
            while event := await self._next(watch):
                seen = True
                self._see(event)
        return seen or loop.time() - started >= USEFUL_SECONDS

    async def _next(self, watch: AsyncGenerator[WatchEvent, None]) -> WatchEvent | None:
        """Return the next event; None when the watch has ended or shows no sign of life."""
        try:
            async with asyncio.timeout(self._inactivity):
                return await anext(watch, None)
        except TimeoutError:
            self._log.warning("the watch is silent; opening another", seconds=self._inactivity)
            return None

    def _see(self, event: WatchEvent) -> None:
        if event.type == "DELETED":
            self._sink.delete(*_key(event.object))
        elif event.type != "BOOKMARK":
            self._sink.upsert(event.object)
        self._version, self._fresh = event.object["metadata"]["resourceVersion"], False


def _key(obj: JSON) -> tuple[str, str]:
    metadata = obj["metadata"]
    return metadata.get("namespace") or "", metadata["name"]
