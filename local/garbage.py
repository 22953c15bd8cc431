"""Garbage collection by owner references, as in kube-controller-manager.

An object all of whose owners are gone is deleted. `kubectl delete --cascade=foreground` leaves an owner until
its dependents are gone, `--cascade=orphan` frees them. The whole store is in this process, so one pass over
it is simpler than a graph and fast enough for one machine.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from controller.runtime.errors import NotFound
from controller.runtime.reconcile import Request, Result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from api.meta import JSON
    from api.resource import Resource
    from controller.runtime.apiserver import MemoryClient

_FOREGROUND = "foregroundDeletion"
_ORPHAN = "orphan"
"""Kubernetes' finalizers for `--cascade=foreground` and `--cascade=orphan`."""

PASS = Request("", "all")
"""The one thing there is to reconcile: everything."""


class GarbageCollector:
    """Deletes what has lost its owners."""

    def __init__(self, client: MemoryClient) -> None:
        self._client = client

    async def reconcile(self, _request: Request) -> Result:
        """Make one pass; what it deletes causes the next."""
        objects = list(self._objects())
        living = {obj["metadata"]["uid"] for _, obj in objects}
        dependents: dict[str, list[tuple[Resource, JSON]]] = {}
        for resource, obj in objects:
            owners = [owner["uid"] for owner in obj["metadata"].get("ownerReferences", ())]
            for owner in owners:
                dependents.setdefault(owner, []).append((resource, obj))
            if owners and living.isdisjoint(owners):
                await self._delete(resource, obj)
        for resource, obj in objects:
            await self._finish(resource, obj, dependents.get(obj["metadata"]["uid"], []))
        return Result()

    async def _finish(self, resource: Resource, owner: JSON, dependents: list[tuple[Resource, JSON]]) -> None:
        """Act on the finalizer by which a deletion asked for its dependents to go first, or to stay."""
        metadata = owner["metadata"]
        finalizers = metadata.get("finalizers", [])
        if not metadata.get("deletionTimestamp"):
            return
        if _FOREGROUND in finalizers:
            for kind, obj in dependents:
                await self._delete(kind, obj)
            if not dependents:
                await self._drop(resource, owner, _FOREGROUND)
        elif _ORPHAN in finalizers:
            for kind, obj in dependents:
                others = [
                    item for item in obj["metadata"]["ownerReferences"] if item["uid"] != metadata["uid"]
                ]
                await self._patch(kind, obj, {"ownerReferences": others})
            await self._drop(resource, owner, _ORPHAN)

    async def _drop(self, resource: Resource, obj: JSON, finalizer: str) -> None:
        rest = [name for name in obj["metadata"]["finalizers"] if name != finalizer]
        await self._patch(resource, obj, {"finalizers": rest})

    async def _patch(self, resource: Resource, obj: JSON, metadata: JSON) -> None:
        name, namespace = obj["metadata"]["name"], obj["metadata"].get("namespace", "")
        with contextlib.suppress(NotFound):
            await self._client.patch(resource, name, namespace, {"metadata": metadata})

    async def _delete(self, resource: Resource, obj: JSON) -> None:
        if not obj["metadata"].get("deletionTimestamp"):
            with contextlib.suppress(NotFound):
                name, namespace = obj["metadata"]["name"], obj["metadata"].get("namespace", "")
                await self._client.delete(resource, name, namespace)

    def _objects(self) -> Iterator[tuple[Resource, JSON]]:
        core = self._client.core
        for kind in core.kinds:
            for snapshot in core.list(kind).items:
                yield kind.resource, snapshot.object
