"""Objects that do not parse are told about on themselves: their authors do not read our log.

A CRD refuses most of them. One of another version, such as KServe's own, may have let something through, and
what was stored before a rule came stays. The controller works on with the last version that it could read.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from api.meta import KubeObject, ObjectMeta
from api.v1beta1 import INFERENCE_SERVICE
from api.v1beta1.rules import DEPLOYMENT_MODE

if TYPE_CHECKING:
    from controller.runtime.events import EventRecorder

JSON = dict[str, Any]

_GROUP = INFERENCE_SERVICE.group
"""Of the kinds that users write for us."""


class UnreadableObjects:
    """Collects what the cache could not read (`Manager.on_unparsable`), and reports it (`report`)."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, ...], tuple[KubeObject, str]] = {}
        self._news = asyncio.Event()

    def __call__(self, kind: type[KubeObject], raw: JSON, error: ValueError) -> None:
        """Takes note of an object, unless it is another system's."""
        resource, metadata = kind.RESOURCE, raw["metadata"]
        if resource.group != _GROUP or not _is_ours(kind, metadata):
            return
        identity = ObjectMeta(
            name=metadata["name"], namespace=metadata.get("namespace", ""), uid=metadata.get("uid", "")
        )
        obj = kind.model_construct(api_version=resource.api_version, kind=resource.kind, metadata=identity)
        self._found[resource.kind, identity.namespace, identity.name] = (obj, str(error))
        self._news.set()

    async def report(self, recorder: EventRecorder) -> None:
        """Records an Event on each, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            found, self._found = self._found, {}
            for obj, error in found.values():
                message = f"Not read, what was read before stays in effect: {error}"
                await recorder.event(obj, "Warning", "Unreadable", message)


def _is_ours(kind: type[KubeObject], metadata: JSON) -> bool:
    annotations = metadata.get("annotations") or {}
    return kind.RESOURCE != INFERENCE_SERVICE or annotations.get(DEPLOYMENT_MODE) == "ModelMesh"
