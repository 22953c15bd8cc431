"""Watches: from the store's changes to the events a client asked for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from controller.runtime.apiserver import queries
from controller.runtime.apiserver.store import Change, Snapshot, Store

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from controller.runtime.apiserver.kinds import ServedKind
    from controller.runtime.apiserver.queries import WatchQuery
    from controller.runtime.apiserver.selectors import Predicate
    from controller.runtime.client import JSON, EventType

_BOOKMARK_SECONDS: Final = 60.0
"""How often an idle watch gets a bookmark; kube-apiserver's rate."""


class WatchItem(NamedTuple):
    """One event of a watch: its type and the object."""

    type: EventType
    snapshot: Snapshot


Batch = list[WatchItem]
"""Events that happened before the watcher came to look."""


def in_version(kind: ServedKind, snapshot: Snapshot) -> Snapshot:
    """Return an object in the version of `kind`; versions of a definition differ in nothing but the name."""
    api_version = kind.resource.api_version
    if snapshot.object["apiVersion"] == api_version:
        return snapshot
    return Snapshot({**snapshot.object, "apiVersion": api_version})


async def watch(
    store: Store,
    kind: ServedKind,
    namespace: str,
    query: WatchQuery,
) -> AsyncGenerator[Batch, None]:
    """Yield batches of events until the time is over; Gone when the version to start from is too old."""
    matches = queries.predicate(kind, query.label_selector, query.field_selector)
    version = queries.parse_version(query.resource_version)
    initial = query.send_initial_events or not version
    subscription = store.subscribe(kind.storage_key, store.version if initial else version)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + query.timeout_seconds
    try:
        if initial and (present := _present(store, kind, namespace, query, matches)):
            yield present
        while (remaining := deadline - loop.time()) > 0:
            changes = await subscription.drain(min(remaining, _BOOKMARK_SECONDS))
            events = [
                event
                for change in changes
                if (not namespace or change.snapshot.object["metadata"].get("namespace") == namespace)
                and (event := _event(kind, change, matches))
            ]
            if events:
                yield events
            elif subscription.closed and not changes:
                return
            elif query.bookmarks and not changes:
                yield [_bookmark(kind, store.version)]
    finally:
        store.unsubscribe(kind.storage_key, subscription)


def _present(
    store: Store,
    kind: ServedKind,
    namespace: str,
    query: WatchQuery,
    matches: Predicate,
) -> list[WatchItem]:
    """Return an event for each object there is, and the mark of their end where the client wants it."""
    found = [
        WatchItem("ADDED", in_version(kind, snapshot))
        for _, snapshot in store.scan(kind.storage_key, namespace)
        if matches(snapshot.object)
    ]
    if query.send_initial_events:
        found.append(_bookmark(kind, store.version, {"k8s.io/initial-events-end": "true"}))
    return found


def _bookmark(kind: ServedKind, version: int, annotations: JSON | None = None) -> WatchItem:
    metadata: JSON = {"resourceVersion": str(version), "creationTimestamp": None}
    if annotations:
        metadata["annotations"] = annotations
    resource = kind.resource
    obj = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
    return WatchItem("BOOKMARK", Snapshot(obj))


def _event(kind: ServedKind, change: Change, matches: Predicate) -> WatchItem | None:
    """Return what a watcher with a selector sees of a change: an object may enter or leave its selection."""
    fits = change.type != "DELETED" and matches(change.snapshot.object)
    fitted = change.previous is not None and matches(change.previous.object)
    if not fits and not fitted:
        return None
    event: EventType = "DELETED" if not fits else "MODIFIED" if fitted else "ADDED"
    return WatchItem(event, in_version(kind, change.snapshot))
