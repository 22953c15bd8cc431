"""The `Client` of reconcilers directly on the in-memory server: for tests, and for what runs beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from controller.runtime.apiserver.decoding import FieldValidation, WriteOptions
from controller.runtime.apiserver.deletion import DeleteOptions
from controller.runtime.apiserver.queries import ListQuery, WatchQuery
from controller.runtime.apiserver.values import copy_json
from controller.runtime.client import JSON, JSONPatch, ListPage, PatchKind, WatchEvent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from api.resource import Resource
    from controller.runtime.apiserver.core import Core


class MemoryClient:
    """A client of `core`.

    Args:
        core: the server.
        field_manager: the name its writes are recorded under.
    """

    def __init__(self, core: Core, *, field_manager: str = "memory-client") -> None:
        self.core = core
        self._field_manager = field_manager

    async def get(self, resource: Resource, name: str, namespace: str = "") -> JSON:
        """Return one object; NotFound when it is not there."""
        return _copy(self.core.get(self.core.kind(resource), name, namespace).object)

    async def list(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        continue_token: str = "",
    ) -> ListPage:
        """Return one page of at most `limit` objects (0: all); Gone when `continue_token` has expired."""
        query = ListQuery(label_selector, field_selector, limit, continue_token)
        page = self.core.list(self.core.kind(resource), namespace, query)
        return ListPage([_copy(item.object) for item in page.items], str(page.version), page.continue_token)

    async def create(self, resource: Resource, obj: JSON) -> JSON:
        """Create `obj` in the namespace its metadata names; AlreadyExists when the name is taken."""
        return _copy(self.core.create(self.core.kind(resource), obj, options=self._options()).object)

    async def replace(self, resource: Resource, obj: JSON, *, subresource: str = "") -> JSON:
        """Write the whole object; Conflict when its resourceVersion is set and not the current one."""
        kind = self.core.kind(resource)
        return _copy(self.core.replace(kind, obj, subresource=subresource, options=self._options()).object)

    async def patch(
        self,
        resource: Resource,
        name: str,
        namespace: str,
        patch: JSON | JSONPatch,
        *,
        kind: PatchKind = PatchKind.MERGE,
        subresource: str = "",
    ) -> JSON:
        """Change part of an object and return the whole; STRATEGIC only on built-in resources."""
        served = self.core.kind(resource)
        options = self._options()
        written = self.core.patch(
            served, name, namespace, patch, kind, subresource=subresource, options=options
        )
        return _copy(written.object)

    async def apply(
        self,
        resource: Resource,
        obj: JSON,
        *,
        field_manager: str,
        force: bool = True,
        subresource: str = "",
    ) -> JSON:
        """Own exactly the fields of `obj` (server-side apply); Conflict without `force` if others own one."""
        served = self.core.kind(resource)
        options = WriteOptions(FieldValidation.STRICT, field_manager=field_manager)
        namespace = obj["metadata"].get("namespace", "")
        written = self.core.apply(
            served, obj, namespace, force=force, subresource=subresource, options=options
        )
        return _copy(written.object)

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        resource_version: str = "",
        propagation: str = "Background",
        grace_seconds: int | None = None,
    ) -> None:
        """Delete an object; Conflict when `resource_version` is given and not the current one.

        `grace_seconds=0` is how the runner of a pod says that its processes have ended.
        """
        options = DeleteOptions(resource_version, propagation=propagation, grace_seconds=grace_seconds)
        self.core.delete(self.core.kind(resource), name, namespace, options)

    async def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        timeout_seconds: int = 300,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Yield changes after `resource_version`, with bookmarks, until the server ends the watch."""
        query = WatchQuery(
            label_selector,
            field_selector,
            resource_version,
            timeout_seconds=timeout_seconds,
        )
        async for batch in self.core.watch(self.core.kind(resource), namespace, query):
            for item in batch:
                yield WatchEvent(item.type, _copy(item.snapshot.object))

    def _options(self) -> WriteOptions:
        return WriteOptions(field_manager=self._field_manager)


def _copy(obj: JSON) -> JSON:
    return cast("JSON", copy_json(obj))
