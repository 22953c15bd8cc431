"""Stops the writes of a process that may no longer write.

A process that was suspended (SIGSTOP, a frozen node, a long garbage collection of its host) wakes up in the
middle of what it was doing and does not know how late it is. So the right to write is not asked once, before
a reconcile, but at each write, and once more by `HttpClient` at the last moment: when the connection is
there and the body is about to go out. Between that look at the clock and the system call there is no await.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from controller.runtime.client import PatchKind
from controller.runtime.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from api.resource import Resource
    from controller.runtime.client import JSON, Client, JSONPatch, ListPage, WatchEvent


class WriteRefusedError(ClientError):
    """This process may not write (any more); nothing was sent, or what was sent got no answer in time."""


class Right(Protocol):
    """A right to write that can run out."""

    @property
    def remaining(self) -> float:
        """Seconds for which this process may still write; not positive: it may not."""
        ...


_current: ContextVar[Right | None] = ContextVar("right to write", default=None)


def check() -> None:
    """Raise WriteRefusedError where a write is under way whose right has run out."""
    right = _current.get()
    if right is not None and right.remaining <= 0:
        raise WriteRefusedError("the right to write has run out: another process may be the leader now")


@asynccontextmanager
async def writing(right: Right | None) -> AsyncIterator[None]:
    """Let the block write, at most for as long as the right is known to last now; None: always.

    For writes that do not go to the API server: a `FencedClient` does it by itself.

    Raises:
        WriteRefusedError: the right has run out, before or meanwhile.
    """
    if right is None:
        yield
        return
    token = _current.set(right)
    try:
        check()
        limit = asyncio.timeout(right.remaining)
        try:
            async with limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise WriteRefusedError(
                "the server did not answer before the right to write could run out; reconcile again"
            ) from None
    finally:
        _current.reset(token)


class FencedClient:
    """A `Client` that reads freely and writes only while `right` lasts.

    A write that is not answered by the time the right ends is given up, and `replace` takes only objects with
    a resourceVersion: should the server hold a request back and carry it out later, then not over the work of
    the next leader.

    Args:
        client: does the requests.
        right: says for how long writes are allowed.
    """

    def __init__(self, client: Client, right: Right) -> None:
        self._client = client
        self._right = right

    async def get(self, resource: Resource, name: str, namespace: str = "") -> JSON:
        """Return one object."""
        return await self._client.get(resource, name, namespace)

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
        """Return one page of objects."""
        return await self._client.list(
            resource,
            namespace,
            label_selector=label_selector,
            field_selector=field_selector,
            limit=limit,
            continue_token=continue_token,
        )

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
        """Yield changes after `resource_version`."""
        return self._client.watch(
            resource,
            namespace,
            resource_version=resource_version,
            label_selector=label_selector,
            field_selector=field_selector,
            timeout_seconds=timeout_seconds,
        )

    async def create(self, resource: Resource, obj: JSON) -> JSON:
        """Create an object."""
        async with self._allowed():
            return await self._client.create(resource, obj)

    async def replace(self, resource: Resource, obj: JSON, *, subresource: str = "") -> JSON:
        """Write the whole object.

        Raises:
            ValueError: it has no resourceVersion.
        """
        if not obj["metadata"].get("resourceVersion"):
            raise ValueError(
                f"{resource.kind} {obj['metadata'].get('name')} has no resourceVersion: "
                "with leader election, replace takes only objects that were read"
            )
        async with self._allowed():
            return await self._client.replace(resource, obj, subresource=subresource)

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
        """Change part of an object."""
        async with self._allowed():
            return await self._client.patch(
                resource, name, namespace, patch, kind=kind, subresource=subresource
            )

    async def apply(
        self,
        resource: Resource,
        obj: JSON,
        *,
        field_manager: str,
        force: bool = True,
        subresource: str = "",
    ) -> JSON:
        """Server-side apply."""
        async with self._allowed():
            return await self._client.apply(
                resource, obj, field_manager=field_manager, force=force, subresource=subresource
            )

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        resource_version: str = "",
        propagation: str = "Background",
    ) -> None:
        """Delete an object."""
        async with self._allowed():
            await self._client.delete(
                resource, name, namespace, resource_version=resource_version, propagation=propagation
            )

    def _allowed(self) -> AbstractAsyncContextManager[None]:
        return writing(self._right)
