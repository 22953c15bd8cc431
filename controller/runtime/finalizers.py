"""Finalizers: the object stays, marked for deletion, until whoever put one there has cleaned up.

    if widget.metadata.deletion_timestamp:
        await release_outside_world(widget)
        await remove_finalizer(client, WIDGET, widget, FINALIZER)
        return Result()
    await add_finalizer(client, WIDGET, widget, FINALIZER)

The finalizer is written before anything is made outside the cluster, and removed after it is gone: a process
that dies in between finds the object again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller.runtime.errors import NotFound
from controller.runtime.retry import change

if TYPE_CHECKING:
    from api.meta import KubeObject
    from api.resource import Resource
    from controller.runtime.client import JSON, Client


async def add_finalizer(client: Client, resource: Resource, obj: KubeObject, finalizer: str) -> bool:
    """Put `finalizer` on an object; return whether it was written now.

    An object that is being deleted gets none (the API server would refuse it): False.

    Raises:
        NotFound: the object is gone.
    """
    if finalizer in obj.metadata.finalizers or obj.metadata.deletion_timestamp:
        return False
    written = False

    def add(present: JSON) -> bool:
        nonlocal written
        metadata = present["metadata"]
        held = metadata.setdefault("finalizers", [])
        written = finalizer not in held and not metadata.get("deletionTimestamp")
        if written:
            held.append(finalizer)
        return written

    await change(client, resource, obj.name, obj.namespace, add)
    return written


async def remove_finalizer(client: Client, resource: Resource, obj: KubeObject, finalizer: str) -> bool:
    """Take `finalizer` off an object; return whether it was written now. An object that is gone is fine."""
    written = False

    def remove(present: JSON) -> bool:
        nonlocal written
        held = present["metadata"].get("finalizers") or []
        written = finalizer in held and present["metadata"].get("uid") == obj.metadata.uid
        if written:
            present["metadata"]["finalizers"] = [name for name in held if name != finalizer]
        return written

    try:
        await change(client, resource, obj.name, obj.namespace, remove)
    except NotFound:
        return False
    return written
