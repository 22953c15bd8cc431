"""Read, change, write, and again where somebody else wrote first.

A reconciler rarely needs it: a Conflict re-queues it, and the next pass sees the newer object. It is for
writes outside of one, and for a small change (a finalizer, an annotation) in the middle of a long pass.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from controller.runtime.backoff import Backoff
from controller.runtime.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from api.resource import Resource
    from controller.runtime.client import JSON, Client

TRIES = 5
"""As many as client-go's `retry.DefaultRetry`: more conflicts in a row mean two writers that fight."""


async def change(
    client: Client,
    resource: Resource,
    name: str,
    namespace: str,
    alter: Callable[[JSON], bool],
    *,
    subresource: str = "",
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> JSON:
    """Read an object, have `alter` change it in place, and write it with its resourceVersion.

    Args:
        client: the API server.
        resource: the object's type.
        name: its name.
        namespace: its namespace; empty for cluster-scoped ones.
        alter: changes the object; False says that it is right as it is, and nothing is written. It is called
            again with the newer object after a conflict.
        subresource: what to write, such as `status`.
        sleep: waits so many seconds.

    Returns:
        The object as it is now.

    Raises:
        Conflict: others were first, `TRIES` times.
        NotFound: the object is not there, or no longer.
    """
    backoff = Backoff(base=0.01, limit=1.0)
    for left in reversed(range(TRIES)):
        obj = await client.get(resource, name, namespace)
        if not alter(obj):
            return obj
        try:
            return await client.replace(resource, obj, subresource=subresource)
        except Conflict:
            if not left:
                raise
            await sleep(backoff.next())
    raise AssertionError("unreachable")
