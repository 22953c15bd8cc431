"""The interface through which everything here talks to a Kubernetes API.

It is small and works on raw JSON objects, for two reasons: decoding into model classes costs far more than
the request, and an object that is read, changed and written back must keep the fields nobody here knows.
Typed objects begin at the cache's edge (`cache.py`).

Two implementations exist: `HttpClient` for a real API server, and the in-memory server's `MemoryClient`.
Because the interface is a protocol, a wrapper (fencing by a lease, counting requests) is one more class of
the same shape.

All methods raise `errors.ApiError` for an answer of the server and `errors.TransportError` when there was
none.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from api.resource import Resource

JSON = dict[str, Any]
JSONPatch = list[JSON]
"""Operations of RFC 6902."""
EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]


class PatchKind(StrEnum):
    """How a patch document is read; the value is its media type."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"


class WatchEvent(NamedTuple):
    """One change seen by a watch. A BOOKMARK's object has no more than kind and metadata.resourceVersion."""

    type: EventType
    object: JSON


class ListPage(NamedTuple):
    """One page of a list.

    Attributes:
        items: the objects, each with apiVersion and kind set.
        resource_version: version of the whole list, from which a watch continues.
        continue_token: asks for the next page; empty on the last.
    """

    items: list[JSON]
    resource_version: str
    continue_token: str


class Client(Protocol):
    """A Kubernetes API client.

    An empty `namespace` stands for a cluster-scoped resource; in list and watch, for all namespaces.
    """

    async def get(self, resource: Resource, name: str, namespace: str = "") -> JSON:
        """Return one object; NotFound when it is not there."""
        ...

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
        ...

    async def create(self, resource: Resource, obj: JSON) -> JSON:
        """Create `obj` in the namespace its metadata names; AlreadyExists when the name is taken."""
        ...

    async def replace(self, resource: Resource, obj: JSON, *, subresource: str = "") -> JSON:
        """Write the whole object; Conflict when its resourceVersion is set and not the current one."""
        ...

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
        ...

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
        ...

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        resource_version: str = "",
        propagation: str = "Background",
    ) -> None:
        """Delete an object; Conflict when `resource_version` is given and not the current one."""
        ...

    def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        timeout_seconds: int = 300,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Yield changes after `resource_version`, with bookmarks, until the server ends the watch.

        The generator ends normally after about `timeout_seconds`; close it (`aclosing`) to end it early.
        Gone means: list again.
        """
        ...
